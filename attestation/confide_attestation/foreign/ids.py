"""Every check of another provider's report by its id, in the order of every result."""

from enum import StrEnum

from confide_attestation.order import span


class ForeignCheck(StrEnum):
    """A check is named for what it refuses."""

    REPORT_FORMAT = "provider_report_format"
    # dstack, Phala, NEAR
    QUOTE_DIFFERS = "provider_quote_differs"
    REQUEST_NONCE = "provider_request_nonce"
    SIGNING_ADDRESS = "provider_signing_address"
    SIGNING_KEY = "provider_signing_key"
    NONCE_BOUND = "provider_nonce_bound"
    GPU_EVIDENCE = "provider_gpu_evidence"
    GPU_NONCE = "provider_gpu_nonce"
    APP_COMPOSE = "provider_app_compose"
    MR_CONFIG = "provider_mr_config"
    # Tinfoil
    CHALLENGE = "provider_challenge"
    SECTION_HASHES = "provider_section_hashes"
    REPORT_DATA = "provider_report_data"
    DEVICE_EVIDENCE = "provider_device_evidence"
    HPKE_KEY = "provider_hpke_key"
    # Both
    TLS_KEY = "provider_tls_key"


DSTACK_REPORT_CHECKS = (
    ForeignCheck.REPORT_FORMAT,
    *span(ForeignCheck.QUOTE_DIFFERS, ForeignCheck.MR_CONFIG),
    ForeignCheck.TLS_KEY,
)
TINFOIL_CHECKS = (ForeignCheck.REPORT_FORMAT, *span(ForeignCheck.CHALLENGE, ForeignCheck.TLS_KEY))
