"""Every check of NVIDIA evidence by its id, in the order of every result."""

from enum import StrEnum

from confide_attestation.order import span


class NvidiaCheck(StrEnum):
    """A check of a device's own evidence is named for what it refuses."""

    # The device's certificates
    CHAIN_FORMAT = "device_chain_format"
    CHAIN_LENGTH = "device_chain_length"
    CHAIN_ROLES = "device_chain_roles"
    ROOT_PIN = "device_root_pin"
    CHAIN_SIG = "device_chain_sig"
    CHAIN_VALIDITY = "device_chain_validity"
    CHAIN_OCSP = "device_chain_ocsp"
    CHAIN_OCSP_EXPIRED = "device_chain_ocsp_expired"
    CHAIN_REVOKED = "device_chain_revoked"
    # The report
    REPORT_FORMAT = "gpu_report_format"
    ARCH = "arch"
    NONCE = "gpu_nonce"
    FWID = "fwid"
    REPORT_SIG = "gpu_report_sig"
    REPORT_FIELDS = "gpu_report_fields"
    # NVIDIA's reference values
    RIM_FORMAT = "rim_format"
    RIM_ROOT_PIN = "rim_root_pin"
    RIM_CHAIN = "rim_chain"
    RIM_SIG = "rim_sig"
    RIM_SCHEMA = "rim_schema"
    DRIVER_RIM_MISSING = "driver_rim_missing"
    DRIVER_RIM_VERSION = "driver_rim_version"
    FIRMWARE_RIM_MISSING = "firmware_rim_missing"
    FIRMWARE_RIM_VERSION = "firmware_rim_version"
    RIM_PRODUCT = "rim_product"
    RIM_VALIDITY = "rim_validity"
    RIM_OCSP = "rim_ocsp"
    RIM_OCSP_EXPIRED = "rim_ocsp_expired"
    RIM_REVOKED = "rim_revoked"
    # What the device measured
    INDEX_CONFLICT = "golden_index_conflict"
    NVDEC0 = "nvdec0_status"
    MEASUREMENTS = "gpu_measurements"
    # All devices together
    DUPLICATE_DEVICE = "duplicate_device"
    MIXED_ARCH = "mixed_arch"
    MIXED_MODE = "mixed_mode"
    TOPOLOGY = "topology"
    # What a policy demands, of the machine and then of each device
    GPU_COUNT = "gpu_count"
    SWITCH_COUNT = "switch_count"
    ARCH_DENIED = "gpu_arch_denied"
    MODE_DENIED = "gpu_mode_denied"
    MIN_DRIVER = "min_driver"
    FIRMWARE = "gpu_firmware"
    UEID = "ueid_not_allowed"
    OCSP_AGE = "ocsp_age"


NVIDIA_CHECKS = tuple(NvidiaCheck)
DEVICE_CHECKS = span(NvidiaCheck.CHAIN_FORMAT, NvidiaCheck.MEASUREMENTS)
SET_CHECKS = span(NvidiaCheck.DUPLICATE_DEVICE, NvidiaCheck.TOPOLOGY)
COUNT_CHECKS = span(NvidiaCheck.GPU_COUNT, NvidiaCheck.SWITCH_COUNT)
DEVICE_POLICY_CHECKS = span(NvidiaCheck.ARCH_DENIED, NvidiaCheck.OCSP_AGE)
CHAIN_OCSP_CHECKS = span(NvidiaCheck.CHAIN_OCSP, NvidiaCheck.CHAIN_REVOKED)
RIM_OCSP_CHECKS = span(NvidiaCheck.RIM_OCSP, NvidiaCheck.RIM_REVOKED)
OCSP_CHECKS = CHAIN_OCSP_CHECKS + RIM_OCSP_CHECKS
# A switch has no driver and no mode, and nothing of it reports a FWID or the state of a video decoder.
GPU_ONLY = (
    NvidiaCheck.FWID,
    NvidiaCheck.DRIVER_RIM_MISSING,
    NvidiaCheck.DRIVER_RIM_VERSION,
    NvidiaCheck.INDEX_CONFLICT,
    NvidiaCheck.NVDEC0,
    NvidiaCheck.ARCH_DENIED,
    NvidiaCheck.MODE_DENIED,
    NvidiaCheck.MIN_DRIVER,
)
# Claims are read from a report only when all of these hold.
SIGNATURES = (
    NvidiaCheck.CHAIN_FORMAT,
    NvidiaCheck.CHAIN_LENGTH,
    NvidiaCheck.CHAIN_ROLES,
    NvidiaCheck.ROOT_PIN,
    NvidiaCheck.CHAIN_SIG,
    NvidiaCheck.ARCH,
    NvidiaCheck.REPORT_FORMAT,
    NvidiaCheck.REPORT_SIG,
)


class NrasCheck(StrEnum):
    """A check of the tokens of NVIDIA's Remote Attestation Service is named for what it refuses."""

    TOKENS_FORMAT = "nras_tokens_format"
    JWKS_FORMAT = "nras_jwks_format"
    HEADER = "nras_header"
    ALG = "nras_alg"
    KID = "nras_kid"
    SIG = "nras_sig"
    ISSUER = "nras_issuer"
    EXPIRED = "nras_expired"
    NOT_BEFORE = "nras_not_before"
    NONCE = "nras_nonce"
    VERSION = "nras_version"
    SUBMODS = "nras_submods"
    ERROR = "nras_error"
    DEVICE_CLAIMS = "nras_device_claims"
    DUPLICATE_DEVICE = "nras_duplicate_device"
    OVERALL = "nras_overall"


NRAS_CHECKS = tuple(NrasCheck)
