"""Report-data statements, the GPU nonce and the tree of coalesced nonces."""

import dataclasses
import hashlib
from typing import Any

import pytest
from confide_protocol import cbor
from confide_protocol.errors import Malformed
from confide_protocol.statement import (
    NoncePath,
    ReportDataStatement,
    coalesce_nonces,
    gpu_nonce,
    parse_statement,
)

NONCE, EPOCH, KEYSET_DIGEST, GPU_DIGEST = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32, b"\x04" * 32
STATEMENTS = [
    ReportDataStatement(KEYSET_DIGEST, 1000, nonce=NONCE),
    ReportDataStatement(KEYSET_DIGEST, 1000, epoch=EPOCH),
    ReportDataStatement(KEYSET_DIGEST, 1000, nonce=NONCE, gpu_evidence_digest=GPU_DIGEST),
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_goes_both_ways(statement: ReportDataStatement) -> None:
    """Absent entries stay absent; report_data is SHA-512 and the digest SHA-256 of the same bytes."""
    assert parse_statement(statement.encoded) == statement
    assert statement.report_data == hashlib.sha512(statement.encoded).digest()
    assert statement.digest == hashlib.sha256(statement.encoded).digest()
    assert None not in cbor.decode(statement.encoded).values()


def test_nonce_and_epoch_are_not_interchangeable() -> None:
    """The same 32 bytes as nonce and as epoch make different statements."""
    by_nonce = ReportDataStatement(KEYSET_DIGEST, 1000, nonce=NONCE)
    by_epoch = ReportDataStatement(KEYSET_DIGEST, 1000, epoch=NONCE)
    assert by_nonce.freshness == by_epoch.freshness == NONCE
    assert by_nonce.report_data != by_epoch.report_data


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "confide.keyset.v1"},
        {"purpose": None},
        {"epoch": EPOCH},  # both
        {"nonce": None},  # neither
        {"nonce": b"\x01" * 31},
        {"nonce": "01" * 32},
        {"keyset_digest": b""},
        {"keyset_digest": None},
        {"gpu_evidence_digest": b"\x04" * 48},
        {"not_after": -1},
        {"not_after": 253_402_300_800},
        {"not_after": True},
        {"not_after": None},
        {"extra": 0},
    ],
)
def test_malformed_statements_are_refused(changes: dict[str, Any]) -> None:
    """A missing, unknown, mistyped or missized entry is Malformed, and so are nonce and epoch together."""
    tree = cbor.decode(STATEMENTS[0].encoded) | changes
    with pytest.raises(Malformed):
        parse_statement(cbor.encode({name: value for name, value in tree.items() if value is not None}))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xa0"])
def test_other_cbor_is_no_statement(data: bytes) -> None:
    """CBOR of another shape is Malformed."""
    with pytest.raises(Malformed):
        parse_statement(data)


def test_the_gpu_nonce_depends_on_both_inputs() -> None:
    """Another nonce or another keyset asks the GPUs another question."""
    nonces = {gpu_nonce(NONCE, KEYSET_DIGEST), gpu_nonce(EPOCH, KEYSET_DIGEST), gpu_nonce(NONCE, GPU_DIGEST)}
    assert len(nonces) == 3
    assert gpu_nonce(NONCE, KEYSET_DIGEST) == hashlib.sha256(b"confide.gpu.v1" + NONCE + KEYSET_DIGEST).digest()


def nonce_number(i: int) -> bytes:
    return hashlib.sha256(i.to_bytes(4, "big")).digest()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 33])
def test_every_nonce_finds_its_way_to_the_root(count: int) -> None:
    """Each caller recomputes the statement's nonce from its own, and nobody from another's."""
    nonces = [nonce_number(i) for i in range(count)]
    root, paths = coalesce_nonces(nonces)
    assert root not in nonces
    for i, path in enumerate(paths):
        assert path.root(nonces[i]) == root
        assert path.root(nonce_number(count)) != root
        assert count == 1 or path.root(nonces[i - 1]) != root


def test_the_order_of_nonces_counts() -> None:
    """Swapped siblings give another root."""
    one, two = nonce_number(1), nonce_number(2)
    assert coalesce_nonces([one, two])[0] != coalesce_nonces([two, one])[0]


def test_a_node_cannot_pass_for_a_nonce() -> None:
    """Leaves and nodes are hashed apart: an inner node, given as a nonce, leads elsewhere."""
    nonces = [nonce_number(i) for i in range(4)]
    root, (path, *_) = coalesce_nonces(nonces)
    inner = NoncePath(path.steps[:1]).root(nonces[0])
    assert NoncePath(path.steps[1:]).root(inner) != root


def test_a_changed_step_leads_elsewhere() -> None:
    """Another side or another sibling gives another root."""
    root, (path, *_) = coalesce_nonces([nonce_number(i) for i in range(3)])
    (is_left, sibling), *rest = path.steps
    for step in ((not is_left, sibling), (is_left, nonce_number(9))):
        assert dataclasses.replace(path, steps=(step, *rest)).root(nonce_number(0)) != root


@pytest.mark.parametrize("count", [0, (1 << 16) + 1])
def test_too_few_or_many_nonces(count: int) -> None:
    """A quote is shared by at least one and at most 65,536 nonces."""
    with pytest.raises(ValueError, match="65,536"):
        coalesce_nonces([NONCE] * count)
