"""What may go wrong with an engine in another process. No message holds a byte that the server sent."""

from confide_protocol.errors import EngineError


class EngineLoading(EngineError):
    """The server is being started, or was lost and comes back."""

    code = "engine_loading"
    http_status = 503
    reason = "the model is being loaded; ask again in a minute"


class EngineLost(EngineError):
    """The server went away, fell silent or gave up amid an answer."""

    code = "engine_lost"
    http_status = 503
    reason = "the engine broke off this answer; ask again"


class EngineFailed(EngineError):
    """The server cannot be used until an operator has looked: it keeps ending, or it is another than configured."""

    code = "engine_failed"
    http_status = 503
    reason = "the engine is out of service here; its operator has to look at it"


class EngineRefused(EngineError):
    """The server does not take a request that we take."""

    code = "engine_refused"
    http_status = 501
    reason = "the engine behind this enclave cannot do what the request asks for"


class EngineForbidden(EngineRefused):
    """The server takes no request with this key."""


class EngineMalformed(EngineError):
    """The server's answer is not what was asked for, or no answer at all."""

    code = "engine_malformed"
    http_status = 502
    reason = "the engine gave an answer that cannot be trusted"
