"""Errors of the client's own, in the one tree. Each says what to do."""

from confide_protocol.errors import ConfigError, RelayRefused, RelayUnreachable


class NotConfide(RelayRefused):
    """Whoever listens at the URL does not serve evidence: most often a plain OpenAI server."""

    code = "not_confide"
    reason = "no Confide gateway listens at this URL"


class OutcomeUnknown(RelayUnreachable):
    """The way broke after the request was sent and before any answer: an enclave may have run it, or may not."""

    code = "outcome_unknown"
    http_status = 502
    reason = (
        "the connection broke before the answer began, and an enclave may have run the request: it was not sent "
        "again; ask again if running it twice does no harm"
    )


class RefusedAfterSending(RelayRefused):
    """The gateway refuses, in clear, once sealed bytes left: it may say so and have had them run all the same."""


class RuntimeUnfit(ConfigError):
    """This Python cannot do the cryptography that every exchange needs."""

    code = "runtime_unfit"
    reason = "this Python lacks cryptography that is needed"


# What a status that a gateway gave in clear most often means. It is unauthenticated: a hint and no more.
REMEDIES = {
    400: "it was not opened; the enclave's keys may just have changed, or this machine's clock be wrong; try again",
    401: "no API key was given, or the gateway does not know it: api_key=, for commands --api-key-file or "
    "CONFIDE_API_KEY",
    403: "something in front of the gateway forbids it; check api_key and the URL",
    404: "the URL is wrong, or something before the gateway answered",
    409: "the enclave opened it before, and its answer is lost",
    413: "the gateway takes no request as large as this; send less",
    429: "the account has reached its limit; wait, or ask the operator for more",
    502: "the enclave behind the gateway is gone; try again",
    503: "no enclave is ready behind the gateway; try again in a while",
}


def refused(status: int) -> RelayRefused:
    """Return the error for an answer in clear, with what to do where that is known."""
    said = f"the gateway answered {status} in clear, unauthenticated"
    return RelayRefused(status, f"{said}: {REMEDIES[status]}" if status in REMEDIES else said)
