"""Every check by its id, in the order of every result. SPEC, CLI, EAR and vectors use the same strings."""

from enum import StrEnum

from confide_attestation.order import span


class CheckId(StrEnum):
    """A check is named for what it refuses."""

    # The policy itself
    POLICY_EXPIRED = "policy_expired"
    POLICY_SERIAL = "policy_serial"
    SIMULATED = "simulated"
    # From the report to the keyset
    CPU_KIND = "cpu_kind"
    STATEMENT_FORMAT = "statement_format"
    REPORT_DATA = "report_data"
    STATEMENT_EXPIRED = "statement_expired"
    NONCE = "nonce"
    KEYSET_FORMAT = "keyset_format"
    KEYSET_DIGEST = "keyset_digest"
    KEYSET_VALIDITY = "keyset_validity"
    KEYSET_KIND = "keyset_kind"
    MANIFEST_FORMAT = "manifest_format"
    MANIFEST_DIGEST = "manifest_digest"
    MANIFEST = "manifest"
    PLATFORM = "platform"
    SUITE = "suite"
    SHAPE = "shape"
    GPU_EVIDENCE = "gpu_evidence"
    EVENT_LOGS = "event_logs"


POLICY_CHECKS = span(CheckId.POLICY_EXPIRED, CheckId.SIMULATED)
BINDING_CHECKS = span(CheckId.CPU_KIND, CheckId.EVENT_LOGS)
