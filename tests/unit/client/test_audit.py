"""Audit files: what they prove, and that no changed byte of them still holds."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from confide.audit import AuditFile, audit, audit_file, disclose, parse_audit_file
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.result import Outcome
from confide_protocol import cbor
from confide_protocol.errors import ConfideError, LocalStateError, Malformed, PolicyError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.peer import JSON, Peer, a_peer, said
from tests.fakes.scene import NOW

WORDS = ("Par", "is.")


def make(peer: Peer, *, disclose: bool = True) -> AuditFile:
    """Hold one exchange and keep it."""
    exchange = peer.exchange()
    for chunk in peer.answer(exchange.body, said(*WORDS), messages=[b"Paris."]):
        exchange.push(chunk)
    exchange.finish()
    assert exchange.receipt is not None
    return audit_file(exchange.receipt, peer.policy_text.encode(), disclose=disclose)


@cache
def one_exchange() -> AuditFile:
    return make(a_peer())


@pytest.fixture
def kept() -> AuditFile:
    return one_exchange()


def outcomes(file: AuditFile, **options: Any) -> dict[str, str]:
    result = audit(file, allow_simulated=True, **options)
    return {check.id: check.outcome.value for check in result.checks} | {"holds": result.holds}


def test_a_kept_exchange_holds(kept: AuditFile) -> None:
    """Everything passes but time, which nothing in the file can show."""
    again = parse_audit_file(kept.encoded)
    assert again == kept
    assert outcomes(again) == {
        "receipt": "PASS",
        "receipt_statement": "PASS",
        "receipt_policy": "PASS",
        "request": "PASS",
        "response": "PASS",
        "transcript": "PASS",
        "time": "SKIP",
        "holds": True,
    }


def test_without_its_words_it_holds_and_says_less() -> None:
    """An undisclosed exchange: the receipt holds, request and answer are SKIP."""
    found = outcomes(make(a_peer(), disclose=False))
    assert found["holds"] is True
    assert [found[name] for name in ("request", "response", "transcript")] == ["SKIP"] * 3


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"request_body": b"{}"}, "request"),
        ({"method": "GET"}, "request"),
        ({"path": "/v1/completions"}, "request"),
        ({"response": (*said("Lon", "don."),)}, "response"),
        ({"status": 201}, "response"),
        ({"content_type": JSON, "response": (b"{}",)}, "response"),
        ({"salt": bytes(32)}, "request"),
        ({"response": tuple(said(*WORDS)[:-1])}, "transcript"),
        ({"response": (b"data: {\n\n",)}, "response"),
    ],
)
def test_other_words_do_not_hold(kept: AuditFile, change: dict[str, Any], failed: str) -> None:
    """Words that are not those of the receipt fail where they differ."""
    assert kept.exchange is not None
    found = outcomes(replace(kept, exchange=replace(kept.exchange, **change)))
    assert found[failed] == "FAIL"
    assert found["holds"] is False


def test_simulated_hardware_needs_the_switch(kept: AuditFile) -> None:
    """Without allow_simulated the evidence is refused and the receipt is not even judged."""
    result = audit(kept)
    assert not result.holds
    assert result.checks[0].outcome is Outcome.SKIP
    assert result.claims is None


def test_the_receipt_must_be_by_the_judged_keyset(kept: AuditFile) -> None:
    """A receipt of another enclave fails; so does another policy in the file."""
    assert outcomes(replace(kept, receipt=make(Peer()).receipt))["receipt"] == "FAIL"
    other = a_peer().policy_text.replace("serial = 1", "serial = 2").encode()
    assert outcomes(replace(kept, policy=other))["receipt_policy"] == "FAIL"


def test_the_time_of_judgement_counts(kept: AuditFile) -> None:
    """Judged outside the validity of its evidence, the file does not hold."""
    assert outcomes(kept, at_unix_s=NOW + 86_400 * 365)["holds"] is False


def test_the_auditors_own_policy_decides(kept: AuditFile) -> None:
    """A policy given by the auditor judges the evidence in place of the one in the file."""
    stricter = Peer("bucketed").policy
    assert outcomes(kept, policy=stricter)["holds"] is True
    assert outcomes(replace(kept, nonce=bytes(32)))["holds"] is False


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"purpose": "confide.audit.v1"},
        [],
        {"stated_unix_s": -1},
        {"stated_unix_s": 253_402_300_800},
        {"stated_unix_s": True},
        {"evidence": "text"},
        {"receipt": None},
        {"exchange": {}},
        {"exchange": 1},
    ],
)
def test_what_is_no_audit_file_is_malformed(kept: AuditFile, tree: Any) -> None:
    """Missing, unknown and mistyped fields are Malformed."""
    whole = cbor.decode(kept.encoded)
    data = cbor.encode({**whole, **tree} if isinstance(tree, dict) and "purpose" not in tree and tree else tree)
    with pytest.raises(Malformed):
        parse_audit_file(data)


@given(st.binary(max_size=300))
def test_any_bytes_raise_malformed_alone(data: bytes) -> None:
    """No bytes make the parser raise anything but Malformed."""
    with pytest.raises(Malformed):
        parse_audit_file(data)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_changed_byte_still_holds(data: st.DataObject) -> None:
    """Flipping any bit of the file makes it malformed, refused or unreadable; only the stated time may change."""
    kept = one_exchange()
    whole = kept.encoded
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        file = parse_audit_file(bytes(flipped))
        holds = audit(file, allow_simulated=True).holds
    except (Malformed, EvidenceMalformed, PolicyError):
        return
    except ConfideError as fault:
        pytest.fail(type(fault).__name__)
    # A policy's comments mean nothing, and the time is the file's own word.
    assert not holds or (file.stated_unix_s, file.policy) != (kept.stated_unix_s, kept.policy)


@pytest.mark.parametrize(("kind", "index", "content"), [("message", 0, b"Paris."), ("chunk", 0, None)])
def test_one_part_is_shown_without_the_rest(kept: AuditFile, kind: Any, index: int, content: bytes | None) -> None:
    """A file with one part proves that part, and holds neither the salt nor any other word."""
    shown = parse_audit_file(disclose(kept, kind, index).encoded)
    assert kept.exchange is not None
    assert shown.exchange is None
    assert kept.exchange.salt not in shown.encoded
    assert kept.exchange.request_body not in shown.encoded
    assert content in (None, shown.parts[0].content)
    found = outcomes(shown)
    assert (found["part"], found["response"], found["holds"]) == ("PASS", "SKIP", True)


@pytest.mark.parametrize(
    "change", [{"content": b"Rome."}, {"index": 1}, {"kind": "chunk"}, {"salt": bytes(32)}, {"path": ()}]
)
def test_a_part_that_was_changed_fails(kept: AuditFile, change: dict[str, Any]) -> None:
    """Another text, place, kind, salt or path is not in the signed transcript."""
    shown = disclose(kept, "message", 0)
    other = replace(shown, parts=(replace(shown.parts[0], **change),))
    found = outcomes(other)
    assert (found["part"], found["holds"]) == ("FAIL", False)


def test_only_what_is_there_can_be_shown(kept: AuditFile) -> None:
    """A part beyond the answer, and any part of a file without words, is refused."""
    with pytest.raises(LocalStateError, match="counted from 0"):
        disclose(kept, "message", 1)
    with pytest.raises(LocalStateError, match="no words"):
        disclose(replace(kept, exchange=None), "message", 0)


@pytest.mark.parametrize(
    "parts",
    [
        1,
        [1],
        [["message", True, bytes(32), b"", []]],
        [["word", 0, bytes(32), b"", []]],
        [["chunk", 0, b"", b"", []]],
    ],
)
def test_malformed_parts_are_malformed(kept: AuditFile, parts: Any) -> None:
    """Parts of another form are refused before anything is judged."""
    tree = cbor.decode(kept.encoded, max_bytes=1 << 24)
    with pytest.raises(Malformed, match="part"):
        parse_audit_file(cbor.encode(tree | {"parts": parts}))
