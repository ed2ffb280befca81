"""The enclave's leaves of the one error tree."""

from confide_protocol.errors import ConfideError, EngineError, ProtocolError, TooLarge


class RequestTimeout(ProtocolError):
    """The request's bytes came too slowly."""

    code = "timeout"
    http_status = 408
    reason = "the request took too long to arrive"


class RequestTooLarge(TooLarge):
    """The request's bytes exceed `max_request_bytes`."""


class DeviceUnavailable(ConfideError):
    """The hardware (or its simulation) gave no quote. Answered 503 in clear."""

    code = "device_unavailable"
    http_status = 503
    reason = "the attestation device gave no quote"


class Busy(ConfideError):
    """A bounded waiting room is full."""

    code = "busy"
    http_status = 429
    reason = "too many callers are waiting"


class UnknownToken(EngineError):
    """A parameter names a token that the model does not have."""

    code = "unknown_token"
    http_status = 400
    reason = "a token id of 'logit_bias' is not of this model's vocabulary"


class DeviceLost(EngineError):
    """The GPU failed in a way that only a new process gets over."""

    code = "device_lost"
    reason = "the GPU stopped working; the enclave has to be started anew"


class GrammarTooComplex(EngineError):
    """Following the caller's schema, pattern or tools took more than the limits allow, maybe amid an answer."""

    code = "grammar_too_complex"
    http_status = 400
    reason = "the format or a tool's schema is too complex to be followed; make it simpler"


class Refusal(ConfideError):
    """An answer in OpenAI's error shape; always sent sealed. `message` must not repeat what the caller sent."""

    code = "refused"
    http_status = 400

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.name, self.param, self.kind = status, message, code, param, kind
