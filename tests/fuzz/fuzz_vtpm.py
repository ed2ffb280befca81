"""Fuzz the readers of an Azure machine's evidence, and the whole judgement past its parsers."""

from collections.abc import Callable
from dataclasses import replace

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import Endorsements
from confide_attestation.result import Verdict
from confide_attestation.simulated.azure import SimulatedAzure, encode, make_ak
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.vtpm.azure import verify_azure
from confide_attestation.vtpm.hcl import parse_hcl, parse_runtime
from confide_attestation.vtpm.judge import judge_azure
from confide_attestation.vtpm.tpm import parse_attest, parse_pcrs

NOW = 1_790_000_000
NONCE = b"nonce"
AZURE = SimulatedAzure(SimulatedIntel.make(NOW), make_ak())
(HCL, PLATFORM), VTPM = AZURE.machine(), AZURE.quote(NONCE)


def hcl(data: bytes) -> None:
    try:
        report = parse_hcl(data)
    except EvidenceMalformed:
        return
    assert report.hardware in data
    assert report.runtime in data


def runtime(data: bytes) -> None:
    try:
        parse_runtime(data)
    except EvidenceMalformed:
        return


def attest(data: bytes) -> None:
    try:
        assert parse_attest(data).raw == data
    except EvidenceMalformed:
        return


def pcrs(data: bytes) -> None:
    try:
        assert len(parse_pcrs(data)) == 24
    except EvidenceMalformed:
        return


def judged(data: bytes) -> None:
    """The input is one of HCL report, quote, signature and PCRs; the others are genuine. Nothing raises or lies."""
    if not data:
        return
    kind, body = data[0] % 4, data[1:]
    given = VTPM if kind == 0 else replace(VTPM, **{("quote", "signature", "pcrs")[kind - 1]: body})
    report = body if kind == 0 else HCL
    result = verify_azure(report, given, PLATFORM, now_unix_s=NOW, nonce=NONCE)
    bound = judge_azure(report, given, Endorsements(), None, None, now_unix_s=NOW, nonce=NONCE)
    assert (bound.holds, bound.bound) == (False, None)
    if result.verdict is Verdict.AUTHENTIC:
        assert kind not in (1, 2) or given == VTPM
        assert list(result.claims["pcrs"].values()) == [value.hex() for value in AZURE.pcrs]


def seeds() -> dict[str, list[bytes]]:
    parts = (HCL, VTPM.quote, VTPM.signature, VTPM.pcrs)
    return {
        "hcl_report": [HCL],
        "hcl_runtime": [encode(AZURE.runtime())],
        "tpm_quote": [VTPM.quote],
        "tpm_pcrs": [VTPM.pcrs],
        "azure_judged": [bytes([kind]) + part for kind, part in enumerate(parts)],
    }


TARGETS: dict[str, Callable[[bytes], None]] = {
    "hcl_report": hcl,
    "hcl_runtime": runtime,
    "tpm_quote": attest,
    "tpm_pcrs": pcrs,
    "azure_judged": judged,
}
