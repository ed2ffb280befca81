"""The way to one node: bodies pass as opaque bytes, the header fields are a fixed set."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from confide_protocol.errors import ConfideError

from confide_gateway.settings import Limits

MAX_HEAD_BYTES = 16 * 1024
BUFFER_BYTES = 64 * 1024


class UpstreamError(ConfideError):
    """The node broke off, or does not speak HTTP/1.1 with a length."""

    code = "upstream"
    http_status = 502
    reason = "the node broke off"


class UpstreamUnreachable(UpstreamError):
    code = "upstream_unreachable"
    http_status = 503
    reason = "the node cannot be reached"


class UpstreamDown(UpstreamUnreachable):
    """Nothing listens there: the host answers, and refuses the connection."""


class UpstreamBusy(UpstreamError):
    code = "upstream_busy"
    http_status = 503
    reason = "the node has no room for another exchange"


class UpstreamTimeout(UpstreamError):
    code = "upstream_timeout"
    http_status = 504
    reason = "the node was silent for too long"


@dataclass(frozen=True)
class Target:
    """One node's address, its bearer secret and the limits that hold towards it."""

    host: str
    port: int
    authority: str
    secret: str = field(repr=False)
    limits: Limits
    tls: ssl.SSLContext | None = None


class UpstreamRequest(NamedTuple):
    """`fields` are names and values of our own making. `rest`, where set, follows `body` piece by piece."""

    method: str
    path: str
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    rest: AsyncIterator[bytes] | None = None


class UpstreamResponse(Protocol):
    """A response whose head has come. `ehbp_nonce` is empty but where EHBP was answered, `keysets` but on evidence.

    A field that came twice reads as both values, joined by a comma and a blank.
    `read` waits for more and returns all that is there; once `ended` is True nothing follows.
    `close` is called exactly once, whatever happened: it drops the connection of an unfinished exchange.
    """

    status: int
    content_type: str
    ehbp_nonce: str
    keysets: str

    @property
    def ended(self) -> bool: ...
    async def read(self) -> bytes: ...
    async def close(self) -> None: ...


class UpstreamPool(Protocol):
    """Connections to one node. `send` and `read` raise UpstreamError; cancelling either closes the connection."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse: ...
    async def aclose(self) -> None: ...
