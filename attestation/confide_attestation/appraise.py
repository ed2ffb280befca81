"""The decision: evidence in, every check with its reason out. Client, gateway, CLI and tests all call this.

The argument, in the order of the result and of SPEC:
  (1) the policy itself: not expired, not rolled back, and simulated hardware only where the caller allows it too;
  (2) the CPU's evidence, judged by the room of its vendor: signatures up to a pinned root, then claims that
      together cover firmware, kernel, command line, root file system and settings, with event log or vTPM where
      the profile measures by them;
  (3) from what the CPU signed to the keyset: statement, freshness, keyset, manifest, GPU evidence, event logs;
  (4) each GPU and switch, asked with a nonce made of the statement's own and the keyset.
A result is accepted iff every check passed or is waived by the policy. Deciding anywhere else is how two
verifiers drift apart while each keeps passing its own tests.
"""

import hashlib
from collections.abc import Mapping

from confide_protocol import cbor, labels
from confide_protocol.keyset import Keyset
from confide_protocol.statement import ReportDataStatement, gpu_nonce

from confide_attestation.checks.binding import Binding, check_binding
from confide_attestation.checks.ids import BINDING_CHECKS, POLICY_CHECKS, CheckId
from confide_attestation.checks.ledger import Ledger
from confide_attestation.checks.policy import check_policy
from confide_attestation.evidence import Endorsements, EvidenceBundle
from confide_attestation.nvidia.judge_set import judge_gpus
from confide_attestation.part import Claims, Part
from confide_attestation.platforms import judge_platform
from confide_attestation.policy import AppraisalPolicy
from confide_attestation.result import AttestationResult, AttestedKeyset, Check, Verdict


def appraise(
    evidence: EvidenceBundle,
    endorsements: Endorsements,
    policy: AppraisalPolicy,
    *,
    now_unix_s: int,
    floor: int,
    nonce: bytes | None,
    epochs: Mapping[bytes, int] | None = None,
    allow_simulated: bool = False,
) -> AttestationResult:
    """Judge an enclave's evidence; never raises for bad evidence, whatever its bytes.

    `floor` is the least policy serial that the caller still accepts; `nonce` is the caller's own 32 bytes (None
    only where the policy does not demand one); `epochs` are the public values that the caller knows, each with the
    time at which it was published; `allow_simulated` is the second of the two switches for simulated hardware.
    Only an accepted result carries an `AttestedKeyset`.
    """
    ledger = Ledger()
    check_policy(ledger, policy, now_unix_s=now_unix_s, floor=floor, allow_simulated=allow_simulated)
    parts = judge_platform(evidence, endorsements, policy, now_unix_s=now_unix_s)
    binding = check_binding(
        ledger, evidence, parts[0].bound, policy, now_unix_s=now_unix_s, nonce=nonce, epochs=epochs or {}
    )
    gpus = _judge_gpus(evidence, endorsements, policy, binding.statement, now_unix_s)

    checks = ledger.close(POLICY_CHECKS)
    for part in parts:
        checks += part.checks
    checks += ledger.close(BINDING_CHECKS) + gpus.checks
    accepted = ledger.holds((*POLICY_CHECKS, *BINDING_CHECKS)) and all(part.holds for part in (*parts, gpus))
    claims: dict[str, Claims] = {}
    for part in (*parts, gpus):
        claims |= part.claims
    if ledger.passed((CheckId.REPORT_DATA, CheckId.KEYSET_DIGEST)) and binding.keyset is not None:
        claims["keyset"] = _keyset_claims(binding.keyset)
    ends = (binding.not_after_unix_s, *(part.not_after_unix_s for part in (*parts, gpus)))
    limits = [end for end in ends if end is not None]
    return AttestationResult(
        verdict=Verdict.ACCEPTED if accepted else Verdict.REFUSED,
        checks=checks,
        claims=claims,
        simulated=policy.kind == "simulated",
        policy_id=policy.id,
        policy_digest=policy.digest,
        judged_at_unix_s=now_unix_s,
        keyset=_attested(binding, policy, limits, checks, now_unix_s) if accepted else None,
    )


def _judge_gpus(
    evidence: EvidenceBundle,
    endorsements: Endorsements,
    policy: AppraisalPolicy,
    statement: ReportDataStatement | None,
    now_unix_s: int,
) -> Part:
    if policy.gpu == "none":
        return Part((), holds=True)
    nonce = None if statement is None else gpu_nonce(statement.freshness, statement.keyset_digest)
    return judge_gpus(
        evidence.gpus, endorsements.nvidia, policy.gpu, policy.roots, now_unix_s=now_unix_s, nonce=nonce
    )


def _keyset_claims(keyset: Keyset) -> Claims:
    return ({} if keyset.ehbp_key is None else {"ehbp_key": keyset.ehbp_key.hex()}) | {
        "digest": keyset.digest.hex(),
        "manifest_digest": keyset.manifest_digest.hex(),
        "not_before": keyset.not_before_unix_s,
        "not_after": keyset.not_after_unix_s,
        "simulated": keyset.simulated,
    }


def _attested(
    binding: Binding, policy: AppraisalPolicy, limits: list[int], checks: tuple[Check, ...], now_unix_s: int
) -> AttestedKeyset:
    """Make the one thing that can be sealed to; call only when every check holds."""
    keyset, manifest, statement = binding.keyset, binding.manifest, binding.statement
    assert keyset is not None and manifest is not None and statement is not None  # noqa: S101, PT018 - their checks hold
    result = {
        "purpose": labels.PURPOSE_RESULT,
        "policy": policy.digest,
        "statement": statement.digest,
        "judged_at": now_unix_s,
        "checks": [[check.id, check.outcome.value, check.detail] for check in checks],
    }
    return AttestedKeyset(
        keyset=keyset,
        manifest=manifest,
        statement_digest=statement.digest,
        policy_digest=policy.digest,
        result_digest=hashlib.sha256(cbor.encode(result)).digest(),
        valid_until_unix_s=min(
            keyset.not_after_unix_s, statement.not_after_unix_s, policy.not_after_unix_s, *limits
        ),
    )
