"""The attestation branch of the one error tree."""

from typing import TYPE_CHECKING, Final

from confide_protocol.errors import ConfideError

if TYPE_CHECKING:
    from confide_attestation.result import AttestationResult

_OTHER = "if you trust that one, take the policy of its release"
# What to do where a check's own words do not say it.
REMEDIES: Final = {
    "policy_expired": "get a newer one, or set this machine's clock",
    "policy_serial": "a newer policy was accepted before: use that one",
    "simulated": "pass allow_simulated=True (commands: --allow-simulated) only for a try: it protects nothing",
    "nonce": "this evidence is not of now: try again, and ask the operator if it stays so",
    "debug": "whoever runs the host could read all that it holds: ask the operator",
    "td_debug": "whoever runs the host could read all that it holds: ask the operator",
    "measurement": f"another image runs than the policy names; {_OTHER}",
    "mr_td": f"another image runs than the policy names; {_OTHER}",
    "manifest": f"another model or other settings run than the policy names; {_OTHER}",
    "tcb_status_denied": "a policy may accept it for a time and a reason, in tcb_grace",
}


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
        said = ((check.id, check.detail, REMEDIES.get(check.id)) for check in failed)
        super().__init__("refused: " + "; ".join(": ".join(filter(None, words)) for words in said))
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
