"""Keyset statements and manifests."""

import dataclasses
import hashlib
from typing import Any

import pytest
from confide_protocol import cbor, labels
from confide_protocol.errors import Malformed
from confide_protocol.keyset import MAX_MODELS, Keyset, Manifest, ServedModel, parse_keyset, parse_manifest

KEYSET = Keyset(
    ohttp_keys=b"exact bytes",
    receipt_ed25519=b"\x01" * 32,
    receipt_ml_dsa_65=b"\x02" * 1952,
    usage_ed25519=b"\x03" * 32,
    manifest_digest=b"\x04" * 32,
    not_before_unix_s=1_000_000,
    not_after_unix_s=1_000_000 + labels.KEYSET_LIFETIME_MAX_S,
    simulated=True,
)
MANIFEST = Manifest(
    release="0.1.0",
    model="smollm2-135m-instruct",
    weights_digest=b"\x05" * 32,
    tokenizer_digest=b"\x06" * 32,
    engine={"dtype": "float32", "max_context": 2048, "prefix_cache": True},
    shapes=("none", "bucketed"),
    platform="simulated-sev-snp",
)


def changed(encoded: bytes, **changes: Any) -> bytes:
    """A statement with other values; None drops the entry."""
    tree = cbor.decode(encoded) | changes
    return cbor.encode({name: value for name, value in tree.items() if value is not None})


def test_a_keyset_goes_both_ways() -> None:
    """The statement is one encoding of its fields, named by its SHA-256."""
    assert parse_keyset(KEYSET.encoded) == KEYSET
    assert KEYSET.digest == hashlib.sha256(KEYSET.encoded).digest()
    assert cbor.decode(KEYSET.encoded)["purpose"] == "confide.keyset.v1"


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Keyset)])
def test_every_field_of_a_keyset_is_in_its_digest(field: str) -> None:
    """No field can change while the digest stays."""
    value = getattr(KEYSET, field)
    changes = {
        bytes: lambda: value[:-1] + b"\xff",
        bool: lambda: not value,
        int: lambda: value + 1,
        type(None): lambda: b"\x07" * 32,
    }
    other = changes[type(value)]()
    assert dataclasses.replace(KEYSET, **{field: other}).digest != KEYSET.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "confide.manifest.v1"},
        {"purpose": None},
        {"extra": 1},
        {"ohttp_keys": b""},
        {"ohttp_keys": b"x" * (16 * 1024 + 1)},
        {"ohttp_keys": "text"},
        {"receipt_keys": {}},
        {"receipt_keys": [1, 2]},
        {"receipt_keys": {"ed25519": b"\x01" * 32}},
        {"receipt_keys": {"ed25519": b"\x01" * 31, "ml_dsa_65": b"\x02" * 1952}},
        {"receipt_keys": {"ed25519": b"\x01" * 32, "ml_dsa_65": b"\x02" * 1951}},
        {"receipt_keys": {"ed25519": b"\x01" * 32, "ml_dsa_65": b"\x02" * 1952, "rsa": b""}},
        {"usage_key": b"\x03" * 33},
        {"manifest_digest": "04" * 32},
        {"not_before": -1},
        {"not_before": True},
        {"not_before": "now"},
        {"not_after": 1_000_000},  # no lifetime
        {"not_after": 1_000_000 + labels.KEYSET_LIFETIME_MAX_S + 1},  # too long a one
        {"not_after": 1 << 40},
        {"simulated": 1},
        {"simulated": None},
    ],
)
def test_malformed_keysets_are_refused(changes: dict[str, Any]) -> None:
    """A missing, unknown, mistyped or missized entry is Malformed."""
    with pytest.raises(Malformed):
        parse_keyset(changed(KEYSET.encoded, **changes))


def test_a_keyset_names_the_key_of_a_foreign_dialect_only_where_there_is_one() -> None:
    """Without EHBP the statement is as it was before; with it, its key is part of what is attested."""
    assert "ehbp_key" not in cbor.decode(KEYSET.encoded)
    both = dataclasses.replace(KEYSET, ehbp_key=b"\x07" * 32)
    assert parse_keyset(both.encoded) == both
    for wrong in (b"\x07" * 31, b"\x07" * 33, "07" * 32):
        with pytest.raises(Malformed):
            parse_keyset(changed(both.encoded, ehbp_key=wrong))
    with pytest.raises(Malformed):
        parse_keyset(cbor.encode(cbor.decode(KEYSET.encoded) | {"ehbp_key": None}))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x00", b"\xa0", b"\xa1\x67purpose\x00"])
def test_other_cbor_is_no_keyset(data: bytes) -> None:
    """CBOR of another shape is neither keyset nor manifest."""
    for parse in (parse_keyset, parse_manifest):
        with pytest.raises(Malformed):
            parse(data)


def test_a_manifest_goes_both_ways() -> None:
    """A manifest is one encoding of its fields, named by its SHA-256; order of shapes counts."""
    assert parse_manifest(MANIFEST.encoded) == MANIFEST
    assert MANIFEST.digest == hashlib.sha256(MANIFEST.encoded).digest()
    assert dataclasses.replace(MANIFEST, shapes=("bucketed", "none")).digest != MANIFEST.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "confide.keyset.v1"},
        {"release": ""},
        {"release": 1},
        {"model": None},
        {"platform": b"bytes"},
        {"weights_digest": b"\x05" * 31},
        {"tokenizer_digest": "06" * 32},
        {"engine": []},
        {"engine": {1: "a"}},
        {"engine": {"a": [1]}},
        {"engine": {"a": b"1"}},
        {"shapes": []},
        {"shapes": "none"},
        {"shapes": [1]},
        {"extra": 1},
    ],
)
def test_malformed_manifests_are_refused(changes: dict[str, Any]) -> None:
    """A missing, unknown, mistyped or missized entry is Malformed."""
    with pytest.raises(Malformed):
        parse_manifest(changed(MANIFEST.encoded, **changes))


def beside(name: str = "other", **changes: Any) -> ServedModel:
    model = ServedModel(name, b"\x07" * 32, b"\x08" * 32, {"mode": "fast"})
    return dataclasses.replace(model, **changes)


def test_one_model_alone_has_no_further_key() -> None:
    """A manifest of one model has the seven fields of its first form, and no list of more."""
    tree = cbor.decode(MANIFEST.encoded)
    assert set(tree) == {
        "purpose", "release", "model", "weights_digest", "tokenizer_digest", "engine", "shapes", "platform",
    }  # fmt: skip
    assert MANIFEST.models == (MANIFEST,)


def test_more_models_go_both_ways() -> None:
    """Models beside the first stand in a list of their own, and are found by name."""
    manifest = dataclasses.replace(MANIFEST, more_models=(beside(), beside("third")))
    assert parse_manifest(manifest.encoded) == manifest
    assert [each.model for each in manifest.models] == ["smollm2-135m-instruct", "other", "third"]
    assert manifest.find("third") == beside("third")
    assert manifest.find("smollm2-135m-instruct") == manifest
    assert manifest.find("none") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "another"},
        {"weights_digest": b"\x09" * 32},
        {"tokenizer_digest": b"\x09" * 32},
        {"engine": {"mode": "exact"}},
    ],
)
def test_every_field_of_every_model_is_in_the_digest(changes: dict[str, Any]) -> None:
    """A change of any model, of their order or of their number is another manifest."""
    manifest = dataclasses.replace(MANIFEST, more_models=(beside(), beside("third")))
    others = [
        dataclasses.replace(manifest, more_models=(beside(**changes), beside("third"))),
        dataclasses.replace(manifest, more_models=(beside("third"), beside())),
        dataclasses.replace(manifest, more_models=(beside(),)),
        MANIFEST,
    ]
    assert manifest.digest not in {each.digest for each in others}


@pytest.mark.parametrize(
    "more",
    [
        [],
        {},
        "other",
        ["other"],
        [{}],
        [vars(beside()) | {"release": "0.1.0"}],
        [vars(beside()) | {"model": ""}],
        [vars(beside()) | {"engine": {"a": [1]}}],
        [vars(beside()) | {"weights_digest": b"short"}],
        [{name: value for name, value in vars(beside()).items() if name != "engine"}],
        [vars(beside()), vars(beside())],
        [vars(beside("smollm2-135m-instruct"))],
        [vars(beside(f"m{n}")) for n in range(MAX_MODELS)],
    ],
)
def test_malformed_lists_of_models_are_refused(more: Any) -> None:
    """An empty or endless list, an entry that is not closed, and a name that stands twice are Malformed."""
    with pytest.raises(Malformed):
        parse_manifest(changed(MANIFEST.encoded, more_models=more))
