"""Judge a quote's claims against a policy; does not check any signature (`verify`)."""

from datetime import UTC, datetime
from typing import Any

from confide_attestation.checks.ledger import Ledger
from confide_attestation.checks.pins import check_pinned
from confide_attestation.tdx.abi import TdBit, TdxQuote
from confide_attestation.tdx.collateral import Collateral
from confide_attestation.tdx.explain import UP_TO_DATE, advisories, lacking
from confide_attestation.tdx.ids import TdxCheck
from confide_attestation.tdx.library import Pck
from confide_attestation.tdx.policy import TdxPolicy
from confide_attestation.tdx.verify import Held

_DAY_S = 86_400


def check_quote(
    ledger: Ledger, quote: TdxQuote, held: Held, collateral: Collateral, policy: TdxPolicy, now_unix_s: int
) -> None:
    """Judge everything in a quote and its documents that the policy speaks of, but its report data."""
    _check_documents(ledger, collateral, policy, now_unix_s)
    if held.tree is not None:
        _check_grace(ledger, held.tree, policy, now_unix_s)
    check_pinned(ledger, TdxCheck.PPID_NOT_ALLOWED, held.pck.ppid.hex(), policy.ppids)
    _check_configuration(ledger, held.pck, policy)
    for check_id, pinned in (
        (TdxCheck.MR_SEAM, policy.mr_seam),
        (TdxCheck.MR_TD, policy.mr_td),
        (TdxCheck.RTMR0, policy.rtmr0),
        (TdxCheck.RTMR1, policy.rtmr1),
        (TdxCheck.RTMR2, policy.rtmr2),
        (TdxCheck.RTMR3, policy.rtmr3),
        (TdxCheck.MR_CONFIG_ID, policy.mr_config_id),
        (TdxCheck.MR_OWNER, policy.mr_owner),
        (TdxCheck.MR_OWNER_CONFIG, policy.mr_owner_config),
        (TdxCheck.XFAM, policy.xfam),
    ):
        check_pinned(ledger, check_id, quote.field(check_id.value).hex(), pinned)
    attributes, allow = quote.td_attributes, policy.td_attributes
    for check_id, bit, allowed in (
        (TdxCheck.TD_PKS, TdBit.PKS, allow.allow_pks),
        (TdxCheck.TD_KEY_LOCKER, TdBit.KEY_LOCKER, allow.allow_key_locker),
        (TdxCheck.TD_PERFMON, TdBit.PERFMON, allow.allow_perfmon),
        (TdxCheck.TD_LASS, TdBit.LASS, allow.allow_lass),
    ):
        ledger.expect(
            check_id,
            allowed or not attributes & bit,
            "allowed by the policy" if allowed else "off",
            "the TD was launched with it, and the policy does not allow that",
        )


def policy_end_unix_s(tree: dict[str, Any], collateral: Collateral, policy: TdxPolicy) -> int:
    """Return when the policy's own limits end: the documents' greatest age, and its grace if that is used."""
    end = min(issued + limit for _, issued, limit in _issued(collateral, policy))
    return min(end, policy.grace.until_unix_s) if policy.grace is not None and lacking(tree) else end


def _issued(collateral: Collateral, policy: TdxPolicy) -> list[tuple[str, int, int]]:
    """Return each document's name, when it was issued, and how old it may be, all in seconds."""
    most, most_root = policy.max_collateral_age_s, policy.max_root_crl_age_s
    return [
        ("TCB info", collateral.tcb_info.issued_unix_s, most),
        ("QE identity", collateral.qe_identity.issued_unix_s, most),
        ("the PCK list", collateral.pck_crl_issued_unix_s, most),
        ("the root's list", collateral.root_crl_issued_unix_s, most_root),
    ]


def _check_documents(ledger: Ledger, collateral: Collateral, policy: TdxPolicy, now_unix_s: int) -> None:
    numbers = collateral.tcb_info.evaluation_number, collateral.qe_identity.evaluation_number
    least = policy.min_tcb_evaluation_number
    ledger.expect(
        TdxCheck.EVAL_NUMBER_TOO_LOW,
        min(numbers) >= least,
        f"TCB info {numbers[0]}, QE identity {numbers[1]}, at least {least}",
        f"TCB info has {numbers[0]}, QE identity {numbers[1]}, at least {least} is demanded: fetch newer documents",
    )
    issued = _issued(collateral, policy)
    old = [
        f"{name} was issued {now_unix_s - at} s ago, at most {limit} s are accepted"
        for name, at, limit in issued
        if now_unix_s - at > limit
    ]
    oldest = now_unix_s - min(at for _, at, _ in issued)
    ledger.expect(
        TdxCheck.COLLATERAL_TOO_OLD,
        not old,
        f"the oldest document was issued {oldest // _DAY_S} days ago",
        "; ".join(old) + "; fetch it anew",
    )


def _check_grace(ledger: Ledger, tree: dict[str, Any], policy: TdxPolicy, now_unix_s: int) -> None:
    short, still_open, grace = lacking(tree), advisories(tree), policy.grace
    if not short:
        for check_id in (TdxCheck.TCB_GRACE, TdxCheck.ADVISORY_DENIED):
            ledger.expect(check_id, True, f"not needed: {UP_TO_DATE}", "")
        return
    if grace is None:
        for check_id in (TdxCheck.TCB_GRACE, TdxCheck.ADVISORY_DENIED):
            ledger.skip(check_id, "the policy grants no grace")
        return
    until = f"{datetime.fromtimestamp(grace.until_unix_s, UTC):%Y-%m-%d}"
    ledger.expect(
        TdxCheck.TCB_GRACE,
        now_unix_s < grace.until_unix_s,
        f"{', '.join(short)} is accepted until {until}: {grace.because}",
        f"the policy's grace for {', '.join(grace.statuses)} ended {until}",
    )
    denied = [advisory for advisory in still_open if advisory not in grace.advisories]
    ledger.expect(
        TdxCheck.ADVISORY_DENIED,
        not denied,
        f"accepted for that time: {', '.join(still_open) or 'none applies'}",
        f"open on this platform, and not accepted by the policy: {', '.join(denied)}",
    )


def _check_configuration(ledger: Ledger, pck: Pck, policy: TdxPolicy) -> None:
    allow = policy.platform_configuration
    denied, shown = [], []
    for name, value, allowed in (
        ("SMT", pck.smt, allow.allow_smt),
        ("dynamic platform", pck.dynamic_platform, allow.allow_dynamic_platform),
        ("cached keys", pck.cached_keys, allow.allow_cached_keys),
    ):
        said = f"{name} {'unknown' if value is None else 'on' if value else 'off'}"
        shown.append(said)
        if not allowed and value is not False:
            denied.append(said)
    ledger.expect(
        TdxCheck.PLATFORM_CONFIGURATION,
        not denied,
        ", ".join(shown),
        f"{', '.join(denied)}: says the PCK certificate, and the policy does not allow that",
    )
