"""Export a result as EAR, the EAT Attestation Result (draft-ietf-rats-ear-03), unsigned.

Trustworthiness values are those of AR4SI (draft-ietf-rats-ar4si): 0 none, 2 affirming, 32 and up warning, 96 and up
contraindicated, 99 cryptographic validation failed. Simulated hardware is never affirmed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confide_attestation.eventlog.ids import EventLogCheck
from confide_attestation.nvidia.ids import NrasCheck, NvidiaCheck
from confide_attestation.order import span
from confide_attestation.result import AttestationResult, Check, Outcome, Verdict
from confide_attestation.sections import Topic, sections
from confide_attestation.snp.ids import SNP_CHAIN_CHECKS, SNP_REPORT_CHECKS, SnpCheck
from confide_attestation.tdx.claims import TCB_STATUSES
from confide_attestation.tdx.explain import UP_TO_DATE
from confide_attestation.tdx.ids import TdxCheck
from confide_attestation.vtpm.ids import MACHINE_CHECKS, VtpmCheck

EAR_PROFILE = "tag:ietf.org,2026:rats/ear#03"
Ids = tuple[str, ...]


@dataclass(frozen=True)
class _Vector:
    """Which checks of one submodule bear on which claim of AR4SI."""

    authentic: Ids
    hardware: Ids = ()
    configuration: Ids = ()
    executables: Ids = ()


_SNP_CONFIGURATION: Ids = (
    SnpCheck.DEBUG,
    SnpCheck.MIGRATE_MA,
    SnpCheck.VMPL,
    SnpCheck.SMT,
    SnpCheck.CXL,
    SnpCheck.SINGLE_SOCKET,
    SnpCheck.MEM_AES_256_XTS,
    SnpCheck.RAPL_DISABLED,
    SnpCheck.CIPHERTEXT_HIDING,
    SnpCheck.PAGE_SWAP_DISABLED,
    SnpCheck.HOST_DATA,
)
_CPU = _Vector(
    authentic=(
        *(c for c in SNP_CHAIN_CHECKS + SNP_REPORT_CHECKS if c not in _SNP_CONFIGURATION),
        *span(TdxCheck.QUOTE_SIZE, TdxCheck.QE_ISVSVN),
        TdxCheck.DCAP_QVL,
    ),
    hardware=(
        *(SnpCheck.PRODUCT_DENIED, SnpCheck.MIN_TCB, SnpCheck.MIN_ABI, SnpCheck.ALIAS_CHECK, SnpCheck.MIT_VECTOR),
        *span(TdxCheck.FMSPC_MISMATCH, TdxCheck.TD_RELAUNCH_ADVISED),
        *span(TdxCheck.EVAL_NUMBER_TOO_LOW, TdxCheck.MR_SEAM),
    ),
    configuration=(
        *_SNP_CONFIGURATION,
        *span(TdxCheck.TD_DEBUG, TdxCheck.MR_SEAM_ZERO),
        *span(TdxCheck.MR_CONFIG_ID, TdxCheck.TD_LASS),
    ),
    executables=(SnpCheck.MEASUREMENT, TdxCheck.MR_TD_ZERO, *span(TdxCheck.MR_TD, TdxCheck.RTMR3)),
)
_VECTORS: Mapping[str, _Vector] = {
    "cpu0": _CPU,
    "vtpm": _Vector(
        authentic=span(VtpmCheck.HCL_SIZE, VtpmCheck.TPM_NONCE),
        configuration=tuple(c for c in MACHINE_CHECKS if c not in (VtpmCheck.PCR_MISSING, VtpmCheck.PCR_VALUES)),
        executables=(VtpmCheck.PCR_MISSING, VtpmCheck.PCR_VALUES),
    ),
    "event_log": _Vector(
        authentic=span(EventLogCheck.LOG_FORMAT, EventLogCheck.RTMR3_REPLAY),
        executables=span(EventLogCheck.EVENT_DIGEST, tuple(EventLogCheck)[-1]),
    ),
    "nvidia": _Vector(
        authentic=span(NvidiaCheck.CHAIN_FORMAT, NvidiaCheck.REPORT_FIELDS),
        hardware=(NvidiaCheck.ARCH_DENIED, NvidiaCheck.UEID, NvidiaCheck.OCSP_AGE),
        configuration=(
            NvidiaCheck.NVDEC0,
            *span(NvidiaCheck.DUPLICATE_DEVICE, NvidiaCheck.SWITCH_COUNT),
            NvidiaCheck.MODE_DENIED,
        ),
        executables=(
            *span(NvidiaCheck.RIM_FORMAT, NvidiaCheck.INDEX_CONFLICT),
            NvidiaCheck.MEASUREMENTS,
            NvidiaCheck.MIN_DRIVER,
            NvidiaCheck.FIRMWARE,
        ),
    ),
    "nras": _Vector(authentic=tuple(NrasCheck)),
}
# Topics that are not the attester's own evidence stand at the top of an EAR.
_SUBMODULES = {
    Topic.SNP: "cpu0",
    Topic.TDX: "cpu0",
    Topic.VTPM: "vtpm",
    Topic.EVENT_LOG: "event_log",
    Topic.NVIDIA: "nvidia",
    Topic.NRAS: "nras",
}
_TIERS = ((96, "contraindicated"), (32, "warning"), (2, "affirming"), (0, "none"))


def export_ear(result: AttestationResult, build: str = "confide") -> dict[str, Any]:
    """Return the claims of an EAR with one submodule a kind of evidence, ready for JSON."""
    policy_id = result.policy_id
    if policy_id is not None and result.policy_digest is not None:
        policy_id += f"#sha-256:{result.policy_digest.hex()}"
    of_submodule: dict[str, list[Check]] = {}
    rest: list[Check] = []
    for section in sections(result.checks):
        name = _SUBMODULES.get(section.topic)
        (rest if name is None else of_submodule.setdefault(name, [])).extend(section.checks)
    if not of_submodule:
        of_submodule["evidence"], rest = rest, []
    graced = _is_graced(result)
    vectors = {name: _vector(name, checks, result.simulated, graced) for name, checks in of_submodule.items()}
    status = _status(result.verdict, max(value for vector in vectors.values() for value in vector.values()))
    ear: dict[str, Any] = {
        "eat_profile": EAR_PROFILE,
        "iat": result.judged_at_unix_s,
        "ear.verifier-id": {"developer": "The Confide authors", "build": build},
        "ear.status": status,
        "confide.claims": {
            group: dict(claims) for group, claims in result.claims.items() if group not in of_submodule
        },
        "confide.checks": _rows(rest),
        "submods": {
            name: {
                "ear.status": _status(result.verdict, max(vectors[name].values())),
                "ear.trustworthiness-vector": vectors[name],
                "confide.claims": dict(result.claims.get(name, {})),
                "confide.checks": _rows(checks),
                "confide.simulated": result.simulated,
            }
            | ({} if policy_id is None else {"ear.appraisal-policy-id": policy_id})
            for name, checks in of_submodule.items()
        },
    }
    if result.keyset is not None:
        ear["exp"] = result.keyset.valid_until_unix_s
    return ear


def _status(verdict: Verdict, worst: int) -> str:
    if verdict in (Verdict.REFUSED, Verdict.UNREADABLE):
        return "contraindicated"
    if verdict is Verdict.AUTHENTIC:
        return "none"
    return next(name for least, name in _TIERS if worst >= least)


def _rows(checks: Iterable[Check]) -> list[list[str]]:
    return [[check.id, check.outcome.value, check.detail] for check in checks]


def _is_graced(result: AttestationResult) -> bool:
    """Say whether a policy's grace made good for what Intel says of the platform or its quoting enclave."""
    claims = result.claims.get("cpu0", {})
    return any(claims.get(name, UP_TO_DATE) != UP_TO_DATE for name in TCB_STATUSES)


def _vector(name: str, checks: Iterable[Check], simulated: bool, graced: bool) -> dict[str, int]:
    """Map checks to AR4SI; what was not judged is 0, "no claim"."""
    outcomes = {check.id: check.outcome for check in checks}

    def judged(check_ids: Ids, failure: int) -> int:
        seen = {outcomes.get(check_id, Outcome.SKIP) for check_id in check_ids}
        return failure if Outcome.FAIL in seen else 2 if Outcome.PASS in seen else 0

    table = _VECTORS.get(name, _Vector(authentic=()))
    open_faults = 32 if graced and table is _CPU else 0
    authentic = judged(table.authentic, 99)
    if authentic == 99:
        return {"instance-identity": 99, "hardware": 99}
    return {
        "instance-identity": authentic,
        "hardware": 97 if simulated else max(authentic, judged(table.hardware, 96), open_faults),
        "configuration": judged(table.configuration, 96),
        "executables": judged(table.executables, 33),
        "runtime-opaque": authentic,
    }
