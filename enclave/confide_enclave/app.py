"""The ASGI application: who may call, which path, how large and how slow; the session does the rest."""

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import parse_qsl

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import parse_endorsements
from confide_protocol import labels
from confide_protocol.errors import ConfideError, LocalStateError, ProtocolError, Replayed, UnknownKey
from structlog.typing import FilteringBoundLogger

from confide_enclave.attester import QuoteRoom
from confide_enclave.ehbp import Foreign, StaleKey
from confide_enclave.endorsements import MAX_ENDORSEMENTS_BYTES, Shelf
from confide_enclave.errors import Busy, RequestTimeout, RequestTooLarge
from confide_enclave.keys import KeysetHolder
from confide_enclave.made import Made
from confide_enclave.recheck import Recheck
from confide_enclave.session import Session
from confide_enclave.settings import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Fields = tuple[tuple[bytes, bytes], ...]
Answering = Callable[[AsyncIterator[bytes]], Coroutine[None, None, None]]

MAINTENANCE_S: Final = 1.0
HEALTHY: Final = b'{"status":"ok"}'
READY: Final = b'{"status":"ready"}'
TAKEN: Final = b'{"status":"taken"}'
PATH_ENDORSEMENTS: Final = "/endorsements"
MEDIA_CBOR: Final = b"application/cbor"
_HEX_32: Final = re.compile(r"[0-9a-f]{64}")


class ClientLeft(ConfideError):
    """The connection closed, or stopped taking bytes. Nobody is left to answer."""

    code = "client_left"
    reason = "the client left"


class EnclaveApp:
    """Raw ASGI: no framework stands between the socket and the sealed stream."""

    def __init__(
        self,
        session: Session,
        holder: KeysetHolder,
        room: QuoteRoom,
        shelf: Shelf,
        gateway_secret: bytes,
        limits: Limits,
        log: FilteringBoundLogger,
        close: Callable[[], None],
        recheck: Recheck,
        made: Made,
        foreign: Foreign | None = None,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        """`made`: the keysets of this process; `foreign` answers EHBP, None: nothing does."""
        self._session, self._holder, self._room, self._shelf = session, holder, room, shelf
        self._secret_digest = hashlib.sha256(b"Bearer " + gateway_secret).digest()
        self._limits, self._log, self._close, self._recheck = limits, log, close, recheck
        self._made, self._foreign, self._ready = made, foreign, ready
        self._maintenance: asyncio.Task[None] | None = None
        self._slots = Slots(limits.max_concurrent, limits.max_waiting, limits.first_byte_timeout_s)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, Reply(send, self._limits.idle_timeout_s))

    def start(self) -> None:
        """Begin to look after the keys."""
        self._maintenance = asyncio.create_task(self._maintain())

    def stop(self) -> None:
        """Give the answers in progress their grace; what is not done by then ends sealed, as aborted."""
        self._session.deadlines.stop_at(asyncio.get_running_loop().time() + self._limits.shutdown_grace_s)

    def doubt_gpus(self) -> None:
        """Give no evidence until the GPUs have passed the enclave's own check again."""
        self._recheck.doubt()

    async def close(self) -> None:
        """End what was started here, and every wait for evidence; engines are whose they were."""
        if self._maintenance is not None:
            self._maintenance.cancel()
        self._recheck.close()
        await self._room.close()
        self._close()

    async def _maintain(self) -> None:
        """Rotate and drop keys on time, also while nobody calls."""
        digest = b""
        while True:
            self._made.note(self._holder.live)
            with suppress(LocalStateError):
                if digest != (digest := self._holder.current.digest):
                    self._log.info("keyset.live", keyset=digest.hex())
            await asyncio.sleep(MAINTENANCE_S)

    async def _serve(self, scope: Message, receive: Receive, reply: "Reply") -> None:
        started_s = time.monotonic()
        path, template = scope["path"], path_template(scope["path"])
        error = ""
        try:
            if path == labels.PATH_HEALTH:
                await self._state(scope, reply, HEALTHY)
            elif path == labels.PATH_READY:
                await self._state(scope, reply, READY if self._ready() else None)
            elif not self._is_gateway(scope):
                await reply.problem(401)
            elif path == labels.PATH_EVIDENCE:
                await self._evidence(scope, reply)
            elif path == labels.PATH_KEYS:
                await self._keys(scope, reply)
            elif path == PATH_ENDORSEMENTS:
                await self._endorsements(scope, receive, reply)
            elif path.startswith(labels.PATH_OHTTP):
                await self._sealed(scope, receive, reply)
            elif self._foreign is not None and path.startswith(labels.PATH_API):
                await self._ehbp(self._foreign, scope, receive, reply)
            else:
                await reply.problem(404)
        except ClientLeft:
            error = ClientLeft.code
        except Exception as fault:
            error = type(fault).__name__
            if reply.status:
                raise  # the stream is cut: the client sees that its end is missing
            await reply.problem(503)
        finally:
            self._log.info(
                "request",
                path=template,
                status=reply.status,
                duration_ms=round((time.monotonic() - started_s) * 1000, 1),
                **({"error": error} if error else {}),
            )

    def _is_gateway(self, scope: Message) -> bool:
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        given = hashlib.sha256(shown[0] if len(shown) == 1 else b"").digest()
        return hmac.compare_digest(given, self._secret_digest)

    async def _state(self, scope: Message, reply: "Reply", body: bytes | None) -> None:
        """Tell whether the enclave lives, or whether it could answer now: 503 while no engine of it is there."""
        if scope["method"] != "GET":
            await reply.problem(405)
        elif body is None:
            await reply.problem(503)
        else:
            await reply.whole(200, b"application/json", body)

    async def _keys(self, scope: Message, reply: "Reply") -> None:
        if scope["method"] != "GET":
            await reply.problem(405)
            return
        await reply.whole(200, labels.MEDIA_KEYS.encode(), self._holder.current.keyset.ohttp_keys)

    async def _evidence(self, scope: Message, reply: "Reply") -> None:
        if scope["method"] != "GET":
            await reply.problem(405)
            return
        asked = read_freshness(scope["query_string"])
        if asked is None:
            await reply.problem(400)
            return
        try:
            self._recheck.demand()
            bundle = await self._room.evidence(asked[0], is_epoch=asked[1])
        except ConfideError as fault:
            self._log.warning("evidence.failed", code=fault.code, reason=str(fault))
            await reply.problem(fault.http_status)
            return
        self._made.note(self._holder.live)
        await reply.whole(200, labels.MEDIA_EVIDENCE.encode(), bundle, (self._made.field,))

    async def _endorsements(self, scope: Message, receive: Receive, reply: "Reply") -> None:
        """Take endorsements from the gateway. They are offered with the evidence and never believed here."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if scope["method"] != "POST":
            await reply.problem(405)
        elif headers.get(b"content-type") != MEDIA_CBOR or b"content-encoding" in headers:
            await reply.problem(415)
        else:
            try:
                async with self._slots.hold():
                    pieces = self._body(receive, asyncio.Event(), MAX_ENDORSEMENTS_BYTES)
                    data = b"".join([piece async for piece in pieces])
                self._shelf.take(parse_endorsements(data))
            except EvidenceMalformed:
                await reply.problem(400)
            except (Busy, RequestTimeout, RequestTooLarge) as fault:
                await reply.problem(503 if isinstance(fault, Busy) else fault.http_status)
            else:
                await reply.whole(200, b"application/json", TAKEN)

    async def _sealed(self, scope: Message, receive: Receive, reply: "Reply") -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        digest_hex = scope["path"].removeprefix(labels.PATH_OHTTP)
        if scope["method"] != "POST":
            await reply.problem(405)
        elif headers.get(b"content-type") != labels.MEDIA_REQUEST.encode() or b"content-encoding" in headers:
            await reply.problem(415)
        else:

            async def answer(body: AsyncIterator[bytes]) -> None:
                generation = self._holder.find(bytes.fromhex(digest_hex)) if _HEX_32.fullmatch(digest_hex) else None
                if generation is None:
                    raise UnknownKey
                await self._session.run(generation, body, _account(headers), reply.sealed)

            await self._within_limits(answer, headers, receive, reply)

    async def _ehbp(self, foreign: Foreign, scope: Message, receive: Receive, reply: "Reply") -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = scope["path"]
        enc_hex = headers.get(labels.FIELD_EHBP_KEY.encode(), b"").decode("latin-1")
        if scope["method"] == "GET" and not enc_hex:
            said = await foreign.clear(path, _account(headers))
            await reply.whole(said.status, said.content_type.encode(), b"".join(said.first))
        elif scope["method"] != "POST":
            await reply.problem(405)
        elif not enc_hex or b"content-encoding" in headers:
            await reply.problem(415)
        elif not _HEX_32.fullmatch(enc_hex):
            await reply.problem(400)
        else:

            async def answer(body: AsyncIterator[bytes]) -> None:
                enc = bytes.fromhex(enc_hex)
                await foreign.run(path, enc, body, _account(headers), reply.begin, reply.sealed)

            await self._within_limits(answer, headers, receive, reply)

    async def _within_limits(
        self, answer: Answering, headers: dict[bytes, bytes], receive: Receive, reply: "Reply"
    ) -> None:
        """Have `answer` read the body and reply; what fails before the boundary is told by the status alone."""
        if int(headers.get(b"content-length", b"0")) > self._limits.max_request_bytes:
            await reply.problem(413)
            return
        try:
            async with self._slots.hold():
                await self._watched(answer, receive, reply)
        except Busy:
            await reply.problem(503)
        except (RequestTimeout, RequestTooLarge, StaleKey, Replayed) as fault:
            await reply.problem(fault.http_status)
        except ProtocolError:
            await reply.problem(400)

    async def _watched(self, answer: Answering, receive: Receive, reply: "Reply") -> None:
        """Answer for as long as the peer stays. Raises: what `answer` raises, ClientLeft."""
        body_read = asyncio.Event()
        work = asyncio.create_task(answer(self._body(receive, body_read, self._limits.max_request_bytes)))
        watch = asyncio.create_task(_disconnected(receive, body_read))
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left = not work.done()
            work.cancel()
            watch.cancel()
            outcome, _ = await asyncio.gather(work, watch, return_exceptions=True)
        if left:
            raise ClientLeft
        if outcome is not None:
            raise outcome
        await reply.end()

    async def _body(self, receive: Receive, body_read: asyncio.Event, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield the request's bytes within the limits. Raises: RequestTimeout, RequestTooLarge, ClientLeft."""
        loop, limits = asyncio.get_running_loop(), self._limits
        end_s = loop.time() + limits.request_timeout_s
        wait_s, size = limits.first_byte_timeout_s, 0
        while True:
            try:
                async with asyncio.timeout_at(min(end_s, loop.time() + wait_s)):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeout from None
            if message["type"] == "http.disconnect":
                raise ClientLeft
            data = message.get("body", b"")
            size += len(data)
            if size > max_bytes:
                raise RequestTooLarge
            yield data
            if not message.get("more_body", False):
                body_read.set()
                return
            wait_s = limits.idle_timeout_s


class Slots:
    """So many exchanges at once, so many more waiting for so long; the next one raises Busy."""

    def __init__(self, max_concurrent: int, max_waiting: int, timeout_s: float) -> None:
        self._free = asyncio.Semaphore(max_concurrent)
        self._max_waiting, self._timeout_s = max_waiting, timeout_s
        self._waiting = 0

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        if self._free.locked() and self._waiting >= self._max_waiting:
            raise Busy
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise Busy from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


class Reply:
    """One HTTP response. Every piece awaits the peer: a slow reader slows the engine, a stalled one ends it."""

    def __init__(self, send: Send, stall_timeout_s: float) -> None:
        self._send, self._stall_timeout_s = send, stall_timeout_s
        self.status = 0

    async def problem(self, status: int, more: Fields = ()) -> None:
        await self.whole(status, labels.MEDIA_PROBLEM.encode(), labels.PROBLEMS[status], more)

    async def whole(self, status: int, content_type: bytes, body: bytes, more: Fields = ()) -> None:
        await self._start(status, content_type, (*more, (b"content-length", b"%d" % len(body))))
        await self._put({"type": "http.response.body", "body": body})

    async def begin(self, status: int, content_type: str, nonce: bytes) -> None:
        """Begin an answer of EHBP: its status and type stand in clear."""
        field = labels.FIELD_EHBP_NONCE.encode(), nonce.hex().encode()
        await self._start(status, content_type.encode(), (field,))

    async def sealed(self, data: bytes) -> None:
        if not self.status:
            await self._start(200, labels.MEDIA_RESPONSE.encode(), ((b"incremental", b"?1"),))
        await self._put({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._put({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, content_type: bytes, more: Fields) -> None:
        self.status = status
        headers = [(b"content-type", content_type), (b"cache-control", b"no-store"), *more]
        await self._put({"type": "http.response.start", "status": status, "headers": headers})

    async def _put(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await self._send(message)
        except TimeoutError:
            raise ClientLeft from None


async def _disconnected(receive: Receive, body_read: asyncio.Event) -> None:
    await body_read.wait()
    while (await receive())["type"] != "http.disconnect":
        pass


def _account(headers: dict[bytes, bytes]) -> str:
    return headers.get(labels.FIELD_ACCOUNT.encode(), b"").decode("latin-1")[:128]


def path_template(path: str) -> str:
    """The path as a log may show it: what the caller wrote into it is left out."""
    if path.startswith(labels.PATH_API):
        return labels.PATH_API + "{path}"
    if path.startswith(labels.PATH_OHTTP):
        return labels.PATH_OHTTP + "{keyset}"
    known = (labels.PATH_HEALTH, labels.PATH_READY, labels.PATH_EVIDENCE, labels.PATH_KEYS, PATH_ENDORSEMENTS)
    return path if path in known else "other"


def read_freshness(query: bytes) -> tuple[bytes, bool] | None:
    """Read what evidence shall answer, and whether it is an epoch: exactly one of the two, 32 bytes in hex."""
    try:
        pairs = parse_qsl(query.decode("ascii"), strict_parsing=True, max_num_fields=1)
    except ValueError:
        return None
    match pairs:
        case [("nonce" | "epoch" as name, value)] if _HEX_32.fullmatch(value):
            return bytes.fromhex(value), name == "epoch"
    return None
