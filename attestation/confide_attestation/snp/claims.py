"""Name a report's fields for people and for EAR. Call only for a report whose signatures hold."""

from confide_attestation.snp import abi
from confide_attestation.snp.abi import PlatformBit, PolicyBit, Product, Signer, SnpReport

Claims = dict[str, str | int | bool]


def report_claims(report: SnpReport, product: Product, signer: Signer) -> Claims:
    """Return the claims of one report, flat: numbers as numbers, bytes as hex."""
    claims: Claims = {
        "type": "sev-snp",
        "product": product.value,
        "report_version": report.version,
        "signer": signer.value,
        "vmpl": report.vmpl,
        "guest_svn": report.guest_svn,
        "guest_policy": f"{report.policy:#x}",
        "debug": bool(report.policy & PolicyBit.DEBUG),
        "migrate_ma": bool(report.policy & PolicyBit.MIGRATE_MA),
        "smt_allowed": bool(report.policy & PolicyBit.SMT),
        "single_socket": bool(report.policy & PolicyBit.SINGLE_SOCKET),
        "ciphertext_hiding": bool(report.policy & PolicyBit.CIPHERTEXT_HIDING),
        "platform_info": f"{report.platform_info:#x}",
        "alias_check_complete": bool(report.platform_info & PlatformBit.ALIAS_CHECK_COMPLETE),
        "firmware": str(report.current_firmware),
        "firmware_committed": str(report.committed_firmware),
    }
    for name in ("reported", "committed", "current", "launch"):
        for part, level in abi.decode_tcb(getattr(report, f"{name}_tcb"), product).items():
            claims[f"tcb_{name}_{part}"] = level
    for name in (
        "measurement",
        "host_data",
        "report_data",
        "chip_id",
        "family_id",
        "image_id",
        "id_key_digest",
        "author_key_digest",
        "report_id",
        "report_id_ma",
    ):
        claims[name] = getattr(report, name).hex()
    if report.current_mit_vector is not None and report.launch_mit_vector is not None:
        claims["mit_vector"] = f"{report.current_mit_vector:#x}"
        claims["mit_vector_launch"] = f"{report.launch_mit_vector:#x}"
    return claims
