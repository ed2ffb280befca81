"""The decision: evidence in, every check with its reason out. Client, gateway, CLI and tests all call this.

The argument, in the order of `checks.ids` and of SPEC:
  (1) the policy itself: not expired, not rolled back, and simulated hardware only where the caller allows it too;
  (2) AMD's chain from a pinned ARK to the chip's (or cloud's) key, and its revocation list;
  (3) the report: form, agreement with the certificate, signature, neither debugging nor migration;
  (4) the report's claims against the policy: product, firmware, image, guest policy;
  (5) from the report's data to the keyset: statement, freshness, keyset, manifest, GPUs.
A result is accepted iff every check passed or is waived by the policy. Deciding anywhere else is how two
verifiers drift apart while each keeps passing its own tests.
"""

import hashlib
from dataclasses import dataclass

from confide_protocol import cbor, labels
from confide_protocol.keyset import Keyset

from confide_attestation.checks.binding import Binding, check_binding
from confide_attestation.checks.ids import (
    BINDING_CHECKS,
    POLICY_CHECKS,
    REVOCATION_CHECKS,
    SNP_CHAIN_CHECKS,
    SNP_FILES,
    SNP_POLICY_CHECKS,
    SNP_REPORT_CHECKS,
    SNP_SIGNATURES,
    CheckId,
)
from confide_attestation.checks.ledger import Ledger
from confide_attestation.evidence import CpuKind, Endorsements, EvidenceBundle, SnpEndorsements
from confide_attestation.policy import AppraisalPolicy, SimulatedPolicy
from confide_attestation.result import AttestationResult, AttestedKeyset, Check, Verdict
from confide_attestation.snp.abi import SnpReport
from confide_attestation.snp.chain import amd_roots, simulated_roots, verify_chain
from confide_attestation.snp.claims import Claims, report_claims
from confide_attestation.snp.validate import check_crl, check_report
from confide_attestation.snp.verify import product_of, verify_report

_SNP_CHECKS = SNP_CHAIN_CHECKS + SNP_REPORT_CHECKS + SNP_POLICY_CHECKS


def appraise(
    evidence: EvidenceBundle,
    endorsements: Endorsements,
    policy: AppraisalPolicy,
    *,
    now_unix_s: int,
    floor: int,
    nonce: bytes | None,
    allow_simulated: bool = False,
) -> AttestationResult:
    """Judge an enclave's evidence; never raises for bad evidence, whatever its bytes.

    `floor` is the least policy serial that the caller still accepts; `nonce` is the caller's own 32 bytes (None
    only where the policy waives freshness); `allow_simulated` is the second of the two switches for simulated
    hardware.
    Only an accepted result carries an `AttestedKeyset`.
    """
    ledger = Ledger()
    _check_policy(ledger, policy, now_unix_s, floor, allow_simulated)
    ledger.expect(
        CheckId.CPU_KIND,
        evidence.cpu.kind is CpuKind.SEV_SNP,
        "an SEV-SNP report, as the profile demands",
        "not an SEV-SNP report, which the profile demands",
    )
    snp = _Snp()
    if evidence.cpu.kind is CpuKind.SEV_SNP:
        snp = _judge_snp(ledger, evidence.cpu.report, endorsements.snp, policy, now_unix_s)
    report_data = snp.report.report_data if snp.report is not None else None
    binding = check_binding(ledger, evidence, report_data, policy, now_unix_s=now_unix_s, nonce=nonce)

    scope = (*POLICY_CHECKS, CheckId.CPU_KIND, *_SNP_CHECKS, *BINDING_CHECKS)
    accepted = ledger.holds(scope)
    checks = ledger.close(scope)
    claims: dict[str, Claims] = {}
    if snp.claims is not None:
        claims["cpu0"] = snp.claims
        if ledger.passed((CheckId.REPORT_DATA, CheckId.KEYSET_DIGEST)) and binding.keyset is not None:
            claims["keyset"] = _keyset_claims(binding.keyset)
    verdict = Verdict.ACCEPTED if accepted else Verdict.REFUSED
    return AttestationResult(
        verdict=verdict,
        checks=checks,
        claims=claims,
        simulated=policy.kind == "simulated",
        policy_id=policy.id,
        policy_digest=policy.digest,
        judged_at_unix_s=now_unix_s,
        keyset=_attested(binding, policy, snp.not_after_unix_s, checks, now_unix_s) if accepted else None,
    )


def verify_snp(
    report: bytes,
    endorsements: SnpEndorsements,
    *,
    now_unix_s: int,
    policy: AppraisalPolicy | None = None,
    allow_simulated: bool = False,
) -> AttestationResult:
    """Judge one SEV-SNP report by itself: authenticity, and with a policy its claims. Never yields a keyset.

    Without a policy AMD's packaged roots count and the verdict is AUTHENTIC at best. UNREADABLE means that an input
    is not a file of its kind. Does not check: report data, freshness, or anything of a keyset.
    """
    ledger = Ledger()
    if policy is not None:
        _check_policy(ledger, policy, now_unix_s, policy.serial, allow_simulated)
    snp = _judge_snp(ledger, report, endorsements, policy, now_unix_s)
    if policy is not None:
        scope = POLICY_CHECKS + _SNP_CHECKS
        verdict = Verdict.ACCEPTED if ledger.holds(scope) else Verdict.REFUSED
    else:
        scope = _SNP_CHECKS
        needed = [
            c
            for c in SNP_CHAIN_CHECKS + SNP_REPORT_CHECKS
            if endorsements.crl is not None or c not in REVOCATION_CHECKS
        ]
        verdict = Verdict.AUTHENTIC if ledger.holds(needed) else Verdict.REFUSED
    if ledger.failed(SNP_FILES):
        verdict = Verdict.UNREADABLE
    return AttestationResult(
        verdict=verdict,
        checks=ledger.close(scope),
        claims={} if snp.claims is None else {"cpu0": snp.claims},
        simulated=policy is not None and policy.kind == "simulated",
        policy_id=None if policy is None else policy.id,
        policy_digest=None if policy is None else policy.digest,
        judged_at_unix_s=now_unix_s,
    )


@dataclass(frozen=True)
class _Snp:
    """What a CPU's report says; nothing unless its signatures hold."""

    report: SnpReport | None = None
    claims: Claims | None = None
    not_after_unix_s: int = 0


def _check_policy(
    ledger: Ledger, policy: AppraisalPolicy, now_unix_s: int, floor: int, allow_simulated: bool
) -> None:
    ends, serial = f"{policy.not_after:%Y-%m-%d}", f"serial {policy.serial}"
    in_time, allowed = now_unix_s < policy.not_after_unix_s, policy.kind == "hardware" or allow_simulated
    demand = (
        "real hardware is demanded"
        if policy.kind == "hardware"
        else "SIMULATED hardware is allowed by policy and caller"
    )
    forbidden = "the policy is of kind simulated, and the caller did not allow simulated hardware"
    for check_id, holds, passed, failed in (
        (CheckId.POLICY_EXPIRED, in_time, f"{policy.id} is good until {ends}", f"{policy.id} expired on {ends}"),
        (
            CheckId.POLICY_SERIAL,
            policy.serial >= floor,
            f"{serial}, at least {floor}",
            f"{serial} is below {floor}",
        ),
        (CheckId.SIMULATED, allowed, demand, forbidden),
    ):
        ledger.expect(check_id, holds, passed, failed)


def _judge_snp(
    ledger: Ledger,
    data: bytes,
    endorsements: SnpEndorsements | None,
    policy: AppraisalPolicy | None,
    now_unix_s: int,
) -> _Snp:
    roots = (
        simulated_roots(bytes.fromhex(policy.simulated.ark_sha256))
        if isinstance(policy, SimulatedPolicy)
        else amd_roots()
    )
    chain = None
    if endorsements is None:
        ledger.fail(CheckId.VEK_FORMAT, "no VCEK or VLEK was given")
    else:
        chain = verify_chain(ledger, endorsements, roots, now_unix_s)
    report = verify_report(ledger, data, chain)
    crl_given = endorsements is not None and endorsements.crl is not None
    if policy is None:
        for check_id in SNP_POLICY_CHECKS:
            ledger.skip(check_id, "no policy was given: NOT appraised")
        for check_id in () if crl_given else REVOCATION_CHECKS:
            ledger.skip(check_id, "no revocation list was given")
    elif chain is not None and (chain.crl is not None or not crl_given):
        check_crl(ledger, chain.crl, policy.snp, now_unix_s)
    # Nothing that an unsigned report says is measured against a policy, or shown.
    if chain is None or chain.vek is None or report is None or not ledger.passed(SNP_SIGNATURES):
        return _Snp()
    product = product_of(report, chain.vek)
    if product is None:
        return _Snp()
    signer = chain.vek.signer
    if policy is not None:
        check_report(ledger, report, product, signer, policy.snp)
    return _Snp(report, report_claims(report, product, signer), chain.not_after_unix_s)


def _keyset_claims(keyset: Keyset) -> Claims:
    return {
        "digest": keyset.digest.hex(),
        "manifest_digest": keyset.manifest_digest.hex(),
        "not_before": keyset.not_before_unix_s,
        "not_after": keyset.not_after_unix_s,
        "simulated": keyset.simulated,
    }


def _attested(
    binding: Binding,
    policy: AppraisalPolicy,
    endorsed_until_unix_s: int,
    checks: tuple[Check, ...],
    now_unix_s: int,
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
            keyset.not_after_unix_s, statement.not_after_unix_s, endorsed_until_unix_s, policy.not_after_unix_s
        ),
    )
