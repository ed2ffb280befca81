"""Every check of a SEV-SNP report by its id, in the order of every result."""

from enum import StrEnum

from confide_attestation.order import span


class SnpCheck(StrEnum):
    """A check is named for what it refuses."""

    # AMD's certificates (SPEC: SEV-SNP chain)
    VEK_FORMAT = "vek_format"
    ASK_FORMAT = "ask_format"
    ARK_FORMAT = "ark_format"
    VEK_EXTENSIONS = "vek_extensions"
    CHAIN_ROLES = "chain_roles"
    ARK_PIN = "ark_pin"
    ARK_SIG = "ark_sig"
    ASK_SIG = "ask_sig"
    VEK_SIG = "vek_sig"
    ARK_VALIDITY = "ark_validity"
    ASK_VALIDITY = "ask_validity"
    VEK_VALIDITY = "vek_validity"
    CRL_FORMAT = "crl_format"
    CRL_SIG = "crl_sig"
    CRL_EXPIRED = "crl_expired"
    ASK_REVOKED = "ask_revoked"
    # The report
    REPORT_SIZE = "report_size"
    REPORT_VERSION = "report_version"
    REPORT_RESERVED = "report_reserved"
    SIG_ALGO = "sig_algo"
    SIG_PADDING = "sig_padding"
    SIGNING_KEY = "signing_key"
    SIGNING_KEY_MISMATCH = "signing_key_mismatch"
    UNKNOWN_CPUID = "unknown_cpuid"
    PRODUCT_MISMATCH = "product_mismatch"
    TCB_MISMATCH = "tcb_mismatch"
    CHIP_ID_MASKED = "chip_id_masked"
    HWID_MISSING = "hwid_missing"
    HWID_MISMATCH = "hwid_mismatch"
    REPORT_SIG = "report_sig"
    DEBUG = "debug"
    MIGRATE_MA = "migrate_ma"
    POLICY_MBO = "policy_mbo"
    POLICY_MBZ = "policy_mbz"
    # The report's claims against the policy
    CRL_AGE = "crl_age"
    PRODUCT_DENIED = "product_denied"
    SIGNER = "signer"
    MEASUREMENT = "measurement"
    HOST_DATA = "host_data"
    ID_KEY_DIGEST = "id_key_digest"
    AUTHOR_KEY_DIGEST = "author_key_digest"
    CHIP_ID = "chip_id"
    VMPL = "vmpl"
    MIN_TCB = "min_tcb"
    TCB_ORDER = "tcb_order"
    MIN_ABI = "min_abi"
    MIN_GUEST_SVN = "min_guest_svn"
    SMT = "smt"
    CXL = "cxl"
    SINGLE_SOCKET = "single_socket"
    MEM_AES_256_XTS = "mem_aes_256_xts"
    RAPL_DISABLED = "rapl_disabled"
    CIPHERTEXT_HIDING = "ciphertext_hiding"
    PAGE_SWAP_DISABLED = "page_swap_disabled"
    ALIAS_CHECK = "alias_check"
    MIT_VECTOR = "mit_vector"


SNP_CHECKS = tuple(SnpCheck)
SNP_CHAIN_CHECKS = span(SnpCheck.VEK_FORMAT, SnpCheck.ASK_REVOKED)
SNP_REPORT_CHECKS = span(SnpCheck.REPORT_SIZE, SnpCheck.POLICY_MBZ)
SNP_POLICY_CHECKS = span(SnpCheck.CRL_AGE, SnpCheck.MIT_VECTOR)
REVOCATION_CHECKS = span(SnpCheck.CRL_FORMAT, SnpCheck.ASK_REVOKED)

# Claims are read from a report only when all of these hold.
SNP_SIGNATURES = (
    SnpCheck.VEK_EXTENSIONS,
    SnpCheck.CHAIN_ROLES,
    SnpCheck.ARK_PIN,
    SnpCheck.ARK_SIG,
    SnpCheck.ASK_SIG,
    SnpCheck.VEK_SIG,
    SnpCheck.REPORT_SIG,
)

# A failure of one of these means that an input is not a file of its kind at all.
SNP_FILES = (
    SnpCheck.VEK_FORMAT,
    SnpCheck.ASK_FORMAT,
    SnpCheck.ARK_FORMAT,
    SnpCheck.CRL_FORMAT,
    SnpCheck.REPORT_SIZE,
)
