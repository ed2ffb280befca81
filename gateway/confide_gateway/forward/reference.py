"""The same interface over httpx2: slow and well worn, the reference that the own pool is tested against."""

from collections.abc import AsyncIterator

import httpx2
from confide_protocol import labels

from confide_gateway.forward import (
    Target,
    UpstreamBusy,
    UpstreamDown,
    UpstreamError,
    UpstreamRequest,
    UpstreamTimeout,
    UpstreamUnreachable,
)


class _Response:
    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.content_type = response.headers.get("content-type", "")
        self.ehbp_nonce = response.headers.get(labels.FIELD_EHBP_NONCE, "")
        self.keysets = response.headers.get(labels.FIELD_KEYSETS, "")
        self.ended = False
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_raw()

    async def read(self) -> bytes:
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self.ended = True
            return b""
        except httpx2.HTTPError as fault:
            raise _translated(fault) from None

    async def close(self) -> None:
        await self._response.aclose()


class HttpxPool:
    """Connections to one node, kept by httpx2; its defaults for header fields, proxies and cookies stay out."""

    def __init__(self, target: Target) -> None:
        limits = target.limits
        self._target = target
        self._client = httpx2.AsyncClient(
            verify=target.tls or False,
            trust_env=False,
            limits=httpx2.Limits(
                max_connections=limits.node_exchanges,
                max_keepalive_connections=limits.node_exchanges,
                keepalive_expiry=limits.node_keepalive_s,
            ),
        )
        self._timeout = httpx2.Timeout(limits.stream_idle_s, connect=limits.connect_s, pool=limits.connect_s)
        self._base = f"{'https' if target.tls else 'http'}://{target.authority}"

    async def send(self, request: UpstreamRequest) -> _Response:
        outward = httpx2.Request(
            request.method,
            self._base + request.path,
            headers=[("authorization", f"Bearer {self._target.secret}"), *request.fields],
            content=request.body if request.rest is None else _joined(request.body, request.rest),
            extensions={"timeout": self._timeout.as_dict()},
        )
        try:
            response = await self._client.send(outward, stream=True)
        except httpx2.HTTPError as fault:
            raise _translated(fault) from None
        if "content-length" not in response.headers and "transfer-encoding" not in response.headers:
            await response.aclose()
            raise UpstreamError  # its end could not be told from a cut
        return _Response(response)

    async def aclose(self) -> None:
        await self._client.aclose()


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _translated(fault: httpx2.HTTPError) -> UpstreamError:
    if isinstance(fault, httpx2.PoolTimeout):
        return UpstreamBusy()
    if isinstance(fault, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        return UpstreamDown() if _is_refused(fault) else UpstreamUnreachable()
    if isinstance(fault, httpx2.TimeoutException):
        return UpstreamTimeout()
    return UpstreamError()


def _is_refused(fault: BaseException) -> bool:
    """Look for what the operating system said below what three libraries made of it."""
    below: BaseException | None = fault
    while below is not None and not isinstance(below, ConnectionRefusedError):
        below = below.__cause__ or below.__context__
    return below is not None
