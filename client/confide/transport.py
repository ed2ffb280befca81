"""Transports for httpx2 and httpx: plain OpenAI requests go in, sealed ones go out, verified answers come back.

    client = openai.OpenAI(base_url="https://gateway/v1", api_key=…,
                           http_client=httpx2.Client(transport=Transport("https://gateway", policy="policy.toml")))

The answer's `extensions["confide"]` is its Exchange; `.receipt` is set once the answer has ended well.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import anyio.to_thread
import httpx2
from confide_protocol.errors import RelayRefused, RelayUnreachable, Truncated

from confide.relay import PolicySource, Relay
from confide.session import Call, Exchange

# What an answer's length and framing are is for the HTTP library to say, once the seal is off.
_UNSHOWN = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"})


class _Sealed:
    """What both transports share: the relay and the shape of outer requests and inner answers."""

    module: Any

    def __init__(
        self,
        gateway: str,
        policy: PolicySource = None,
        *,
        relay: Relay | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """`options` are those of `Relay`; a given `relay` is shared instead of making one."""
        self.relay = relay or Relay(gateway, policy, **options)
        self._inner: Any = None
        self._process = 0

    def _pool(self, kind: Any) -> Any:  # noqa: ANN401
        # Connections must not be shared with a forked child.
        if self._inner is None or self._process != os.getpid():
            limits = self.module.Limits(
                max_connections=self.relay.limits.max_connections,
                max_keepalive_connections=self.relay.limits.max_idle_connections,
            )
            self._inner, self._process = kind(limits=limits, **self.relay.link.options), os.getpid()
        return self._inner

    def _call(self, request: Any) -> tuple[Call, str | None]:  # noqa: ANN401
        url = request.url
        fields = [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw]
        target = url.raw_path.decode("ascii")
        call = self.relay.call(request.method, (url.scheme, url.host, url.port), target, fields, request.content)
        return call, request.headers.get("authorization")

    def _outer(self, exchange: Exchange, authorization: str | None, request: Any) -> Any:  # noqa: ANN401
        timeout = {key: value for key, value in request.extensions.items() if key == "timeout"}
        return self.module.Request(
            "POST",
            self.relay.url + exchange.path,
            headers=dict(exchange.header_fields) | self.relay.authorize(authorization),
            content=exchange.body,
            extensions=timeout,
        )

    def _answer(self, exchange: Exchange, request: Any, body: Any, *, length: int | None = None) -> Any:  # noqa: ANN401
        assert exchange.head is not None  # noqa: S101 - events come after the head
        fields = [(name, value) for name, value in exchange.head.fields if name not in _UNSHOWN]
        if length is not None:
            fields.append(("content-length", str(length)))
        return self.module.Response(
            exchange.head.status,
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in fields],
            request=request,
            extensions={"confide": exchange},
            stream=body,
        )

    def _finish(self, exchange: Exchange) -> list[bytes]:
        parts = exchange.finish()
        self.relay.last_receipt = exchange.receipt
        return parts

    @contextmanager
    def _faults(self, begun: bool) -> Iterator[None]:
        """Name the network's faults; a time-out stays what the HTTP library calls it."""
        try:
            yield
        except self.module.TimeoutException:
            raise
        except self.module.TransportError as fault:
            # Not `from fault`: its text may quote what the gateway sent in clear.
            if begun:
                raise Truncated from None
            raise RelayUnreachable(f"the gateway cannot be reached ({type(fault).__name__})") from None


def _is_stale(refusal: RelayRefused, again: bool) -> bool:
    """A stale key is refused like any unreadable request; one more try with a newer one is allowed."""
    return refusal.status == 400 and not again


@cache
def transports(module: Any) -> tuple[type[Any], type[Any]]:  # noqa: ANN401
    """Make the (sync, async) transports for `module`: httpx2, or httpx of which it is the successor."""

    class Body(module.SyncByteStream):  # type: ignore[misc]
        def __init__(self, first: list[bytes], rest: Iterator[list[bytes]]) -> None:
            self._first, self._rest = first, rest

        def __iter__(self) -> Iterator[bytes]:
            yield from self._first
            for parts in self._rest:
                yield from parts

        def close(self) -> None:
            self._rest.close()  # type: ignore[attr-defined]

    class AsyncBody(module.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, first: list[bytes], rest: AsyncIterator[list[bytes]]) -> None:
            self._first, self._rest = first, rest

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for part in self._first:
                yield part
            async for parts in self._rest:
                for part in parts:
                    yield part

        async def aclose(self) -> None:
            await self._rest.aclose()  # type: ignore[attr-defined]

    class Transport(_Sealed, module.BaseTransport):  # type: ignore[misc]
        """Seals every request of a sync client; refuses what it cannot seal."""

        def handle_request(self, request: Any) -> Any:  # noqa: ANN401
            request.read()
            call, authorization = self._call(request)
            exchange, response = self._send(call, authorization, request)
            events = self._events(exchange, response)
            first: list[bytes] = []
            for parts in events:
                first += parts
                if exchange.streamed:
                    return self._answer(exchange, request, Body(first, events))
            return self._answer(exchange, request, Body(first, events), length=sum(map(len, first)))

        def _send(self, call: Call, authorization: str | None, request: Any, again: bool = False) -> Any:  # noqa: ANN401
            self.relay.ready(authorization)
            exchange = self.relay.seal(call)
            with self._faults(begun=False):
                response = self._pool(module.HTTPTransport).handle_request(
                    self._outer(exchange, authorization, request)
                )
            try:
                exchange.answered(response.status_code, response.headers.get("content-type", ""))
            except RelayRefused as refusal:
                response.close()
                if _is_stale(refusal, again) and self.relay.replace(exchange.keyset_digest, authorization):
                    return self._send(call, authorization, request, again=True)
                raise
            return exchange, response

        def _events(self, exchange: Exchange, response: Any) -> Iterator[list[bytes]]:  # noqa: ANN401
            try:
                with self._faults(begun=True):
                    for data in response.stream:
                        yield exchange.push(data)
                yield self._finish(exchange)
            finally:
                response.close()

        def close(self) -> None:
            if self._inner is not None:
                self._inner.close()

    class AsyncTransport(_Sealed, module.AsyncBaseTransport):  # type: ignore[misc]
        """Seals every request of an async client; verification runs in a worker thread."""

        async def handle_async_request(self, request: Any) -> Any:  # noqa: ANN401
            await request.aread()
            call, authorization = self._call(request)
            exchange, response = await self._send(call, authorization, request)
            events = self._events(exchange, response)
            first: list[bytes] = []
            async for parts in events:
                first += parts
                if exchange.streamed:
                    return self._answer(exchange, request, AsyncBody(first, events))
            return self._answer(exchange, request, AsyncBody(first, events), length=sum(map(len, first)))

        async def _send(self, call: Call, authorization: str | None, request: Any, again: bool = False) -> Any:  # noqa: ANN401
            await _off_loop(self.relay.ready, authorization)
            exchange = self.relay.seal(call)
            with self._faults(begun=False):
                response = await self._pool(module.AsyncHTTPTransport).handle_async_request(
                    self._outer(exchange, authorization, request)
                )
            try:
                exchange.answered(response.status_code, response.headers.get("content-type", ""))
            except RelayRefused as refusal:
                await response.aclose()
                if _is_stale(refusal, again) and await _off_loop(
                    self.relay.replace, exchange.keyset_digest, authorization
                ):
                    return await self._send(call, authorization, request, again=True)
                raise
            return exchange, response

        async def _events(self, exchange: Exchange, response: Any) -> AsyncIterator[list[bytes]]:  # noqa: ANN401
            try:
                with self._faults(begun=True):
                    async for data in response.stream:
                        yield exchange.push(data)
                yield self._finish(exchange)
            finally:
                await response.aclose()

        async def aclose(self) -> None:
            if self._inner is not None:
                await self._inner.aclose()

    Transport.module = AsyncTransport.module = module
    return Transport, AsyncTransport


async def _off_loop(function: Any, *args: Any) -> Any:  # noqa: ANN401
    return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True)


Transport, AsyncTransport = transports(httpx2)
