"""Judge one TDX quote: its form, Intel's documents for its platform, and its claims against a policy.

The argument: (1) the quote's form, and that of the documents; (2) certificates from Intel's pinned root, lists,
documents, quoting enclave and quote: each signed and in time; (3) the platform's TCB: UpToDate, or under the
policy's dated grace; (4) the TD: neither debugging nor migration nor a service TD; (5) its claims against the
policy: age of the documents, platform, what was measured, attributes.
"""

import hashlib

from confide_attestation.alone import judge_alone
from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import TdxEndorsements
from confide_attestation.part import Part
from confide_attestation.policy import AppraisalPolicy, SimulatedRoots
from confide_attestation.result import AttestationResult, Check, Outcome
from confide_attestation.tdx.abi import TdxQuote
from confide_attestation.tdx.claims import expires_unix_s, quote_claims, tcb_claims
from confide_attestation.tdx.ids import (
    TDX_AUTHENTICITY_CHECKS,
    TDX_CHECKS,
    TDX_FILES,
    TDX_POLICY_CHECKS,
    TdxCheck,
)
from confide_attestation.tdx.library import collateral_urls
from confide_attestation.tdx.policy import TdxPolicy
from confide_attestation.tdx.validate import check_quote, policy_end_unix_s
from confide_attestation.tdx.verify import read_collateral, read_quote, trusted_root, verify_quote

_NOT_APPRAISED = tuple(
    Check(str(check_id), Outcome.SKIP, "no policy was given: NOT appraised") for check_id in TDX_POLICY_CHECKS
)


def verify_tdx(
    quote: bytes,
    collateral_json: bytes | None,
    *,
    now_unix_s: int,
    policy: AppraisalPolicy | None = None,
    allow_simulated: bool = False,
    root_der: bytes | None = None,
) -> AttestationResult:
    """Judge one TDX quote by itself: authenticity, and with a policy its claims. Never yields a keyset.

    Without a policy a TCB status other than UpToDate is a refusal, and the verdict is AUTHENTIC at best. UNREADABLE
    means that an input is not a file of its kind. `root_der` is a simulated root, trusted in place of Intel's where
    no policy names the roots. Raises: PolicyError if the policy's profile knows no TDX.
    Does not check: report data, freshness, event logs, or anything of a keyset.
    """
    demands = None if policy is None else policy.tdx
    roots = simulated_root(root_der) if policy is None else policy.roots
    endorsements = None if collateral_json is None else TdxEndorsements(collateral_json)
    part = judge_tdx(quote, endorsements, demands, roots, now_unix_s=now_unix_s)
    return judge_alone(
        part, policy, now_unix_s=now_unix_s, simulated=roots is not None, allow_simulated=allow_simulated
    )


def judge_tdx(
    quote: bytes,
    endorsements: TdxEndorsements | None,
    policy: TdxPolicy | None,
    simulated: SimulatedRoots | None,
    *,
    now_unix_s: int,
) -> Part:
    """Judge a quote by its endorsements, and by `policy` if there is one; never raises, whatever the bytes.

    `simulated` names the only root trusted if given, else it is Intel's packaged one.
    """
    ledger = Ledger()
    parsed = read_quote(ledger, quote)
    collateral = None
    if endorsements is None:
        ledger.fail(TdxCheck.COLLATERAL_FORMAT, f"no collateral was given; {_where(parsed)}")
    else:
        collateral = read_collateral(ledger, endorsements.collateral, now_unix_s)
    held = None
    if parsed is not None:
        root = trusted_root(parsed.chain, simulated)
        held = verify_quote(ledger, parsed, collateral, root, now_unix_s, policy)
    needed, rest = (TDX_AUTHENTICITY_CHECKS, _NOT_APPRAISED) if policy is None else (TDX_CHECKS, ())
    readable = not ledger.failed(TDX_FILES)
    # Nothing that an unsigned quote says is measured against a policy, or shown.
    if parsed is None or collateral is None or held is None:
        return Part(ledger.close(needed) + rest, holds=False, readable=readable)
    if policy is not None:
        check_quote(ledger, parsed, held, collateral, policy, now_unix_s)
    claims, ends = quote_claims(parsed, held.pck, collateral), []
    if held.tree is not None:
        claims |= tcb_claims(held.tree)
        ends = [expires_unix_s(held.tree)]
        ends += [] if policy is None else [policy_end_unix_s(held.tree, collateral, policy)]
    return Part(
        ledger.close(needed) + rest,
        holds=ledger.holds(needed),
        claims={"cpu0": claims},
        bound=parsed.field("report_data"),
        not_after_unix_s=min(ends, default=None),
        readable=readable,
    )


def simulated_root(root_der: bytes | None) -> SimulatedRoots | None:
    """Trust one simulated root of Intel's, and nothing of any other vendor; None as it is."""
    if root_der is None:
        return None
    return SimulatedRoots(
        amd_ark_sha256="none",
        intel_root_sha256=hashlib.sha256(root_der).hexdigest(),
        nvidia_device_root_spki_sha256="none",
        nvidia_rim_root_spki_sha256="none",
    )


def _where(quote: TdxQuote | None) -> str:
    try:
        urls = "" if quote is None else f"Intel has it at {', '.join(collateral_urls(quote.data))}: "
    except EvidenceMalformed:
        urls = ""
    return urls + "`confide endorsements fetch tdx` brings it"
