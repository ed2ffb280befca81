"""A statement with one value replaced by one of another kind is malformed, and nothing worse."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confide.audit import audit, parse_audit_file
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import encode_bundle, parse_bundle
from confide_protocol import cbor
from confide_protocol.errors import PolicyError, ProtocolError
from confide_protocol.keyset import parse_keyset, parse_manifest
from confide_protocol.receipt import parse_claims, parse_receipt
from confide_protocol.statement import parse_statement

from tests.fuzz.fuzz_attestation import genuine
from tests.unit.client.test_audit import one_exchange

ODD: tuple[Any, ...] = (
    [],
    {},
    [[]],
    [{}],
    None,
    True,
    0,
    -1,
    (1 << 64) - 1,
    b"",
    b"\xff" * 33,
    "",
    "\x00",
    "x" * 300,
)


def variants(tree: Any, put: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield the whole tree once for each of its places and odd values."""
    yield from map(put, ODD)
    places = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for place, value in places:

        def inner(odd: Any, place: Any = place) -> Any:
            changed = tree.copy()
            changed[place] = odd
            return put(changed)

        yield from variants(value, inner)


def samples() -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    evidence, endorsements, _ = genuine()
    kept = one_exchange()
    claims = parse_receipt(kept.receipt).payload
    return {
        "bundle": (encode_bundle(evidence, endorsements), parse_bundle),
        "keyset": (evidence.keyset, parse_keyset),
        "manifest": (evidence.manifest, parse_manifest),
        "statement": (evidence.statement, parse_statement),
        "claims": (claims, parse_claims),
        "audit": (kept.encoded, lambda data: audit(parse_audit_file(data), allow_simulated=True)),
    }


@pytest.mark.parametrize("name", ["bundle", "keyset", "manifest", "statement", "claims", "audit"])
def test_a_value_of_another_kind_is_malformed(name: str) -> None:
    """Lists where text belongs, integers where bytes belong: only the declared errors."""
    data, parse = samples()[name]
    for tree in variants(cbor.decode(data, max_bytes=1 << 22), lambda whole: whole):
        try:
            parse(cbor.encode(tree))
        except (ProtocolError, EvidenceMalformed, PolicyError):
            continue
