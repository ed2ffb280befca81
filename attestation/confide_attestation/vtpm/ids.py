"""Every check of an Azure machine's vTPM by its id, in the order of every result."""

from enum import StrEnum

from confide_attestation.order import span


class VtpmCheck(StrEnum):
    """A check is named for what it refuses."""

    # The HCL report's form
    HCL_SIZE = "hcl_size"
    HCL_MAGIC = "hcl_magic"
    HCL_VERSION = "hcl_version"
    HCL_TYPE = "hcl_type"
    HCL_TEE_TYPE = "hcl_tee_type"
    HCL_LENGTHS = "hcl_lengths"
    HCL_RESERVED = "hcl_reserved"
    HCL_HASH_ALG = "hcl_hash_alg"
    # From the hardware's report to the runtime data
    HCL_FOREIGN = "hcl_foreign"
    HCL_VMPL = "hcl_vmpl"
    TDREPORT_FORMAT = "tdreport_format"
    TDREPORT_MISMATCH = "tdreport_mismatch"
    RUNTIME_DIGEST = "runtime_digest"
    REPORT_DATA_TAIL = "report_data_tail"
    RUNTIME_FORMAT = "runtime_format"
    # The attestation key in it
    AK_MISSING = "ak_missing"
    AK_DUPLICATE = "ak_duplicate"
    AK_WEAK = "ak_weak"
    # The TPM's quote under that key
    TPM_MAGIC = "tpm_magic"
    TPM_TYPE = "tpm_type"
    TPM_FORMAT = "tpm_format"
    TPM_SIG_FORMAT = "tpm_sig_format"
    PCRS_FORMAT = "pcrs_format"
    TPM_SIG = "tpm_sig"
    PCR_SELECTION = "pcr_selection"
    PCR_DIGEST = "pcr_digest"
    TPM_NONCE = "tpm_nonce"
    # The machine against reference values
    PCR_MISSING = "pcr_missing"
    PCR_VALUES = "pcr_values"
    SECURE_BOOT = "secure_boot"
    CONSOLE_ENABLED = "console_enabled"
    TPM_DISABLED = "tpm_disabled"
    USER_DATA = "user_data"


HCL_CHECKS = span(VtpmCheck.HCL_SIZE, VtpmCheck.HCL_HASH_ALG)
SNP_BINDING_CHECKS = (VtpmCheck.HCL_FOREIGN, VtpmCheck.HCL_VMPL)
TDX_BINDING_CHECKS = (VtpmCheck.HCL_FOREIGN, VtpmCheck.TDREPORT_FORMAT, VtpmCheck.TDREPORT_MISMATCH)
RUNTIME_CHECKS = span(VtpmCheck.RUNTIME_DIGEST, VtpmCheck.RUNTIME_FORMAT)
AK_CHECKS = span(VtpmCheck.AK_MISSING, VtpmCheck.AK_WEAK)
TPM_FORM_CHECKS = span(VtpmCheck.TPM_MAGIC, VtpmCheck.TPM_FORMAT)
TPM_CHECKS = span(VtpmCheck.TPM_MAGIC, VtpmCheck.PCR_DIGEST)
MACHINE_CHECKS = span(VtpmCheck.PCR_MISSING, VtpmCheck.USER_DATA)

# A failure of one of these means that an input is not a file of its kind at all.
VTPM_FILES = (
    VtpmCheck.HCL_SIZE,
    VtpmCheck.HCL_MAGIC,
    VtpmCheck.TPM_MAGIC,
    VtpmCheck.TPM_SIG_FORMAT,
    VtpmCheck.PCRS_FORMAT,
)
