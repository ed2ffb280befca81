"""The hot path: sealed bytes up, sealed bytes down, as they come. Nothing here parses, re-frames or keeps them."""

import asyncio
from collections.abc import AsyncIterator

from confide_protocol import labels
from confide_protocol.errors import ConfideError, TooLarge

from confide_gateway import ehbp as ehbp_dialect
from confide_gateway.asgi import Message, Receive, Scope, Send
from confide_gateway.asked import Asked, evidence_query
from confide_gateway.cors import Cors, Fields
from confide_gateway.directory import Directory, Node
from confide_gateway.forward import UpstreamRequest, UpstreamResponse, UpstreamUnreachable
from confide_gateway.limits import Account, Accounts
from confide_gateway.logs import Log
from confide_gateway.metrics import NOBODY, Metrics
from confide_gateway.settings import Limits
from confide_gateway.watch import BodyTimeout, ClientGone, Watch, WatchRoom

# What an enclave's own clear answers may tell a client; every other status becomes 502.
PASSED_STATUSES = frozenset({400, 409, 413, 415, 429, 503})
NO_STORE = (b"cache-control", b"no-store")
ANSWER_FIELDS: dict[str, Fields] = {
    labels.MEDIA_RESPONSE: [(b"content-type", labels.MEDIA_RESPONSE.encode()), (b"incremental", b"?1")],
    labels.MEDIA_EVIDENCE: [(b"content-type", labels.MEDIA_EVIDENCE.encode()), NO_STORE],
    labels.MEDIA_KEYS: [(b"content-type", labels.MEDIA_KEYS.encode()), NO_STORE],
}
_EHBP_KEY = labels.FIELD_EHBP_KEY.encode()
_MEDIA_REQUEST = labels.MEDIA_REQUEST.encode()
EHBP = "ehbp"  # in place of a media type: what a node answers is the API's own


class Refused(ConfideError):
    """The request is answered here, by the constant bytes of `status`, or by a constant JSON `body`."""

    code = "refused"
    reason = "the gateway refused a request"

    def __init__(self, status: int, body: bytes | None = None) -> None:
        super().__init__()
        self.status = status
        self.body = body


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
        self.ehbp_key = b""
        self.fields: tuple[tuple[str, str], ...] | None = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                self.authorization = value
            elif name == b"content-type":
                self.content_type = value
            elif name == b"content-length":
                self.content_length = int(value)
            elif name == b"origin":
                self.origin = value
            elif name == _EHBP_KEY:
                self.ehbp_key = value
        self._cors = cors

    def head(self, status: int, fields: Fields) -> Message:
        """Make the message that begins the answer, and take note that it began."""
        self.started = True
        self.status = status
        if self.origin is not None:
            fields = [*fields, *self._cors.fields(self.origin)]
        return {"type": "http.response.start", "status": status, "headers": fields}

    async def whole(self, status: int, media: bytes, body: bytes, *more: tuple[bytes, bytes]) -> None:
        """Answer with bytes of our own making."""
        fields = [(b"content-type", media), (b"content-length", str(len(body)).encode()), NO_STORE, *more]
        await self.send(self.head(status, fields))
        await self.send({"type": "http.response.body", "body": body})

    async def refuse(self, status: int, body: bytes | None = None) -> None:
        """Answer with constant bytes; once a head went out, leave the answer visibly unfinished instead."""
        if self.started:
            self.cut = True
        elif status == ClientGone.http_status:
            self.status = status
        elif body is not None:
            await self.whole(status, ehbp_dialect.MEDIA_JSON.encode(), body)
        else:
            await self.whole(status, labels.MEDIA_PROBLEM.encode(), labels.PROBLEMS[status])


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
        ehbp: bool = False,
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
        self._ehbp = ehbp
        self._watches = WatchRoom()
        self._time = asyncio.get_running_loop().time

    def serves(self, path: str) -> bool:
        if path.startswith(labels.PATH_OHTTP) or path in (labels.PATH_EVIDENCE, labels.PATH_KEYS):
            return True
        return self._ehbp and ehbp_dialect.serves(path)

    def drain(self) -> None:
        """Refuse new exchanges; `idle` is set once none is under way."""
        self.draining = True
        if not self._metrics.in_flight:
            self.idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = self._time()
        self._metrics.in_flight += 1
        client = Client(scope, receive, send, self._cors)
        evidence = scope["path"] == labels.PATH_EVIDENCE
        account: Account | None = None
        try:
            if client.method == "OPTIONS":
                await send(client.head(204, self._preflight(client)))
                await send({"type": "http.response.body", "body": b""})
            elif scope["path"] == labels.PATH_EHBP_KEYS:
                await self._show_ehbp_key(client)
            else:
                account = self._admit(client, evidence=evidence)
                if scope["path"].startswith(labels.PATH_API):
                    asked = Asked(self._ask_ehbp(client, scope, account), EHBP)
                else:
                    asked = self._ask(client, scope)
                await self._answer(client, account, asked)
        except Refused as fault:
            await client.refuse(fault.status, fault.body)
        except ConfideError as fault:
            await client.refuse(fault.http_status)
        except Exception as fault:  # noqa: BLE001 - its text may hold anything: the type is all that is logged
            self._log.error("relay_broke", error=type(fault).__name__)
            await client.refuse(502)
        finally:
            if account is not None:
                account.release(evidence=evidence)
            self._ended(client, self._time() - began)

    def _ended(self, client: Client, seconds: float) -> None:
        self._metrics.in_flight -= 1
        if self.draining and not self._metrics.in_flight:
            self.idle.set()
        self._metrics.exchange(client.account, client.status, seconds, cut=client.cut)
        if self._log_requests:
            self._log.info(
                "exchange", account=client.account, status=client.status, cut=client.cut, seconds=round(seconds, 4)
            )

    def _preflight(self, client: Client) -> Fields:
        fields = self._cors.preflight(client.origin)
        if fields is None:
            raise Refused(405)
        return fields

    def _admit(self, client: Client, *, evidence: bool) -> Account:
        """Find the caller's account and take one of its places, which the caller of this gives back."""
        if self.draining:
            raise Refused(503)
        account = self._accounts.authenticate(client.authorization)
        if account is None:
            raise Refused(401)
        client.account = account.label
        if not account.acquire(evidence=evidence):
            raise Refused(429)
        return account

    def _ask(self, client: Client, scope: Scope) -> Asked:
        path: str = scope["path"]
        sealed = path.startswith(labels.PATH_OHTTP)
        if client.method != ("POST" if sealed else "GET"):
            raise Refused(405)
        if sealed:
            if client.content_type != _MEDIA_REQUEST:
                raise Refused(415)
            if client.content_length > self._limits.request_body_bytes:
                raise TooLarge
            return Asked(path, labels.MEDIA_RESPONSE, path[len(labels.PATH_OHTTP) :])
        if path == labels.PATH_KEYS:
            return Asked(path, labels.MEDIA_KEYS)
        query = evidence_query(scope["query_string"])
        if query is None:
            raise Refused(400)
        nonce, digest_hex = query
        return Asked(f"{labels.PATH_EVIDENCE}?nonce={nonce}", labels.MEDIA_EVIDENCE, digest_hex)

    async def _show_ehbp_key(self, client: Client) -> None:
        """Show the key of the node that EHBP's requests go to; its evidence is fetched by its keyset's name."""
        if client.method != "GET":
            raise Refused(405)
        node = self._answering_ehbp()
        assert node.ehbp_key is not None  # noqa: S101 - it was chosen for having one
        assert node.digest_hex is not None  # noqa: S101
        keyset = labels.FIELD_KEYSET.encode(), node.digest_hex.encode()
        await client.whole(200, labels.MEDIA_KEYS.encode(), ehbp_dialect.key_config(node.ehbp_key), keyset)

    def _answering_ehbp(self) -> Node:
        node = self._directory.answering_ehbp()
        if node is None:
            raise Refused(503)
        return node

    def _ask_ehbp(self, client: Client, scope: Scope, account: Account) -> str:
        """Return what to ask a node: sealed by EHBP, or a GET, which EHBP leaves in clear."""
        path = ehbp_dialect.api_path(scope)
        if path is None:
            raise Refused(404)
        if client.method == "GET" and not client.ehbp_key:
            return path
        if client.method != "POST":
            raise Refused(405)
        if not client.ehbp_key:
            raise Refused(ehbp_dialect.CLEAR_BODY_STATUS, ehbp_dialect.CLEAR_BODY)
        if not ehbp_dialect.is_encapsulated_key(client.ehbp_key):
            raise Refused(400)
        if client.content_length > self._limits.request_body_bytes:
            raise TooLarge
        client.fields = (*account.outward, (labels.FIELD_EHBP_KEY, client.ehbp_key.decode("ascii")))
        return path

    async def _answer(self, client: Client, account: Account, asked: Asked) -> None:
        """Choose a node and have it answer, for as long as the client stays."""
        watch = Watch(client.receive, self._limits.request_body_idle_s)
        self._watches.add(watch)
        try:
            request = self._request(client, await client.receive(), watch, asked.path, account)
            # What is about a keyset goes on to the others once, if its node turns out to be another process now.
            for _ in range(2):
                if await self._exchange(client, await self._choose(asked), request, asked):
                    return
            raise Refused(503)
        except asyncio.CancelledError:
            if watch.fault is None:
                raise
            raise watch.fault from None
        finally:
            self._watches.remove(watch)

    async def _choose(self, asked: Asked) -> Node:
        """Choose a node; where none is known to hold the keyset, ask all of them.

        That none has it is the client's fault only where any node is verified. To a question about the keyset it is
        the answer, and given only where it is sure.
        """
        directory = self._directory
        if asked.media is EHBP:
            return self._answering_ehbp()
        node, gone = directory.holding(asked.digest_hex, unready=asked.about is not None), True
        if node is None and asked.about is not None:
            node, gone = await directory.trace(asked.about)
        elif node is None and asked.digest_hex is not None:
            node = await directory.find(asked.digest_hex)
        if node is None:
            raise Refused(400 if gone and asked.digest_hex is not None and directory.ready else 503)
        return node

    async def _exchange(self, client: Client, node: Node, request: UpstreamRequest, asked: Asked) -> bool:
        """Pass the body of a sealed answer on; a clear one is replaced by constant bytes, its own are not read.

        False: nothing was passed, for the node says that it never made the keyset that it was asked about.
        """
        response: UpstreamResponse | None = None
        node.in_flight += 1
        try:
            response = await node.pool.send(request)
            if asked.media is EHBP:
                fields = await self._ehbp_fields(client, node, response)
            elif response.status != 200 or response.content_type != asked.media:
                raise Refused(response.status if response.status in PASSED_STATUSES else 502)
            elif asked.about is not None and self._directory.disowned(node, asked.about, response.keysets):
                return False
            else:
                fields = ANSWER_FIELDS[asked.media]
            send = client.send
            await send(client.head(response.status, fields))
            more = True
            while more:
                data = await response.read()
                more = not response.ended
                await send({"type": "http.response.body", "body": data, "more_body": more})
        except UpstreamUnreachable:
            self._directory.suspect(node)
            raise
        else:
            return True
        finally:
            node.in_flight -= 1
            if response is not None:
                await response.close()

    async def _ehbp_fields(self, client: Client, node: Node, response: UpstreamResponse) -> Fields:
        """Return the head of an answer to pass on. One to a POST that is not sealed is replaced like all others."""
        fields = ehbp_dialect.answer_fields(response)
        if fields is not None and bool(response.ehbp_nonce) is (client.method == "POST"):
            return fields
        if response.status == ehbp_dialect.STALE_KEY:
            # The client fetches the key next: it must be the one that this node holds now.
            await self._directory.renew(node)
            raise Refused(response.status)
        if response.status == ehbp_dialect.TURNED_OFF:
            await self._directory.renew(node)
            raise Refused(503)
        raise Refused(response.status if response.status in PASSED_STATUSES else 502)

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
        return UpstreamRequest("POST", path, client.fields or account.outward_sealed, body, rest)

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
