"""Judge a report's claims against a policy; does not check any signature (`verify`)."""

from cryptography import x509

from confide_attestation.checks.ledger import Ledger
from confide_attestation.checks.pins import check_pinned
from confide_attestation.policy_types import Waived
from confide_attestation.snp import abi
from confide_attestation.snp.abi import PlatformBit, PolicyBit, Product, Signer, SnpReport
from confide_attestation.snp.certificates import unix_s
from confide_attestation.snp.ids import REVOCATION_CHECKS, SnpCheck
from confide_attestation.snp.policy import SnpPolicy


def check_report(
    ledger: Ledger, report: SnpReport, product: Product, signer: Signer, policy: SnpPolicy, now_unix_s: int
) -> None:
    """Judge everything in the report that the policy speaks of, but its report data."""
    _check_product(ledger, report, product, policy, now_unix_s)
    ledger.expect(
        SnpCheck.SIGNER, signer.value in policy.signers, f"a {signer} is accepted", f"a {signer} is not accepted"
    )
    check_pinned(ledger, SnpCheck.MEASUREMENT, report.measurement.hex(), policy.measurements)
    check_pinned(ledger, SnpCheck.HOST_DATA, report.host_data.hex(), policy.host_data)
    check_pinned(ledger, SnpCheck.ID_KEY_DIGEST, report.id_key_digest.hex(), policy.id_key_digests)
    check_pinned(ledger, SnpCheck.AUTHOR_KEY_DIGEST, report.author_key_digest.hex(), policy.author_key_digests)
    check_pinned(ledger, SnpCheck.CHIP_ID, report.chip_id.hex(), policy.chip_ids)
    ledger.expect(
        SnpCheck.VMPL,
        report.vmpl in policy.vmpl,
        f"VMPL {report.vmpl} is accepted",
        f"VMPL {report.vmpl} is not accepted",
    )
    _check_levels(ledger, report, policy)
    _check_guest_policy(ledger, report, policy)
    if isinstance(policy.alias_check, Waived):
        ledger.waive(SnpCheck.ALIAS_CHECK, policy.alias_check.waived)
    else:
        ledger.expect(
            SnpCheck.ALIAS_CHECK,
            bool(report.platform_info & PlatformBit.ALIAS_CHECK_COMPLETE),
            "the firmware checked memory for aliases at boot",
            "the firmware did not check memory for aliases (BadRAM)",
        )
    if isinstance(policy.mit_vector, Waived):
        ledger.waive(SnpCheck.MIT_VECTOR, policy.mit_vector.waived)
    else:
        lacking = policy.mit_vector & ~((report.launch_mit_vector or 0) & (report.current_mit_vector or 0))
        ledger.expect(
            SnpCheck.MIT_VECTOR,
            not lacking,
            "all demanded mitigations are in place",
            f"mitigations {lacking:#x} are not in place; reports carry them from version 5 on",
        )


def check_crl(
    ledger: Ledger, crl: x509.CertificateRevocationList | None, policy: SnpPolicy, now_unix_s: int
) -> None:
    """Judge whether revocation is known as freshly as the policy demands; `crl` is None if none was given."""
    if isinstance(policy.crl, Waived):
        for check_id in (SnpCheck.CRL_AGE,) if crl is not None else (*REVOCATION_CHECKS, SnpCheck.CRL_AGE):
            ledger.waive(check_id, policy.crl.waived)
    elif crl is None:
        remedy = "fetch https://kdsintf.amd.com/vcek/v1/<product>/crl"
        ledger.fail(SnpCheck.CRL_AGE, f"no revocation list was given, and the policy demands one; {remedy}")
    else:
        age_s = now_unix_s - unix_s(crl.last_update_utc)
        ledger.expect(
            SnpCheck.CRL_AGE,
            age_s <= policy.crl.max_age_s,
            f"issued {age_s} s ago, at most {policy.crl.max_age_s} s are accepted",
            f"issued {age_s} s ago, more than the accepted {policy.crl.max_age_s} s",
        )


def policy_ends_unix_s(
    report: SnpReport,
    product: Product,
    crl: x509.CertificateRevocationList | None,
    policy: SnpPolicy,
    now_unix_s: int,
) -> list[int]:
    """Return when the policy ceases to accept this: a list that gets too old, a least TCB that rises."""
    ends = []
    if crl is not None and not isinstance(policy.crl, Waived):
        ends.append(unix_s(crl.last_update_utc) + policy.crl.max_age_s)
    rule = policy.products.rule(product)
    if rule is not None and not isinstance(rule.rises, str):
        reported, rises_unix_s = abi.decode_tcb(report.reported_tcb, product), unix_s(rule.rises.at)
        short = any(reported[part] < level for part, level in rule.rises.min_tcb.model_dump().items())
        ends += [rises_unix_s] if now_unix_s < rises_unix_s and short else []
    return ends


def _check_product(ledger: Ledger, report: SnpReport, product: Product, policy: SnpPolicy, now_unix_s: int) -> None:
    rule = policy.products.rule(product)
    if not ledger.expect(
        SnpCheck.PRODUCT_DENIED, rule is not None, f"{product} is accepted", f"{product} is refused"
    ):
        return
    assert rule is not None  # noqa: S101 - the check above
    reported = abi.decode_tcb(report.reported_tcb, product)
    least = rule.least(now_unix_s).model_dump()
    short = [
        f"{part} is {reported[part]}, at least {level} is demanded"
        for part, level in least.items()
        if reported[part] < level
    ]
    ledger.expect(
        SnpCheck.MIN_TCB,
        not short,
        "reported TCB is at or above " + ", ".join(f"{part} {level}" for part, level in least.items()),
        "; ".join(short) + "; update the host's firmware",
    )


def _check_levels(ledger: Ledger, report: SnpReport, policy: SnpPolicy) -> None:
    # Unused bytes of a TCB are zero (`report_reserved`), so bytes compare as components in every layout.
    def at_most(low: bytes, high: bytes) -> bool:
        return all(a <= b for a, b in zip(low, high, strict=True))

    committed = report.committed_tcb
    ledger.expect(
        SnpCheck.TCB_ORDER,
        at_most(report.launch_tcb, committed)
        and at_most(report.reported_tcb, committed)
        and at_most(committed, report.current_tcb),
        "launch and reported TCB are at most the committed one, that at most the current one",
        "launch or reported TCB is above the committed one, or that above the current one",
    )
    firmware, least = report.committed_firmware, policy.least_firmware
    ledger.expect(
        SnpCheck.MIN_ABI,
        (firmware.major, firmware.minor, firmware.build) >= (least.major, least.minor, least.build),
        f"committed firmware {firmware} is at least {least}",
        f"committed firmware {firmware} is below {least}; update the host's firmware",
    )
    ledger.expect(
        SnpCheck.MIN_GUEST_SVN,
        report.guest_svn >= policy.min_guest_svn,
        f"guest SVN {report.guest_svn} is at least {policy.min_guest_svn}",
        f"guest SVN {report.guest_svn} is below {policy.min_guest_svn}",
    )


def _check_guest_policy(ledger: Ledger, report: SnpReport, policy: SnpPolicy) -> None:
    guest = policy.guest_policy
    for check_id, bit, allowed in (
        (SnpCheck.SMT, PolicyBit.SMT, guest.allow_smt),
        (SnpCheck.CXL, PolicyBit.CXL, guest.allow_cxl),
    ):
        is_set = bool(report.policy & bit)
        ledger.expect(
            check_id,
            allowed or not is_set,
            "allowed by the policy" if allowed else "off",
            "the guest may run with it, and the policy does not allow that",
        )
    for check_id, bit, required in (
        (SnpCheck.SINGLE_SOCKET, PolicyBit.SINGLE_SOCKET, guest.require_single_socket),
        (SnpCheck.MEM_AES_256_XTS, PolicyBit.MEM_AES_256_XTS, guest.require_mem_aes_256_xts),
        (SnpCheck.RAPL_DISABLED, PolicyBit.RAPL_DISABLED, guest.require_rapl_disabled),
        (SnpCheck.CIPHERTEXT_HIDING, PolicyBit.CIPHERTEXT_HIDING, guest.require_ciphertext_hiding),
        (SnpCheck.PAGE_SWAP_DISABLED, PolicyBit.PAGE_SWAP_DISABLED, guest.require_page_swap_disabled),
    ):
        is_set = bool(report.policy & bit)
        ledger.expect(
            check_id,
            is_set or not required,
            "on" if is_set else "not demanded by the policy",
            "the guest was launched without it, and the policy demands it",
        )
