"""Every check of a TDX quote by its id, in the order of every result."""

from enum import StrEnum

from confide_attestation.order import span


class TdxCheck(StrEnum):
    """A check is named for what it refuses."""

    # The quote's form
    QUOTE_SIZE = "quote_size"
    QUOTE_VERSION = "quote_version"
    TEE_TYPE = "tee_type"
    BODY_TYPE = "body_type"
    QUOTE_TRUNCATED = "quote_truncated"
    QUOTE_LENGTHS = "quote_lengths"
    QUOTE_TRAILING_DATA = "quote_trailing_data"
    ATT_KEY_TYPE = "att_key_type"
    QE_VENDOR = "qe_vendor"
    CERT_DATA_TYPE = "cert_data_type"
    PCK_CHAIN_FORMAT = "pck_chain_format"
    QE_REPORT_RESERVED = "qe_report_reserved"
    # Intel's documents
    COLLATERAL_FORMAT = "collateral_format"
    TCB_INFO_TYPE = "tcb_info_type"
    # Certificates and lists
    ROOT_UNTRUSTED = "root_untrusted"
    PCK_CHAIN = "pck_chain"
    PCK_EXPIRED = "pck_expired"
    PCK_EXTENSIONS = "pck_extensions"
    TCB_SIGNING_CHAIN = "tcb_signing_chain"
    TCB_SIGNING_CERT_EXPIRED = "tcb_signing_cert_expired"
    CRL_FORMAT = "crl_format"
    CRL_MISSING_FOR_CA = "crl_missing_for_ca"
    CRL_SIG = "crl_sig"
    CRL_NOT_YET_VALID = "crl_not_yet_valid"
    CRL_EXPIRED = "crl_expired"
    PCK_REVOKED = "pck_revoked"
    CA_REVOKED = "ca_revoked"
    TCB_SIGNING_REVOKED = "tcb_signing_revoked"
    # What the documents say, signed and in time
    TCB_INFO_SIGNATURE = "tcb_info_signature"
    TCB_INFO_NOT_YET_VALID = "tcb_info_not_yet_valid"
    TCB_INFO_EXPIRED = "tcb_info_expired"
    QE_IDENTITY_SIGNATURE = "qe_identity_signature"
    QE_IDENTITY_NOT_YET_VALID = "qe_identity_not_yet_valid"
    QE_IDENTITY_EXPIRED = "qe_identity_expired"
    QE_IDENTITY_ID = "qe_identity_id"
    # From the PCK certificate to the quote
    QE_REPORT_SIGNATURE = "qe_report_signature"
    AK_BINDING = "ak_binding"
    QUOTE_SIGNATURE = "quote_signature"
    QE_MRSIGNER = "qe_mrsigner"
    QE_PRODID = "qe_prodid"
    QE_MISCSELECT = "qe_miscselect"
    QE_ATTRIBUTES = "qe_attributes"
    QE_ISVSVN = "qe_isvsvn"
    # The platform's TCB
    FMSPC_MISMATCH = "fmspc_mismatch"
    PCEID_MISMATCH = "pceid_mismatch"
    COMPONENT_COUNT = "component_count"
    TDX_MODULE_ID_UNKNOWN = "tdx_module_id_unknown"
    TDX_MODULE_MRSIGNER = "tdx_module_mrsigner"
    SEAM_ATTRIBUTES = "seam_attributes"
    TDX_MODULE_SVN = "tdx_module_svn"
    TCB_NO_LEVEL = "tcb_no_level"
    TCB_STATUS_UNKNOWN = "tcb_status_unknown"
    TCB_REVOKED = "tcb_revoked"
    TCB_STATUS_DENIED = "tcb_status_denied"
    CURRENT_TCB = "current_tcb"
    TD_RELAUNCH_ADVISED = "td_relaunch_advised"
    # The TD itself
    TD_DEBUG = "td_debug"
    TD_PROFILING = "td_profiling"
    TD_RESERVED_BITS = "td_reserved_bits"
    SEPT_VE_DISABLE = "sept_ve_disable"
    TD_MIGRATABLE = "td_migratable"
    SERVICE_TD = "service_td"
    XFAM_RESERVED = "xfam_reserved"
    MR_SEAM_ZERO = "mr_seam_zero"
    MR_TD_ZERO = "mr_td_zero"
    # The library's own last word: a fault without a name here, or one that our checks should have seen
    DCAP_QVL = "dcap_qvl"
    # The quote's claims against a policy
    EVAL_NUMBER_TOO_LOW = "eval_number_too_low"
    COLLATERAL_TOO_OLD = "collateral_too_old"
    TCB_GRACE = "tcb_grace"
    ADVISORY_DENIED = "advisory_denied"
    PPID_NOT_ALLOWED = "ppid_not_allowed"
    PLATFORM_CONFIGURATION = "platform_configuration"
    MR_SEAM = "mr_seam"
    MR_TD = "mr_td"
    RTMR0 = "rtmr0"
    RTMR1 = "rtmr1"
    RTMR2 = "rtmr2"
    RTMR3 = "rtmr3"
    MR_CONFIG_ID = "mr_config_id"
    MR_OWNER = "mr_owner"
    MR_OWNER_CONFIG = "mr_owner_config"
    XFAM = "xfam"
    TD_PKS = "td_pks"
    TD_KEY_LOCKER = "td_key_locker"
    TD_PERFMON = "td_perfmon"
    TD_LASS = "td_lass"


TDX_CHECKS = tuple(TdxCheck)
TDX_AUTHENTICITY_CHECKS = span(TdxCheck.QUOTE_SIZE, TdxCheck.DCAP_QVL)
TDX_POLICY_CHECKS = span(TdxCheck.EVAL_NUMBER_TOO_LOW, TdxCheck.TD_LASS)

# Certificates, lists, documents and signatures: all hold once `dcap-qvl` finds nothing, or only a later fault.
TDX_SIGNATURE_CHECKS = span(TdxCheck.PCK_CHAIN, TdxCheck.QE_ISVSVN)

# A failure of one of these means that an input is not a file of its kind at all.
TDX_QUOTE_FILE = (TdxCheck.QUOTE_SIZE, TdxCheck.QUOTE_VERSION, TdxCheck.TEE_TYPE, TdxCheck.QUOTE_TRUNCATED)
TDX_FILES = (*TDX_QUOTE_FILE, TdxCheck.COLLATERAL_FORMAT)
