"""Transports for httpx2 and httpx: plain OpenAI requests go in, sealed ones go out, verified answers come back.

    client = openai.OpenAI(base_url="https://gateway/v1", api_key=…,
                           http_client=httpx2.Client(transport=Transport("https://gateway", policy="policy.toml")))

`transports(httpx)` gives the same for httpx; `confide.verified_transport` fits both. The answer's
`extensions["confide"]` is its Exchange; `.receipt` is set once the answer has ended well. A request's
`extensions={"confide": {"policy": …, "shape": …}}` narrows what holds for it alone. What is sent again, and when,
stands in `confide.delivery`.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import anyio
import anyio.to_thread
import httpx2
from confide_protocol.errors import LocalStateError, RelayUnreachable, Truncated

from confide.delivery import Delivery
from confide.fetch import why
from confide.pools import Pools
from confide.process import demand_same, forks
from confide.relay import PolicySource, Relay
from confide.retries import COUNT, RETRIED, Ends
from confide.session import Exchange, Receipt
from confide.views import Attestation

# What an answer's length and framing are is for the HTTP library to say, once the seal is off.
_UNSHOWN = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"})
_TERMS = frozenset({"policy", "shape"})


class Verified:
    """What every sealed way in knows beyond its library."""

    relay: Relay

    @property
    def attestation(self) -> Attestation | None:
        """The latest appraisal that passed, for showing; None before the first request."""
        return self.relay.attestation

    @property
    def last_receipt(self) -> Receipt | None:
        """The verified receipt of the answer that ended last, over all threads and tasks."""
        return self.relay.last_receipt


class _Sealed(Verified):
    """What both transports share: the relay and the shape of outer requests and inner answers."""

    module: Any
    asynchronous: bool

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
        self._pools = Pools(self._make)
        # The loop's own threads are the application's.
        self._threads = Pools(lambda: anyio.CapacityLimiter(self.relay.limits.max_waiting_threads))
        self._ends = Ends()
        # One path for each keyset, and slow to parse.
        self._url = lru_cache(maxsize=8)(lambda path: self.module.URL(self.relay.url + path))

    def _make(self) -> Any:  # noqa: ANN401
        limits = self.module.Limits(
            max_connections=self.relay.limits.max_connections,
            max_keepalive_connections=self.relay.limits.max_idle_connections,
        )
        kind = self.module.AsyncHTTPTransport if self.asynchronous else self.module.HTTPTransport
        return kind(limits=limits, **self.relay.link.options(self.relay.url))

    def _pool(self) -> Any:  # noqa: ANN401
        return self._pools.of_loop() if self.asynchronous else self._pools.sync()

    def _begin(self, request: Any) -> Delivery:  # noqa: ANN401
        relay = self.relay
        terms = request.extensions.get("confide")
        if terms is not None:
            if not isinstance(terms, dict) or not set(terms) <= _TERMS:
                raise LocalStateError('extensions["confide"] of a request takes "policy" and "shape" alone')
            relay = relay.narrowed(**terms)
        self._ends.demand_first(request)
        url = request.url
        fields = [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw]
        target = url.raw_path.decode("ascii")
        call = relay.call(request.method, (url.scheme, url.host, url.port), target, fields, request.content)
        return Delivery(relay, call, request.headers.get("authorization"))

    def _outer(self, exchange: Exchange, authorization: str | None, request: Any) -> Any:  # noqa: ANN401
        timeout = {key: value for key, value in request.extensions.items() if key == "timeout"}
        return self.module.Request(
            "POST",
            self._url(exchange.path),
            headers=dict(exchange.header_fields) | self.relay.authorize(authorization),
            content=exchange.body,
            extensions=timeout,
        )

    def _answer(self, exchange: Exchange, request: Any, body: Any, *, length: int | None = None) -> Any:  # noqa: ANN401
        assert exchange.head is not None  # noqa: S101 - events come after the head
        fields = [(name, value) for name, value in exchange.head.fields if name not in _UNSHOWN]
        if length is not None:
            fields.append(("content-length", str(length)))
        if COUNT in request.headers and exchange.head.status not in RETRIED:
            fields.append(("x-should-retry", "false"))
        return self.module.Response(
            exchange.head.status,
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in fields],
            request=request,
            extensions={"confide": exchange},
            stream=body,
        )

    def _finish(self, delivery: Delivery, exchange: Exchange) -> list[bytes]:
        parts = exchange.finish()
        self.relay.last_receipt = delivery.relay.last_receipt = exchange.receipt
        return parts

    @contextmanager
    def _noting(self, request: Any, delivery: Delivery) -> Iterator[None]:  # noqa: ANN401
        try:
            yield
        except Exception as fault:
            if delivery.left:
                self._ends.note(request, fault)
            raise

    @contextmanager
    def _sending(self, delivery: Delivery) -> Iterator[None]:
        """Tell `delivery` what kept the answer away; a time-out of the answer stays what the library calls it."""
        try:
            yield
        except self.module.PoolTimeout:
            raise
        except (self.module.ConnectTimeout, self.module.ConnectError) as fault:
            connecting = isinstance(fault, self.module.ConnectTimeout)
            # Not `from fault`: its text may quote what the gateway sent in clear.
            delivery.unsent(fault if connecting else _unreachable(fault))
        except self.module.TimeoutException:
            delivery.timed_out()
            raise
        except self.module.TransportError as fault:
            delivery.broke(_unreachable(fault))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except self.module.TimeoutException:
            raise
        except self.module.TransportError:
            raise Truncated from None


def _unreachable(fault: Exception) -> RelayUnreachable:
    return RelayUnreachable(f"the gateway cannot be reached: {why(fault)}")


@cache
def transports(module: Any) -> tuple[type[Any], type[Any]]:  # noqa: ANN401
    """Make the (sync, async) transports for `module`: httpx2, or httpx of which it is the successor."""

    class Body(module.SyncByteStream):  # type: ignore[misc]
        def __init__(self, first: list[bytes], rest: Iterator[list[bytes]]) -> None:
            self._first, self._rest, self._born = first, rest, forks()

        def __iter__(self) -> Iterator[bytes]:
            demand_same(self._born)
            yield from self._first
            for parts in self._rest:
                yield from parts
                demand_same(self._born)

        def close(self) -> None:
            self._rest.close()  # type: ignore[attr-defined]

    class AsyncBody(module.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, first: list[bytes], rest: AsyncIterator[list[bytes]]) -> None:
            self._first, self._rest, self._born = first, rest, forks()

        async def __aiter__(self) -> AsyncIterator[bytes]:
            demand_same(self._born)
            for part in self._first:
                yield part
            async for parts in self._rest:
                for part in parts:
                    yield part
                demand_same(self._born)

        async def aclose(self) -> None:
            await self._rest.aclose()  # type: ignore[attr-defined]

    class Transport(_Sealed, module.BaseTransport):  # type: ignore[misc]
        """Seals every request of a sync client; refuses what it cannot seal."""

        asynchronous = False

        def handle_request(self, request: Any) -> Any:  # noqa: ANN401
            request.read()
            delivery = self._begin(request)
            with self._noting(request, delivery):
                exchange, response = self._send(delivery, request)
                events = self._events(delivery, exchange, response)
                first: list[bytes] = []
                for parts in events:
                    first += parts
                    if exchange.streamed:
                        break
            length = None if exchange.streamed else sum(map(len, first))
            return self._answer(exchange, request, Body(first, events), length=length)

        def _send(self, delivery: Delivery, request: Any) -> Any:  # noqa: ANN401
            while True:
                exchange, response = delivery.prepare(), None
                if exchange is not None:
                    with self._sending(delivery):
                        outer = self._outer(exchange, delivery.authorization, request)
                        response = self._pool().handle_request(outer)
                if response is not None:
                    try:
                        begins = delivery.answered(response.status_code, response.headers.get("content-type", ""))
                    except BaseException:
                        response.close()
                        raise
                    if begins:
                        return exchange, response
                    response.close()
                time.sleep(delivery.wait_s)

        def _events(self, delivery: Delivery, exchange: Exchange, response: Any) -> Iterator[list[bytes]]:  # noqa: ANN401
            try:
                with self._reading():
                    for data in response.stream:
                        yield exchange.push(data)
                yield self._finish(delivery, exchange)
            finally:
                response.close()

        def close(self) -> None:
            if pool := self._pools.drop():
                pool.close()

    class AsyncTransport(_Sealed, module.AsyncBaseTransport):  # type: ignore[misc]
        """Seals every request of an async client; verification runs in a worker thread."""

        asynchronous = True

        async def handle_async_request(self, request: Any) -> Any:  # noqa: ANN401
            await request.aread()
            delivery = self._begin(request)
            with self._noting(request, delivery):
                exchange, response = await self._send(delivery, request)
                events = self._events(delivery, exchange, response)
                first: list[bytes] = []
                async for parts in events:
                    first += parts
                    if exchange.streamed:
                        break
            length = None if exchange.streamed else sum(map(len, first))
            return self._answer(exchange, request, AsyncBody(first, events), length=length)

        async def _send(self, delivery: Delivery, request: Any) -> Any:  # noqa: ANN401
            while True:
                exchange, response = delivery.prepared(), None
                if exchange is None:
                    exchange = await anyio.to_thread.run_sync(
                        delivery.prepare, abandon_on_cancel=True, limiter=self._threads.of_loop()
                    )
                if exchange is not None:
                    with self._sending(delivery):
                        outer = self._outer(exchange, delivery.authorization, request)
                        response = await self._pool().handle_async_request(outer)
                if response is not None:
                    try:
                        begins = delivery.answered(response.status_code, response.headers.get("content-type", ""))
                    except BaseException:
                        await response.aclose()
                        raise
                    if begins:
                        return exchange, response
                    await response.aclose()
                await anyio.sleep(delivery.wait_s)

        async def _events(
            self,
            delivery: Delivery,
            exchange: Exchange,
            response: Any,  # noqa: ANN401
        ) -> AsyncIterator[list[bytes]]:
            try:
                with self._reading():
                    async for data in response.stream:
                        yield exchange.push(data)
                yield self._finish(delivery, exchange)
            finally:
                await response.aclose()

        async def aclose(self) -> None:
            if pool := self._pools.drop_loop():
                await pool.aclose()

    Transport.module = AsyncTransport.module = module
    return Transport, AsyncTransport


Transport, AsyncTransport = transports(httpx2)
