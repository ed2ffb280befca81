"""Judge a dstack provider's report: quote, event log and GPUs by their own verifiers, then what binds them.

The argument: (1) Intel's documents vouch for the quote, the quote's registers for the event log; (2) the quote's
report data hold the signing address and the nonce; (3) the GPUs answered the same nonce; (4) the app that the
report shows is the one whose hash the event log measured.
What this cannot show: that the GPUs are in this machine, which weights are loaded, a keyset of ours.
"""

import hashlib
import re
from dataclasses import replace

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.eventlog.ids import EVENT_LOG_CHECKS, EventLogCheck
from confide_attestation.eventlog.judge import verify_event_log
from confide_attestation.foreign.dstack_report import DstackReport
from confide_attestation.foreign.ids import DSTACK_REPORT_CHECKS, ForeignCheck
from confide_attestation.foreign.keccak import keccak256
from confide_attestation.foreign.outcome import Findings, conclude, judge_devices
from confide_attestation.nvidia.chain import NvidiaRoots
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.result import AttestationResult, Verdict
from confide_attestation.tdx.judge import verify_tdx

DSTACK_LIMITS = (
    "a keyset of Confide's: all that the hardware vouches for is the provider's own signing address",
    "that the GPUs are in this machine: they answered the same nonce, and may be anybody's",
    "which weights the app loads: its compose file names images, not weights",
)
MAX_IMAGES = 32
_MR_CONFIG_V1 = 1
# They hash key provider or a whole document beside the app; the event log's compose hash is judged in any case.
_MR_CONFIG_LATER = (2, 3)
_IMAGE = re.compile(r"[\w./:-]{1,200}@sha256:[0-9a-f]{64}", re.ASCII)


def verify_dstack_report(
    report: DstackReport,
    collateral_json: bytes,
    nvidia: NvidiaEndorsements,
    *,
    now_unix_s: int,
    nonce: bytes | None = None,
    tls_fingerprint: bytes | None = None,
    judge_gpus: bool = True,
    root_der: bytes | None = None,
    roots: NvidiaRoots | None = None,
) -> AttestationResult:
    """Judge one report; AUTHENTIC at best, never a keyset. A part that is missing is a failure.

    `nonce` is the caller's own 32 bytes: without it freshness is not judged. `tls_fingerprint` is the SHA-256 that
    the caller saw of the connection's key. `judge_gpus` False is for machines without GPUs.
    """
    found = Findings()
    cpu = _judge_cpu(report, collateral_json, now_unix_s, root_der)
    found.expect(ForeignCheck.REPORT_FORMAT, True, f"a dstack report, signing with {report.signing_algo}", "")
    found.expect(
        ForeignCheck.QUOTE_DIFFERS,
        report.quote_again in (None, report.quote),
        "there is one quote in it",
        "quote and intel_quote are two different quotes",
    )
    _check_nonce(found, report, nonce)
    _check_key(found, report)
    bound = cpu.claims.get("cpu0", {})
    report_data = bytes.fromhex(str(bound.get("report_data", "")))
    if report_data:
        _check_report_data(found, report, report_data, tls_fingerprint)
    asked = nonce or report.request_nonce or report_data[32:]
    parts = [cpu]
    if not judge_gpus:
        for check_id in (ForeignCheck.GPU_EVIDENCE, ForeignCheck.GPU_NONCE):
            found.leave(check_id, "GPUs were NOT judged: the caller says that the machine has none")
    elif report.nvidia_payload is None:
        found.fail(ForeignCheck.GPU_EVIDENCE, "the report has no nvidia_payload")
    elif asked:
        parts += _judge_gpus(found, report.nvidia_payload, nvidia, asked, now_unix_s, roots)
    _check_app(found, report, cpu)
    provider: dict[str, str | int | bool] = {}
    if found.passed((ForeignCheck.SIGNING_ADDRESS,)):
        provider["signing_algo"] = report.signing_algo
        provider["signing_address"] = report.signing_address.hex()
        if report.signing_key is not None and found.passed((ForeignCheck.SIGNING_KEY,)):
            provider["signing_public_key"] = report.signing_key.hex()
        if report.tls_fingerprint is not None and not found.failed((ForeignCheck.TLS_KEY,)):
            provider["tls_fingerprint"] = report.tls_fingerprint.hex()
    if report.app_compose is not None and found.passed((ForeignCheck.APP_COMPOSE,)):
        images = sorted(set(_IMAGE.findall(report.app_compose)))
        provider["images"] = " ".join(images[:MAX_IMAGES]) or "none is named by its digest"
    return conclude(found, DSTACK_REPORT_CHECKS, parts, provider, now_unix_s=now_unix_s)


def _judge_cpu(
    report: DstackReport, collateral_json: bytes, now_unix_s: int, root_der: bytes | None
) -> AttestationResult:
    if report.event_log is not None:
        return verify_event_log(
            report.event_log,
            report.quote,
            now_unix_s=now_unix_s,
            collateral_json=collateral_json,
            root_der=root_der,
        )
    quote = verify_tdx(report.quote, collateral_json, now_unix_s=now_unix_s, root_der=root_der)
    ledger = Ledger()
    ledger.fail(EventLogCheck.LOG_FORMAT, "the report has no event log")
    verdict = Verdict.UNREADABLE if quote.verdict is Verdict.UNREADABLE else Verdict.REFUSED
    return replace(quote, verdict=verdict, checks=quote.checks + ledger.close(EVENT_LOG_CHECKS))


def _judge_gpus(
    found: Findings,
    payload: bytes,
    nvidia: NvidiaEndorsements,
    asked: bytes,
    now_unix_s: int,
    roots: NvidiaRoots | None,
) -> list[AttestationResult]:
    try:
        devices = judge_devices(payload, nvidia, asked, now_unix_s=now_unix_s, roots=roots)
    except EvidenceMalformed as fault:
        found.fail(ForeignCheck.GPU_EVIDENCE, str(fault))
        return []
    count = len(devices.claims)
    found.expect(ForeignCheck.GPU_EVIDENCE, True, "NVIDIA's evidence is in it", "")
    answered = [group.get("eat_nonce") == asked.hex() for group in devices.claims.values()]
    found.expect(
        ForeignCheck.GPU_NONCE,
        bool(answered) and all(answered),
        f"{count} devices answered the nonce of the CPU's report",
        "a device did not answer the nonce of the CPU's report, or its report does not hold",
    )
    return [devices]


def _check_nonce(found: Findings, report: DstackReport, nonce: bytes | None) -> None:
    if nonce is None:
        found.leave(ForeignCheck.REQUEST_NONCE, "no nonce was given: freshness was NOT judged")
        return
    found.expect(
        ForeignCheck.REQUEST_NONCE,
        report.request_nonce == nonce,
        "the report answers the nonce that was asked",
        "the report answers another nonce than the one that was asked: it may be old, or another's",
    )


def _check_key(found: Findings, report: DstackReport) -> None:
    key = report.signing_key
    if key is None:
        found.leave(ForeignCheck.SIGNING_KEY, "the report names no public key: compare signatures by the address")
        return
    if report.signing_algo == "ecdsa":
        point = key[1:] if len(key) == 65 and key[0] == 4 else key
        holds = len(point) == 64 and keccak256(point)[-20:] == report.signing_address
    else:
        holds = key == report.signing_address
    found.expect(
        ForeignCheck.SIGNING_KEY,
        holds,
        "the public key is that of the signing address",
        "the public key is NOT that of the signing address: whoever seals to it seals to somebody else",
    )


def _check_report_data(
    found: Findings, report: DstackReport, report_data: bytes, tls_fingerprint: bytes | None
) -> None:
    """Judge what the quote is bound to: identity in the first half of its report data, nonce in the second."""
    address, stated = report.signing_address, report.tls_fingerprint
    alone = report_data[:32] == address.ljust(32, b"\0")
    with_tls = stated is not None and report_data[:32] == hashlib.sha256(address + stated).digest()
    found.expect(
        ForeignCheck.SIGNING_ADDRESS,
        alone or with_tls,
        "the signing address stands in the report data" + (", hashed with the TLS key" if with_tls else ""),
        "the report data hold another signing address than the report",
    )
    found.expect(
        ForeignCheck.NONCE_BOUND,
        report_data[32:] == report.request_nonce,
        "the nonce of the report stands in the report data",
        "the report names no request_nonce"
        if report.request_nonce is None
        else "the report data hold another nonce than the report",
    )
    if stated is not None and not with_tls:
        found.fail(ForeignCheck.TLS_KEY, "the report names a TLS key that its report data do not hold")
    elif tls_fingerprint is not None:
        found.expect(
            ForeignCheck.TLS_KEY,
            with_tls and stated == tls_fingerprint,
            "the TLS key is the one that was seen",
            "the report binds no TLS key"
            if stated is None
            else "the TLS key is another than the one that was seen",
        )
    else:
        none = "it binds no TLS key" if stated is None else "its TLS key was not compared with a connection's"
        found.leave(ForeignCheck.TLS_KEY, none)


def _check_app(found: Findings, report: DstackReport, cpu: AttestationResult) -> None:
    """Judge the app by the event log's compose hash, which is there only if the log replays."""
    measured = cpu.claims.get("dstack", {}).get("compose_hash")
    if report.app_compose is None:
        found.fail(ForeignCheck.APP_COMPOSE, "the report has no app_compose in info.tcb_info")
        return
    digest = hashlib.sha256(report.app_compose.encode()).digest()
    if measured is not None:
        found.expect(
            ForeignCheck.APP_COMPOSE,
            digest.hex() == measured and all(each == digest for each in report.compose_hashes),
            f"its SHA-256 {digest.hex()[:16]}… is the compose hash that was measured",
            f"its SHA-256 is {digest.hex()[:16]}…; measured was {str(measured)[:16]}…, stated "
            + (", ".join(each.hex()[:16] + "…" for each in report.compose_hashes) or "nothing"),
        )
    mr_config = bytes.fromhex(str(cpu.claims.get("cpu0", {}).get("mr_config_id", "")))
    if mr_config and not any(mr_config):
        found.leave(ForeignCheck.MR_CONFIG, "MRCONFIGID is zero: this dstack does not set it")
    elif mr_config and mr_config[0] in _MR_CONFIG_LATER:
        why = "hashes more than the app: NOT recomputed"
        found.leave(ForeignCheck.MR_CONFIG, f"MRCONFIGID of version {mr_config[0]} {why}")
    elif mr_config:
        found.expect(
            ForeignCheck.MR_CONFIG,
            mr_config == (bytes([_MR_CONFIG_V1]) + digest).ljust(48, b"\0"),
            "MRCONFIGID holds the hash of the app",
            "MRCONFIGID holds something else than the hash of the app",
        )
