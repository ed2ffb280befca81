"""Judge one SEV-SNP report: AMD's chain, the report, and its claims against a policy.

The argument: (1) the chain from a pinned ARK to the chip's (or cloud's) key, and its revocation list; (2) the
report: form, agreement with the certificate, signature, neither debugging nor migration; (3) its claims against the
policy: product, firmware, image, guest policy.
"""

from confide_attestation.alone import judge_alone
from confide_attestation.checks.ledger import Ledger
from confide_attestation.evidence import SnpEndorsements
from confide_attestation.part import Part
from confide_attestation.policy import AppraisalPolicy, SimulatedRoots
from confide_attestation.result import AttestationResult
from confide_attestation.snp.chain import SnpRoots, amd_roots, simulated_roots, verify_chain
from confide_attestation.snp.claims import report_claims
from confide_attestation.snp.ids import (
    REVOCATION_CHECKS,
    SNP_CHAIN_CHECKS,
    SNP_CHECKS,
    SNP_FILES,
    SNP_POLICY_CHECKS,
    SNP_REPORT_CHECKS,
    SNP_SIGNATURES,
    SnpCheck,
)
from confide_attestation.snp.policy import SnpPolicy
from confide_attestation.snp.validate import check_crl, check_report, policy_ends_unix_s
from confide_attestation.snp.verify import product_of, verify_report


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
    is not a file of its kind. Raises: PolicyError if the policy's profile knows no SEV-SNP.
    Does not check: report data, freshness, or anything of a keyset.
    """
    demands, roots = (None, None) if policy is None else (policy.snp, policy.roots)
    part = judge_snp(report, endorsements, demands, roots, now_unix_s=now_unix_s)
    return judge_alone(
        part, policy, now_unix_s=now_unix_s, simulated=roots is not None, allow_simulated=allow_simulated
    )


def judge_snp(
    report: bytes,
    endorsements: SnpEndorsements | None,
    policy: SnpPolicy | None,
    simulated: SimulatedRoots | None,
    *,
    now_unix_s: int,
) -> Part:
    """Judge a report by its endorsements, and by `policy` if there is one; never raises, whatever the bytes.

    `simulated` are the only roots trusted if given, else AMD's packaged ones.
    """
    ledger = Ledger()
    chain = None
    if endorsements is None:
        ledger.fail(SnpCheck.VEK_FORMAT, "no VCEK or VLEK was given")
    else:
        chain = verify_chain(ledger, endorsements, _roots(simulated), now_unix_s)
    parsed = verify_report(ledger, report, chain)
    crl_given = endorsements is not None and endorsements.crl is not None
    needed = SNP_CHECKS
    if policy is None:
        for check_id in SNP_POLICY_CHECKS:
            ledger.skip(check_id, "no policy was given: NOT appraised")
        for check_id in () if crl_given else REVOCATION_CHECKS:
            ledger.skip(check_id, "no revocation list was given")
        needed = SNP_CHAIN_CHECKS + SNP_REPORT_CHECKS
        if not crl_given:
            needed = tuple(c for c in needed if c not in REVOCATION_CHECKS)
    elif chain is not None and (chain.crl is not None or not crl_given):
        check_crl(ledger, chain.crl, policy, now_unix_s)
    product, readable = None, not ledger.failed(SNP_FILES)
    # Nothing that an unsigned report says is measured against a policy, or shown.
    if chain is not None and chain.vek is not None and parsed is not None and ledger.passed(SNP_SIGNATURES):
        product = product_of(parsed, chain.vek)
    if chain is None or chain.vek is None or parsed is None or product is None:
        return Part(ledger.close(SNP_CHECKS), holds=False, readable=readable)
    signer, ends = chain.vek.signer, [chain.not_after_unix_s]
    if policy is not None:
        check_report(ledger, parsed, product, signer, policy, now_unix_s)
        ends += policy_ends_unix_s(parsed, product, chain.crl, policy, now_unix_s)
    return Part(
        ledger.close(SNP_CHECKS),
        holds=ledger.holds(needed),
        claims={"cpu0": report_claims(parsed, product, signer)},
        bound=parsed.report_data,
        not_after_unix_s=min(ends),
        readable=readable,
    )


def _roots(simulated: SimulatedRoots | None) -> SnpRoots:
    if simulated is None:
        return amd_roots()
    pinned = simulated.amd_ark_sha256
    # No certificate has the empty digest: nothing of AMD's is trusted.
    return simulated_roots(b"" if pinned == "none" else bytes.fromhex(pinned))
