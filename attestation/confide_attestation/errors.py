"""The attestation branch of the one error tree."""

from typing import TYPE_CHECKING

from confide_protocol.errors import ConfideError

if TYPE_CHECKING:
    from confide_attestation.result import AttestationResult


class AttestationError(ConfideError):
    code = "attestation"
    http_status = 502
    reason = "the enclave could not be attested"


class EvidenceMalformed(AttestationError):
    """Bytes of evidence or endorsements are not what they claim to be. `check` is a CheckId where one applies."""

    code = "evidence_malformed"
    reason = "the evidence is malformed"

    def __init__(self, detail: str | None = None, check: str = "format") -> None:
        super().__init__(detail)
        self.check = check


class AppraisalRejected(AttestationError):
    """The appraisal failed; `result` carries every check."""

    code = "appraisal_rejected"

    def __init__(self, result: "AttestationResult") -> None:
        failed = [check for check in result.checks if check.outcome == "FAIL"]
        super().__init__("refused: " + "; ".join(f"{check.id}: {check.detail}" for check in failed))
        self.result = result


class EndorsementsUnavailable(AttestationError):
    """A vendor's document is not to be had here; says where it lies and how to bring it from elsewhere."""

    code = "endorsements_unavailable"
    http_status = 503
    reason = "an endorsement is missing"

    def __init__(self, document: str, url: str, because: str) -> None:
        super().__init__(
            f"{document} is missing: {because}. It lies at {url}; without network bring it from a machine that has "
            "it, by `confide endorsements export` there and `confide endorsements import FILE` here"
        )
        self.document, self.url, self.because = document, url, because
