"""The proxy as an ASGI application: plain requests in, sealed ones out, verified answers back."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2
from confide_protocol.errors import ConfideError, TooLarge

from confide.answer import is_events
from confide.proxy import page
from confide.proxy.guard import Guard, Refused
from confide.proxy.refusals import body_of, event_of, may_retry, status_of
from confide.relay import Relay
from confide.transport import AsyncTransport

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PAGE_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


@dataclass(frozen=True)
class Bounds:
    """What the proxy's own callers may cost; of the way to the gateway see `confide.Limits`."""

    max_in_flight: int = 256
    head_timeout_s: float = 15.0
    body_timeout_s: float = 60.0
    answer_timeout_s: float = 600.0
    stop_grace_s: float = 30.0
    keep_alive_s: int = 15
    max_head_bytes: int = 64 << 10
    kept_receipts: int = 20


class Cut(Exception):
    """An answer that began cannot be ended well: its connection is closed without an end."""


class ProxyApp:
    """Make it in the server's process; it serves one event loop."""

    def __init__(self, relay: Relay, guard: Guard, bounds: Bounds, report: Callable[[str], None]) -> None:
        self.relay, self.bounds = relay, bounds
        # For showing alone: claims and codes. No prompt or answer outlives its request here.
        self.receipts: deque[dict[str, Any]] = deque(maxlen=bounds.kept_receipts)
        self.last_fault: tuple[str, str] | None = None
        self.in_flight = self.answered = self.refused = 0
        self.stopping = False
        self._guard, self._report = guard, report
        self._transport = AsyncTransport(relay.url, relay=relay)
        wait_s = bounds.answer_timeout_s
        self._timeout = {"connect": relay.limits.connect_timeout_s, "read": wait_s, "write": wait_s, "pool": wait_s}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise Cut
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answer = _Answer(send)
        try:
            self._guard.check_place(headers)
            if scope["raw_path"].startswith(b"/v1/"):
                await self._forward(scope, headers, receive, answer)
            else:
                media, body = self._page(scope["method"], scope["path"], known=self._guard.knows(headers))
                await answer.whole(200, media, body, PAGE_HEADERS)
        except Cut:
            raise
        except Exception as fault:  # noqa: BLE001 - whatever fails is told to the caller, in words of ours
            await self._refuse(answer, fault)

    def _page(self, method: str, path: str, *, known: bool) -> tuple[str, bytes]:
        if path not in page.PAGES:
            raise Refused(404, "not_found", "The API is below /v1; the status page is at /.")
        if method not in ("GET", "HEAD"):
            raise Refused(405, "method_not_allowed", "This page takes GET alone.")
        return page.PAGES[path](self, known)

    async def _refuse(self, answer: "_Answer", fault: Exception) -> None:
        self.refused += 1
        if isinstance(fault, ConfideError):
            if not isinstance(fault, Refused):
                self.last_fault = fault.code, str(fault)
            self._report(f"{body_of(fault)['error']['code']}: {fault}")
        else:
            self._report(f"{type(fault).__name__}")
        if answer.events:
            with suppress(OSError):
                await answer.more(event_of(fault))
        if answer.began:
            raise Cut
        retry = b"true" if may_retry(fault) else b"false"
        body = json.dumps(body_of(fault)).encode()
        await answer.whole(status_of(fault), "application/json", body, ((b"x-should-retry", retry),))

    async def _forward(self, scope: Message, headers: dict[str, str], receive: Receive, answer: "_Answer") -> None:
        self._guard.check_token(headers)
        if self.stopping:
            raise Refused(503, "shutting_down", "The proxy is stopping.", retry=True)
        if self.in_flight >= self.bounds.max_in_flight:
            raise Refused(503, "capacity_exceeded", "The proxy has no room for another request.", retry=True)
        self.in_flight += 1
        try:
            body = await self._body(receive)
            work = asyncio.create_task(self._exchange(scope, body, answer))
            watch = asyncio.create_task(_left(receive))
            try:
                await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            finally:
                watch.cancel()
                if not work.done():
                    work.cancel()  # the enclave notices, and stops the engine
            with suppress(asyncio.CancelledError):
                await work
        finally:
            self.in_flight -= 1

    async def _exchange(self, scope: Message, body: bytes, answer: "_Answer") -> None:
        response = await self._transport.handle_async_request(self._request(scope, body))
        try:
            fields = [(name, value) for name, value in response.headers.raw if name.lower() != b"date"]
            await answer.begin(response.status_code, fields)
            pieces: AsyncIterator[bytes] = aiter(response.stream)
            async for piece in pieces:
                await answer.more(piece)
            receipt = response.extensions["confide"].receipt
            if receipt is not None:
                self.receipts.appendleft(receipt.as_dict())
            self.relay.last_receipt = None  # it holds the words of the exchange
            self.answered += 1
            await answer.end()
        finally:
            await response.aclose()

    def _request(self, scope: Message, body: bytes) -> httpx2.Request:
        query = scope["query_string"]
        target = scope["raw_path"].partition(b"?")[0] + (b"?" + query if query else b"")
        own = bool(self.relay.authorize(None))
        fields = [
            (name, value)
            for name, value in scope["headers"]
            if name not in (b"host", b"content-length", b"transfer-encoding")
            and not (own and name == b"authorization")
        ]
        return httpx2.Request(
            scope["method"],
            self.relay.url + target.decode("ascii", "replace"),
            headers=fields,
            content=body,
            extensions={"timeout": self._timeout},
        )

    async def _body(self, receive: Receive) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self.bounds.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Cut
                    body += message.get("body", b"")
                    if len(body) > self.relay.limits.max_request_bytes:
                        raise TooLarge("the request is larger than the proxy's limit; see --max-request-bytes")
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Refused(408, "request_timeout", "The request came too slowly.") from None


class _Answer:
    """What was answered so far to one request."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.began = self.events = False

    async def whole(self, status: int, media: str, body: bytes, more: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        length = b"%d" % len(body)
        await self.begin(status, [(b"content-type", media.encode()), (b"content-length", length), *more])
        await self.more(body)
        await self.end()

    async def begin(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.began = True
        media = next((value for name, value in fields if name.lower() == b"content-type"), b"")
        self.events = is_events(media.decode("latin-1"))
        await self._send({"type": "http.response.start", "status": status, "headers": fields})

    async def more(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
