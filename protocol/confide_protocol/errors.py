"""The one tree of errors. A message never holds peer bytes, keys, tokens or prompt text."""

from typing import ClassVar


class ConfideError(Exception):
    """Root of everything that Confide raises on purpose.

    `code` is stable and meant for machines; `http_status` is a hint for whoever must answer a request;
    `reason` is what a person reads when no better detail was given.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    reason: ClassVar[str] = "something went wrong"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.reason)


class ProtocolError(ConfideError):
    """The peer's bytes break SPEC."""

    code = "protocol"
    http_status = 400
    reason = "the peer broke the protocol"


class Malformed(ProtocolError):
    code = "malformed"
    reason = "the message is malformed"


class DecryptionFailed(ProtocolError):
    """One message for every cause: which cryptographic step failed is nobody's business."""

    code = "decryption_failed"
    reason = "the message could not be opened"

    def __init__(self) -> None:
        super().__init__()


class UnknownKey(ProtocolError):
    code = "unknown_key"
    reason = "the message is sealed to a key that is not held here"


class Truncated(ProtocolError):
    code = "truncated"
    reason = "the stream ended before its authenticated end"


class Replayed(ProtocolError):
    code = "replayed"
    http_status = 409
    reason = "the message was seen before"


class TooLarge(ProtocolError):
    code = "too_large"
    http_status = 413
    reason = "the message is larger than the limit"


class RelayRefused(ProtocolError):
    """The gateway answered in clear. `status` is unauthenticated; its body is never shown."""

    code = "relay_refused"
    http_status = 502
    reason = "the gateway refused the request"

    def __init__(self, status: int, detail: str | None = None) -> None:
        super().__init__(detail or f"the gateway answered {status} in clear, unauthenticated")
        self.status = status


class RelayUnreachable(ConfideError):
    code = "relay_unreachable"
    http_status = 503
    reason = "the gateway cannot be reached"


class LocalStateError(ConfideError):
    """Our own caller misused an object (order of calls, reuse). Never sent to a peer."""

    code = "local_state"
    reason = "an object was used out of order"


class ConfigError(ConfideError):
    """A file of the operator or user is unreadable or wrong: names the file, the field and the remedy."""

    code = "config"
    reason = "a configuration file is wrong"

    def __init__(self, file: str, field: str, remedy: str) -> None:
        super().__init__(f"{file}: {field}: {remedy}")
        self.file, self.field, self.remedy = file, field, remedy


class PolicyError(ConfigError):
    """The appraisal policy is absent, unreadable, incomplete, expired or rolled back."""

    code = "policy"
    reason = "the appraisal policy is wrong"


class ReceiptInvalid(ConfideError):
    """A receipt does not verify, or speaks of another exchange.

    `part` names what failed: a layer (parse, alg, signature, claims, policy) or the first claim that differs.
    """

    code = "receipt_invalid"
    http_status = 502
    reason = "the receipt does not verify"

    def __init__(self, detail: str | None = None, *, part: str = "receipt") -> None:
        super().__init__(detail)
        self.part = part


class EngineError(ConfideError):
    """The engine could not answer. Returned sealed; its text never reaches a log."""

    code = "engine"
    reason = "the engine failed"


class CapacityExceeded(EngineError):
    code = "capacity_exceeded"
    http_status = 503
    reason = "the engine has no room for another request"


class ContextTooLong(EngineError):
    code = "context_too_long"
    http_status = 413
    reason = "prompt and answer do not fit the model's context"
