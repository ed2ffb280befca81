"""One enclave in process: a scripted engine, a device that signs nothing, and a client that seals by hand."""

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from confide_attestation.evidence import (
    CpuEvidence,
    CpuKind,
    Endorsements,
    GpuEvidence,
    SnpEndorsements,
    parse_bundle,
)
from confide_attestation.simulated.nvidia import SimulatedDevice
from confide_enclave.app import EnclaveApp
from confide_enclave.attester import Quote
from confide_enclave.keys import KeysetHolder
from confide_enclave.node import assemble
from confide_enclave.settings import EnclaveSettings
from confide_protocol import bhttp, hpke, labels
from confide_protocol.keyconfig import parse_key_configs
from confide_protocol.keyset import Keyset, Manifest
from confide_protocol.ohttp import RequestSealer, ResponseOpener
from confide_protocol.receipt import ReceiptClaims, verify_receipt
from confide_protocol.shape import shape_named
from confide_protocol.sse import EventSplitter
from confide_protocol.statement import parse_statement

from tests.fakes.engine import ScriptedEngine

SECRET = b"s" * 32
NOW = 1_760_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class FakeDevice:
    """Reports that carry the right report data and no signature, and real ones of GPUs; counts its quotes."""

    platform = "simulated-sev-snp"
    simulated = True

    def __init__(
        self, fault: Exception | None = None, gpus: tuple[SimulatedDevice, ...] = (), wait_s: float = 0.0
    ) -> None:
        self.quotes = 0
        self.fault = fault
        self.devices = gpus
        self.wait_s = wait_s

    async def gpus(self, nonce: bytes) -> tuple[GpuEvidence, ...]:
        return tuple(GpuEvidence(gpu.arch, gpu.report(nonce), gpu.chain) for gpu in self.devices)

    async def quote(self, statement: bytes) -> Quote:
        self.quotes += 1
        await asyncio.sleep(self.wait_s)
        if self.fault:
            raise self.fault
        report = bytes(0x50) + hashlib.sha512(statement).digest() + bytes(1184 - 0x90)
        return Quote(
            CpuEvidence(CpuKind.SEV_SNP, report),
            endorsements=Endorsements(snp=SnpEndorsements(b"vek", b"ask", b"ark")),
        )


@dataclass
class HttpAnswer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: list[bytes] = field(default_factory=list)
    ended: bool = False


class Node:
    """The application and everything a test wants to reach into."""

    def __init__(
        self, engine: ScriptedEngine | None = None, device: FakeDevice | None = None, **settings: Any
    ) -> None:
        self.engine = engine or ScriptedEngine()
        self.device = device or FakeDevice()
        self.clock = Clock()
        tree = {
            "gateway_secret_file": "x",
            "platform": "simulated-sev-snp",
            "device_socket": "x",
            **settings,
        }
        self.settings = EnclaveSettings.model_validate(tree)
        self.app: EnclaveApp
        self.holder: KeysetHolder
        self.manifest: Manifest
        self.app, self.holder, self.manifest = assemble(
            self.settings,
            [self.engine],
            self.device,
            SECRET,
            clock=self.clock,
            random=os.urandom,
        )

    @property
    def keyset(self) -> Keyset:
        return self.holder.current.keyset

    async def call(
        self,
        method: str,
        target: str,
        body: Iterable[bytes] = (b"",),
        headers: dict[str, str] | None = None,
        *,
        secret: bytes | None = SECRET,
        leave_after: int | None = None,
        on_piece: Callable[[HttpAnswer], Awaitable[None]] | None = None,
    ) -> HttpAnswer:
        """Drive the ASGI application; the peer disconnects after `leave_after` pieces of the answer's body."""
        path, _, query = target.partition("?")
        fields = dict(headers or {})
        if secret is not None:
            fields.setdefault("authorization", f"Bearer {secret.decode()}")
        pending = list(body)
        answer, gone = HttpAnswer(), asyncio.Event()

        async def receive() -> dict[str, Any]:
            if pending:
                data = pending.pop(0)
                return {"type": "http.request", "body": data, "more_body": bool(pending)}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            await asyncio.sleep(0)
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
                return
            answer.pieces.append(message.get("body", b""))
            answer.body += message.get("body", b"")
            answer.ended = not message.get("more_body", False)
            if on_piece is not None:
                await on_piece(answer)
            if answer.ended or (leave_after is not None and len(answer.pieces) >= leave_after):
                gone.set()

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in fields.items()],
        }
        await self.app(scope, receive, send)
        return answer

    async def statement_digest(self) -> bytes:
        """Fetch evidence as a client does and return the statement's name."""
        answer = await self.call("GET", f"/evidence?nonce={os.urandom(32).hex()}")
        assert answer.status == 200
        return parse_statement(parse_bundle(answer.body)[0].statement).digest


@dataclass
class Opened:
    """A sealed answer, opened and its receipt verified."""

    status: int
    content_type: str
    body: bytes
    claims: ReceiptClaims
    trailers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[bytes]:
        splitter = EventSplitter()
        return splitter.push(self.body)

    @property
    def text(self) -> str:
        chunks = [json.loads(e[6:]) for e in self.events if e != b"data: [DONE]\n\n"]
        return "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk.get("choices", []))


class Sealed:
    """One request sealed to a node's keyset. `fields` overrides inner headers; None removes one."""

    def __init__(
        self,
        node: Node,
        statement_digest: bytes,
        body: Any = None,
        *,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        shape: str = "bucketed",
        fields: dict[str, str | None] | None = None,
        authority: str = labels.INNER_AUTHORITY,
        pad: bool = True,
        keyset: Keyset | None = None,
    ) -> None:
        self.keyset = keyset or node.keyset
        self.salt = os.urandom(32)
        headers: dict[str, str | None] = {
            labels.FIELD_DATE: formatdate(node.clock(), usegmt=True),
            labels.FIELD_NONCE: os.urandom(32).hex(),
            labels.FIELD_EVIDENCE: statement_digest.hex(),
            labels.FIELD_POLICY: "ab" * 32,
            labels.FIELD_SHAPE: shape,
            labels.FIELD_SALT: self.salt.hex(),
            labels.FIELD_CACHE_KEY: "cd" * 32,
            **(fields or {}),
        }
        self.path, self.method = path, method
        self.plain = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        head = bhttp.RequestHead(
            method, "https", authority, path, tuple((k, v) for k, v in headers.items() if v is not None)
        )
        message = bhttp.encode_head(head) + bhttp.encode_content(self.plain) + bhttp.encode_end()
        if pad and shape == labels.SHAPE_BUCKETED:
            message = shape_named(shape).pad_request(message)
        (config,) = parse_key_configs(self.keyset.ohttp_keys)
        self._sealer = RequestSealer(config, hpke.REQUIRED, os.urandom(32))
        self.message = message
        self.opener: ResponseOpener = self._sealer.response_opener()
        self.header = self._sealer.header

    def whole(self) -> bytes:
        return self.header + self._sealer.seal(self.message, final=True)

    def seal(self, data: bytes, *, final: bool = False) -> bytes:
        return self._sealer.seal(data, final=final)

    @property
    def target(self) -> str:
        return f"/ohttp/{self.keyset.digest.hex()}"

    async def send(self, node: Node, body: Iterable[bytes] | None = None, **options: Any) -> HttpAnswer:
        return await node.call(
            "POST",
            self.target,
            [self.whole()] if body is None else body,
            {"content-type": labels.MEDIA_REQUEST},
            **options,
        )

    def open(self, answer: HttpAnswer) -> Opened:
        """Open a whole answer and verify its receipt; raises what the protocol raises."""
        assert answer.status == 200
        assert answer.headers["content-type"] == labels.MEDIA_RESPONSE
        plaintexts = self.opener.push(answer.body) + self.opener.finish()
        decoder = bhttp.Decoder()
        events = [e for p in plaintexts for e in decoder.push(p)] + decoder.finish()
        head = next(e for e in events if isinstance(e, bhttp.ResponseHead))
        body = b"".join(e.data for e in events if isinstance(e, bhttp.Content))
        trailers = dict(next(e for e in events if isinstance(e, bhttp.Trailers)).fields)
        receipt = _unbase64(trailers[labels.FIELD_RECEIPT])
        claims = verify_receipt(receipt, self.keyset)
        return Opened(head.status, dict(head.fields)["content-type"], body, claims, trailers)


def _unbase64(text: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "the capital of France?"}]}
