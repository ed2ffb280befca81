"""When documents end by their own words, and files that carry them to machines without network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import Endorsements, SnpEndorsements, TdxEndorsements
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.nvidia.ocsp import OcspAnswer
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.simulated.intel import ROOT_CA, SimulatedIntel
from confide_attestation.simulated.nvidia import SimulatedDevice
from confide_endorsements.archive import archived, encode_archive, parse_archive
from confide_endorsements.cache import Cache
from confide_endorsements.documents import Kind, Name, document_end, endings
from confide_endorsements.intel import members
from confide_protocol import cbor

from tests.fakes.vendors import DAY_S, pem
from tests.unit.attestation.endorsements.conftest import NOW

END = NOW + 30 * DAY_S


def test_every_document_of_a_machine_says_when_it_ends(
    amd: SimulatedAmd, intel: SimulatedIntel, device: SimulatedDevice
) -> None:
    """One line a document, the first end of what stands in it."""
    crl = amd.crl(issued_unix_s=NOW, next_update_unix_s=NOW + DAY_S)
    collateral = intel.collateral(root_ca_crl=intel.crl(ROOT_CA, intel.keys.root, window=(NOW, NOW + 9)).hex())
    found = endings(
        Endorsements(
            SnpEndorsements(amd.vek, amd.ask, amd.ark, crl),
            TdxEndorsements(collateral),
            NvidiaEndorsements(device.rims, device.answers()[:1]),
        )
    )
    assert {each.title: each.not_after_unix_s for each in found} == {
        "VCEK or VLEK": END,
        "ASK": END,
        "ARK": END,
        "AMD's revocation list": NOW + DAY_S,
        "Intel's TDX TCB info": END,
        "Intel's identity of the quoting enclave": END,
        "Intel's PCK revocation list": END,
        "Intel's root revocation list": NOW + 9,
        "NVIDIA's manifest 1": END,
        "NVIDIA's manifest 2": END,
        "NVIDIA's OCSP answer 1": NOW + 86_340,
    }
    assert endings(Endorsements()) == ()


def test_what_cannot_be_read_has_no_end() -> None:
    """Never an exception: endorsements of an enclave are anybody's bytes."""
    junk = b"\x30\x03junk"
    found = endings(
        Endorsements(
            SnpEndorsements(junk, junk, junk, junk),
            TdxEndorsements(junk),
            NvidiaEndorsements((junk, b"<SoftwareIdentity>"), (OcspAnswer(junk),)),
        )
    )
    assert {each.not_after_unix_s for each in found} == {None}
    assert len(found) == 8


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    "data", [b"", b"junk", b"{}", b"[]", b'{"tcb_info": "{}"}', b"\x30\x80", b"<a/>", b"\xff" * 99]
)
def test_no_other_bytes_are_a_document(kind: Kind, data: bytes) -> None:
    """Whatever the kind."""
    with pytest.raises(EvidenceMalformed):
        document_end(kind, data)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a":{"b" : 1},"signature":"00"}', {"a": '{"b" : 1}', "signature": '"00"'}),
        (' {\n"signature" : "00" , "a" : [1, 2 ] } ', {"signature": '"00"', "a": "[1, 2 ]"}),
    ],
)
def test_the_text_that_was_signed_is_kept_as_it_is(text: str, found: dict[str, str]) -> None:
    """Order and space inside a member stay; those around it do not matter."""
    assert members(text) == found


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[]", '{"a":1', '{"a":1}x', '{"a":1,"a":2}', '{"a" 1}', '{"a":1,}', "{1:2", "[" * 9000]
)
def test_what_is_no_object_is_malformed(text: str) -> None:
    """Unclosed, followed, repeated, empty, too deep."""
    with pytest.raises(EvidenceMalformed):
        members(text)


@pytest.fixture
def full(cache: Cache, amd: SimulatedAmd) -> Cache:
    crl = amd.crl(issued_unix_s=NOW, next_update_unix_s=NOW + DAY_S)
    for kind, data in ((Kind.AMD_VCEK, amd.vek), (Kind.AMD_CERT_CHAIN, pem(amd.ask, amd.ark)), (Kind.AMD_CRL, crl)):
        cache.put(Name(kind, "Genoa/x", f"https://kds.invalid/{kind}"), data, now_unix_s=NOW)
    return cache


def test_an_archive_carries_the_cache(full: Cache, tmp_path: Path) -> None:
    """Deterministic, and the same documents come out elsewhere."""
    data = encode_archive(archived(full))
    assert data == encode_archive(archived(full))
    other = Cache(tmp_path / "other")
    other.put_all(parse_archive(data), now_unix_s=NOW)
    assert other.entries() == full.entries()
    assert archived(other) == archived(full)


def test_a_damaged_document_is_not_exported(full: Cache, told: list[str]) -> None:
    """The others are."""
    next((full.folder / "objects").iterdir()).write_bytes(b"junk")
    assert len(archived(full)) == 2
    assert len(told) == 1


def rows(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    return lambda tree: [change(row) for row in tree["documents"]][:0] and None


@pytest.mark.parametrize(
    "change",
    [
        rows(lambda row: row.update(kind="odd")),
        rows(lambda row: row.update(kind=1)),
        rows(lambda row: row.update(id="a\nb")),
        rows(lambda row: row.update(url="x" * 5000)),
        rows(lambda row: row.update(fetched_at=-1)),
        rows(lambda row: row.update(fetched_at=True)),
        rows(lambda row: row.update(data="text")),
        rows(lambda row: row.update(data=b"junk")),
        rows(lambda row: row.pop("url")),
        rows(lambda row: row.update(more=1)),
        lambda tree: tree.update(purpose="confide.evidence.v1"),
        lambda tree: tree.update(documents={}),
        lambda tree: tree.update(documents=[1]),
        lambda tree: tree.update(more=1),
    ],
)
def test_an_archive_of_another_form_is_malformed(full: Cache, change: Callable[[dict[str, Any]], None]) -> None:
    """Each field of each row is judged before anything is kept."""
    tree = cbor.decode(encode_archive(archived(full)))
    change(tree)
    with pytest.raises(EvidenceMalformed):
        parse_archive(cbor.encode(tree))


@pytest.mark.parametrize("data", [b"", b"junk", b"\xa0", json.dumps({"purpose": "x"}).encode()])
def test_other_files_are_no_archive(data: bytes) -> None:
    """Named by the command that writes one."""
    with pytest.raises(EvidenceMalformed, match="confide endorsements export"):
        parse_archive(data)
