"""Fuzz the readers of other providers' reports, and what is judged of whatever they let through."""

import base64
import gzip
import json
from collections.abc import Callable

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.foreign.dstack_report import parse_dstack
from confide_attestation.foreign.intel_pcs import collateral_of
from confide_attestation.foreign.judge_dstack import verify_dstack_report
from confide_attestation.foreign.judge_tinfoil import verify_tinfoil
from confide_attestation.foreign.tinfoil import parse_tinfoil
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.result import AttestationResult, Verdict

from tests.fakes.provider import NOW, Provider


def _not_authentic(result: AttestationResult) -> None:
    """Nothing of a simulated provider holds under the packaged roots, whatever was changed."""
    assert result.verdict in (Verdict.REFUSED, Verdict.UNREADABLE)
    assert "provider" not in result.claims


def dstack_report(data: bytes) -> None:
    try:
        reports = parse_dstack(data)
    except EvidenceMalformed:
        return
    for report in reports.values():
        _not_authentic(verify_dstack_report(report, b"{}", NvidiaEndorsements(), now_unix_s=NOW))


def tinfoil_document(data: bytes) -> None:
    try:
        document = parse_tinfoil(data)
    except EvidenceMalformed:
        return
    _not_authentic(verify_tinfoil(document, NvidiaEndorsements(), now_unix_s=NOW))


def intel_answers(data: bytes) -> None:
    try:
        answers = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        collateral_of(answers)
    except EvidenceMalformed:
        return


def seeds() -> dict[str, list[bytes]]:
    provider = Provider()
    small = provider.dstack(nvidia_payload=None)
    body = base64.b64encode(gzip.compress(b"quote")).decode()
    version_2 = {"format": "https://tinfoil.sh/predicate/tdx-guest/v2", "body": body}
    answers = provider.intel_pcs()["data"]["responses"]
    return {
        "dstack_report": [json.dumps(each).encode() for each in (small, {"all_attestations": [small]})],
        "tinfoil_document": [json.dumps(each).encode() for each in (provider.tinfoil(devices=[]), version_2)],
        "intel_answers": [json.dumps(answers).encode()],
    }


TARGETS: dict[str, Callable[[bytes], None]] = {
    "dstack_report": dstack_report,
    "tinfoil_document": tinfoil_document,
    "intel_answers": intel_answers,
}
