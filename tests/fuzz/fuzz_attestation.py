"""Fuzz the readers of evidence, endorsements and policies, and the whole appraisal past its parsers."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from confide_attestation.appraise import appraise
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import (
    Endorsements,
    EvidenceBundle,
    SnpEndorsements,
    encode_bundle,
    parse_bundle,
)
from confide_attestation.pem import pem_or_der
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.result import Verdict
from confide_attestation.snp.abi import parse_report
from confide_attestation.snp.judge import verify_snp
from confide_protocol.errors import PolicyError

from tests.fakes.scene import NONCE, NOW, Scene

PARTS = ("keyset", "manifest", "statement", "report", "vek", "ask", "ark", "crl")


@cache
def genuine() -> tuple[EvidenceBundle, Endorsements, AppraisalPolicy]:
    return Scene().build()


def report(data: bytes) -> None:
    try:
        assert parse_report(data).raw == data
    except EvidenceMalformed:
        return


def bundle(data: bytes) -> None:
    try:
        evidence, endorsements = parse_bundle(data)
    except EvidenceMalformed:
        return
    assert encode_bundle(evidence, endorsements) == data


def policy(data: bytes) -> None:
    try:
        load_policy(data, "policy.toml")
    except PolicyError:
        return


def pem(data: bytes) -> None:
    try:
        pem_or_der(data, "CERTIFICATE")
    except EvidenceMalformed:
        return


def snp(data: bytes) -> None:
    """The input is one of report, VEK, ASK, ARK and list; the others are genuine. Nothing raises or passes."""
    if not data:
        return
    evidence, endorsements, _ = genuine()
    assert endorsements.snp is not None
    kind, body = PARTS[3 + data[0] % 5], data[1:]
    given = endorsements.snp if kind == "report" else replace(endorsements.snp, **{kind: body})
    judged = verify_snp(body if kind == "report" else evidence.cpu.report, given, now_unix_s=NOW)
    assert judged.verdict in (Verdict.REFUSED, Verdict.UNREADABLE)


def appraisal(data: bytes) -> None:
    """The input replaces one part of genuine evidence. Nothing raises, nothing but the genuine part is accepted."""
    if not data:
        return
    kind, body = PARTS[data[0] % len(PARTS)], data[1:]
    evidence, endorsements, accepted_by = genuine()
    snp_endorsements: SnpEndorsements | None = endorsements.snp
    assert snp_endorsements is not None
    if kind == "report":
        evidence = replace(evidence, cpu=replace(evidence.cpu, report=body))
    elif kind in ("keyset", "manifest", "statement"):
        evidence = replace(evidence, **{kind: body})
    else:
        endorsements = Endorsements(snp=replace(snp_endorsements, **{kind: body}))
    result = appraise(
        evidence, endorsements, accepted_by, now_unix_s=NOW, floor=1, nonce=NONCE, allow_simulated=True
    )
    if result.verdict is Verdict.ACCEPTED:
        assert (evidence, endorsements) == genuine()[:2]


def seeds() -> dict[str, list[bytes]]:
    evidence, endorsements, _ = genuine()
    given = endorsements.snp
    assert given is not None
    certificates = [part or b"" for part in (given.vek, given.ask, given.ark, given.crl)]
    parts = [evidence.keyset, evidence.manifest, evidence.statement, evidence.cpu.report, *certificates]
    return {
        "snp_report": [evidence.cpu.report],
        "evidence_bundle": [encode_bundle(evidence, endorsements)],
        "snp_endorsements": [bytes([kind]) + part for kind, part in enumerate(parts[3:])],
        "appraisal": [bytes([kind]) + part for kind, part in enumerate(parts)],
    }


TARGETS: dict[str, Callable[[bytes], None]] = {
    "snp_report": report,
    "evidence_bundle": bundle,
    "policy": policy,
    "pem": pem,
    "snp_endorsements": snp,
    "appraisal": appraisal,
}
