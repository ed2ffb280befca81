"""The hot path: sealed bytes up, sealed bytes down, as they come. Nothing here parses, re-frames or keeps them."""

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl

from confide_protocol import labels
from confide_protocol.errors import ConfideError, TooLarge

from confide_gateway.asgi import Message, Receive, Scope, Send
from confide_gateway.cors import Cors, Fields
from confide_gateway.directory import Directory, Node
from confide_gateway.forward import UpstreamRequest, UpstreamResponse, UpstreamUnreachable
from confide_gateway.limits import Account, Accounts
from confide_gateway.logs import Log
from confide_gateway.metrics import NOBODY, Metrics
from confide_gateway.settings import Limits
from confide_gateway.watch import BodyTimeout, ClientGone, Watch, WatchRoom

# What an enclave's own clear answers may tell a client; every other status becomes 502.
PASSED_STATUSES = frozenset({400, 413, 415, 429, 503})
NO_STORE = (b"cache-control", b"no-store")
INCREMENTAL = (b"incremental", b"?1")
_HEX_32 = re.compile(r"[0-9a-f]{64}")


class Client:
    """One request's header fields that matter here, and what was answered to it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, cors: Cors) -> None:
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        self.account = NOBODY
        self.status = 0
        self.started = False
        self.cut = False
        self.authorization: bytes | None = None
        self.content_type = b""
        self.content_length = 0
        self.origin: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                self.authorization = value
            elif name == b"content-type":
                self.content_type = value
            elif name == b"content-length":
                self.content_length = int(value)
            elif name == b"origin":
                self.origin = value
        self._cors = cors

    async def start(self, status: int, fields: Fields) -> None:
        self.started = True
        self.status = status
        fields = [*fields, *self._cors.fields(self.origin)]
        await self.send({"type": "http.response.start", "status": status, "headers": fields})

    async def refuse(self, status: int) -> None:
        """Answer with constant bytes; once a head went out, leave the answer visibly unfinished instead."""
        if self.started:
            self.cut = True
        elif status == ClientGone.http_status:
            self.status = status
        else:
            body = labels.PROBLEMS[status]
            length = str(len(body)).encode()
            await self.start(
                status, [(b"content-type", labels.MEDIA_PROBLEM.encode()), (b"content-length", length), NO_STORE]
            )
            await self.send({"type": "http.response.body", "body": body})


class Relay:
    """The ASGI application of the three paths that reach an enclave."""

    def __init__(
        self,
        directory: Directory,
        accounts: Accounts,
        cors: Cors,
        limits: Limits,
        metrics: Metrics,
        log: Log,
        *,
        log_requests: bool,
    ) -> None:
        self.draining = False
        self.idle = asyncio.Event()
        self._directory = directory
        self._accounts = accounts
        self._cors = cors
        self._limits = limits
        self._metrics = metrics
        self._log = log
        self._log_requests = log_requests
        self._watches = WatchRoom()
        self._time = asyncio.get_running_loop().time

    @staticmethod
    def serves(path: str) -> bool:
        return path.startswith(labels.PATH_OHTTP) or path in (labels.PATH_EVIDENCE, labels.PATH_KEYS)

    def drain(self) -> None:
        """Refuse new exchanges; `idle` is set once none is under way."""
        self.draining = True
        if not self._metrics.in_flight:
            self.idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = self._time()
        metrics = self._metrics
        metrics.in_flight += 1
        client = Client(scope, receive, send, self._cors)
        try:
            await self._serve(client, scope)
        except ConfideError as fault:
            await client.refuse(fault.http_status)
        except Exception as fault:  # noqa: BLE001 - its text may hold anything: the type is all that is logged
            self._log.error("relay_broke", error=type(fault).__name__)
            await client.refuse(502)
        finally:
            metrics.in_flight -= 1
            if self.draining and not metrics.in_flight:
                self.idle.set()
            seconds = self._time() - began
            metrics.exchange(client.account, client.status, seconds, cut=client.cut)
            if self._log_requests:
                self._log.info(
                    "exchange",
                    account=client.account,
                    status=client.status,
                    cut=client.cut,
                    seconds=round(seconds, 4),
                )

    async def _serve(self, client: Client, scope: Scope) -> None:
        if client.method == "OPTIONS":
            fields = self._cors.preflight(client.origin)
            if fields is None:
                return await client.refuse(405)
            await client.start(204, fields)
            return await client.send({"type": "http.response.body", "body": b""})
        if self.draining:
            return await client.refuse(503)
        account = self._accounts.authenticate(client.authorization)
        if account is None:
            return await client.refuse(401)
        client.account = account.label
        if not account.acquire():
            return await client.refuse(429)
        try:
            await self._route(client, scope, account)
        finally:
            account.release()
        return None

    async def _route(self, client: Client, scope: Scope, account: Account) -> None:
        path: str = scope["path"]
        if client.method != ("POST" if path.startswith(labels.PATH_OHTTP) else "GET"):
            return await client.refuse(405)
        if path == labels.PATH_EVIDENCE:
            asked = evidence_query(scope["query_string"])
            if asked is None:
                return await client.refuse(400)
            nonce, digest_hex = asked
            path, media = f"{labels.PATH_EVIDENCE}?nonce={nonce}", labels.MEDIA_EVIDENCE
        elif path == labels.PATH_KEYS:
            digest_hex, media = None, labels.MEDIA_KEYS
        else:
            if client.content_type != labels.MEDIA_REQUEST.encode():
                return await client.refuse(415)
            digest_hex, media = path[len(labels.PATH_OHTTP) :], labels.MEDIA_RESPONSE
        directory = self._directory
        node = directory.least_loaded() if digest_hex is None else await directory.find(digest_hex)
        if node is None:
            return await client.refuse(400 if digest_hex is not None and directory.ready else 503)
        node.in_flight += 1
        try:
            await self._exchange(client, node, path, account, media)
        finally:
            node.in_flight -= 1
        return None

    async def _exchange(self, client: Client, node: Node, path: str, account: Account, media: str) -> None:
        limits = self._limits
        if client.content_length > limits.request_body_bytes:
            raise TooLarge
        watch = Watch(client.receive, limits.request_body_idle_s)
        self._watches.add(watch)
        response: UpstreamResponse | None = None
        try:
            message = await client.receive()
            response = await node.pool.send(self._request(client, message, watch, path, account))
            await self._answer(client, response, media)
        except UpstreamUnreachable:
            self._directory.suspect(node)
            raise
        except asyncio.CancelledError:
            if watch.fault is None:
                raise
            raise watch.fault from None
        finally:
            self._watches.remove(watch)
            if response is not None:
                await response.close()

    def _request(
        self, client: Client, message: Message, watch: Watch, path: str, account: Account
    ) -> UpstreamRequest:
        if message["type"] == "http.disconnect":
            raise ClientGone
        body, more = message.get("body", b""), message.get("more_body", False)
        if len(body) > self._limits.request_body_bytes:
            raise TooLarge
        watch.body(complete=not more)
        if client.method == "GET":
            if body or more:
                raise TooLarge
            return UpstreamRequest("GET", path, account.outward)
        rest = self._rest(client.receive, len(body), watch) if more else None
        return UpstreamRequest("POST", path, account.outward_sealed, body, rest)

    async def _rest(self, receive: Receive, taken: int, watch: Watch) -> AsyncIterator[bytes]:
        limits = self._limits
        deadline = self._time() + limits.request_body_s
        more = True
        while more:
            try:
                async with asyncio.timeout_at(min(deadline, self._time() + limits.request_body_idle_s)):
                    message = await receive()
            except TimeoutError:
                raise BodyTimeout from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            taken += len(piece)
            if taken > limits.request_body_bytes:
                raise TooLarge
            more = message.get("more_body", False)
            if not more:
                watch.body(complete=True)
            yield piece

    async def _answer(self, client: Client, response: UpstreamResponse, media: str) -> None:
        """Pass the body of a sealed answer on; a clear one is replaced by constant bytes, its own are not read."""
        if response.status != 200 or response.content_type != media:
            return await client.refuse(response.status if response.status in PASSED_STATUSES else 502)
        await client.start(200, [(b"content-type", media.encode()), INCREMENTAL, NO_STORE])
        send = client.send
        more = True
        while more:
            data = await response.read()
            more = not response.ended
            await send({"type": "http.response.body", "body": data, "more_body": more})
        return None


def evidence_query(query: bytes) -> tuple[str, str | None] | None:
    """Read `nonce` and, if given, `keyset`: 32 bytes each in lower-case hex. None for anything else."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=2)
    except ValueError:
        return None
    asked = dict(pairs)
    if len(asked) != len(pairs) or not {"nonce"} <= set(asked) <= {"nonce", "keyset"}:
        return None
    if not all(_HEX_32.fullmatch(value) for value in asked.values()):
        return None
    return asked["nonce"], asked.get("keyset")
