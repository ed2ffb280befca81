"""Export a result as EAR, the EAT Attestation Result (draft-ietf-rats-ear-03), unsigned.

Trustworthiness values are those of AR4SI (draft-ietf-rats-ar4si): 0 none, 2 affirming, 32 and up warning, 96 and up
contraindicated, 99 cryptographic validation failed. Simulated hardware is never affirmed.
"""

from collections.abc import Iterable
from typing import Any

from confide_attestation.checks.ids import SNP_CHAIN_CHECKS, SNP_REPORT_CHECKS, CheckId
from confide_attestation.result import AttestationResult, Outcome, Verdict

EAR_PROFILE = "tag:ietf.org,2026:rats/ear#03"
_CONFIGURATION = (
    CheckId.DEBUG,
    CheckId.MIGRATE_MA,
    CheckId.VMPL,
    CheckId.SMT,
    CheckId.CXL,
    CheckId.SINGLE_SOCKET,
    CheckId.MEM_AES_256_XTS,
    CheckId.RAPL_DISABLED,
    CheckId.CIPHERTEXT_HIDING,
    CheckId.PAGE_SWAP_DISABLED,
    CheckId.HOST_DATA,
)
_AUTHENTICITY = tuple(c for c in SNP_CHAIN_CHECKS + SNP_REPORT_CHECKS if c not in _CONFIGURATION)
_HARDWARE = (CheckId.PRODUCT_DENIED, CheckId.MIN_TCB, CheckId.MIN_ABI, CheckId.ALIAS_CHECK, CheckId.MIT_VECTOR)
_TIERS = ((96, "contraindicated"), (32, "warning"), (2, "affirming"), (0, "none"))


def export_ear(result: AttestationResult, build: str = "confide") -> dict[str, Any]:
    """Return the claims of an EAR with the submodule `cpu0`, ready for JSON."""
    policy_id = result.policy_id
    if policy_id is not None and result.policy_digest is not None:
        policy_id += f"#sha-256:{result.policy_digest.hex()}"
    vector = _vector(result)
    worst = max(vector.values())
    status = next(name for least, name in _TIERS if worst >= least)
    if result.verdict in (Verdict.REFUSED, Verdict.UNREADABLE):
        status = "contraindicated"
    elif result.verdict is Verdict.AUTHENTIC:
        status = "none"
    cpu0: dict[str, Any] = {
        "ear.status": status,
        "ear.trustworthiness-vector": vector,
        "confide.claims": dict(result.claims.get("cpu0", {})),
        "confide.checks": [[check.id, check.outcome.value, check.detail] for check in result.checks],
        "confide.simulated": result.simulated,
    }
    if policy_id is not None:
        cpu0["ear.appraisal-policy-id"] = policy_id
    ear: dict[str, Any] = {
        "eat_profile": EAR_PROFILE,
        "iat": result.judged_at_unix_s,
        "ear.verifier-id": {"developer": "The Confide authors", "build": build},
        "ear.status": status,
        "submods": {"cpu0": cpu0},
    }
    if result.keyset is not None:
        ear["exp"] = result.keyset.valid_until_unix_s
    return ear


def _vector(result: AttestationResult) -> dict[str, int]:
    """Map checks to AR4SI; what was not judged is 0, "no claim"."""
    outcomes = {check.id: check.outcome for check in result.checks}

    def judged(check_ids: Iterable[CheckId], failure: int) -> int:
        seen = {outcomes.get(check_id.value, Outcome.SKIP) for check_id in check_ids}
        return failure if Outcome.FAIL in seen else 2 if Outcome.PASS in seen else 0

    authentic = judged(_AUTHENTICITY, 99)
    if authentic == 99:
        return {"instance-identity": 99, "hardware": 99}
    return {
        "instance-identity": authentic,
        "hardware": 97 if result.simulated else max(authentic, judged(_HARDWARE, 96)),
        "configuration": judged(_CONFIGURATION, 96),
        "executables": judged((CheckId.MEASUREMENT,), 33),
        "runtime-opaque": authentic,
    }
