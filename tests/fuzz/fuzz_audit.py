"""Fuzz the reader of audit files and of answers: only the declared errors may leave them."""

from collections.abc import Callable

from confide.answer import AnswerText
from confide.audit import audit, parse_audit_file
from confide_attestation.errors import EvidenceMalformed
from confide_protocol.errors import Malformed, PolicyError


def audit_files(data: bytes) -> None:
    try:
        file = parse_audit_file(data)
        assert file.encoded == data
        audit(file, allow_simulated=True)
    except (Malformed, EvidenceMalformed, PolicyError):
        return


def answers(data: bytes) -> None:
    answer = AnswerText()
    for read in (answer.body, answer.event):
        try:
            read(data)
        except Malformed:
            continue
    assert all(isinstance(message, bytes) for message in answer.messages)


TARGETS: dict[str, Callable[[bytes], None]] = {"audit": audit_files, "answer": answers}
