"""Our servers under measurement and their drivers: python -m tests.bench.sealed_server VARIANT serve | drive READY.

sealed        the enclave as it is: session, API, shape, transcript, receipt; the engine is scripted
bucketed      the same server, asked for the shape that hides sizes
plain         the same API and engine without any sealing
sealing       our sealing alone around the peers' plain application: no API, no transcript, no receipt
plain_app     that application without sealing
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Iterable
from email.utils import formatdate
from http.client import HTTPConnection

from confide_enclave import logs
from confide_enclave.api import Api, ApiRequest
from confide_enclave.node import assemble, open_machine
from confide_enclave.server import bind
from confide_enclave.server import serve as serve_enclave
from confide_enclave.serving import Enclave
from confide_enclave.settings import EnclaveSettings
from confide_protocol import bhttp, hpke, keyconfig, labels
from confide_protocol.hpke import REQUIRED, PrivateKey
from confide_protocol.ohttp import RequestOpener, RequestSealer
from confide_protocol.shape import NONE, ResponseShaper, shape_named

from tests.bench.peers.loopback import (
    PATH_REQUEST,
    PATH_STREAM,
    REQUEST,
    STREAM_CHUNKS,
    App,
    Message,
    Receive,
    Send,
    drive,
    padded,
    plain_app,
    read_body,
    serve,
)
from tests.fakes.engine import CARD, ScriptedEngine

SECRET = b"x" * 32
STATEMENT = bytes(31) + b"\x01"
PATH_CHAT = "/v1/chat/completions"
LEAST_BYTES = 1024  # the words of an answer, in every shape
WORDS = tuple(f" word{n:011d}" for n in range(STREAM_CHUNKS))


class Plain:
    """The enclave's API in clear: what sealing is measured against."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._api = Api([engine], "fp_bench", clock=time.time, random=secrets.token_bytes)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        call = ApiRequest(
            scope["method"], scope["path"], await read_body(receive), NONE.flush_tokens, SECRET, "bench"
        )
        answer = await self._api.answer(call)
        headers = [(b"content-type", answer.content_type.encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        batch: tuple[bytes, ...] | None = answer.first
        while batch is not None:
            await send({"type": "http.response.body", "body": b"".join(batch), "more_body": True})
            batch = await anext(answer.rest, None) if answer.rest is not None else None
        await send({"type": "http.response.body", "body": b""})


class Sealing:
    """Open requests and seal responses around an application, as the peers' middleware does."""

    def __init__(self, app: App, key: PrivateKey) -> None:
        self._app, self._keys = app, {1: (REQUIRED, key)}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        opener, decoder = RequestOpener(self._keys), bhttp.Decoder()
        plaintexts = [*opener.push(await read_body(receive)), *opener.finish()]
        events = [event for data in plaintexts for event in decoder.push(data)] + decoder.finish()
        head = next(event for event in events if isinstance(event, bhttp.RequestHead))
        body = b"".join(event.data for event in events if isinstance(event, bhttp.Content))
        sealer = opener.response_sealer(secrets.token_bytes(32))
        shaper: ResponseShaper

        async def opened() -> Message:
            return {"type": "http.request", "body": body}

        async def seal(message: Message) -> None:
            nonlocal shaper
            if message["type"] == "http.response.start":
                fields = tuple((name.decode(), value.decode()) for name, value in message["headers"])
                shaper = ResponseShaper(NONE, bhttp.ResponseHead(message["status"], fields))
                headers = [(b"content-type", labels.MEDIA_RESPONSE.encode())]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": sealer.prefix, "more_body": True})
                return
            shaper.content(message["body"])
            more = message.get("more_body", False)
            *before, last = shaper.flush() if more else shaper.finish()
            sealed = b"".join([*map(sealer.seal, before), sealer.seal(last, final=not more)])
            await send({"type": "http.response.body", "body": sealed, "more_body": more})

        await self._app({**scope, "method": head.method, "path": head.path}, opened, seal)


def run_server(variant: str) -> None:
    if variant in ("sealed", "bucketed"):
        run_enclave()
    elif variant == "sealing":
        key = PrivateKey.generate(REQUIRED.kem, secrets.token_bytes(32))
        config = keyconfig.KeyConfig(1, REQUIRED.kem, key.public, ((hpke.HKDF_SHA256, REQUIRED.aead),))
        keys = keyconfig.encode_key_configs([config]).hex()
        serve(Sealing(plain_app, key), {"path": "/", "ohttp_keys": keys})
    else:
        serve(Plain(ScriptedEngine(WORDS)) if variant == "plain" else plain_app)


def run_enclave() -> None:
    """Serve the enclave's own application; its statement counts as issued, its device is never asked."""
    settings = EnclaveSettings(gateway_secret_file="-", platform="simulated-sev-snp", device_socket="-")
    logs.configure(sys.stderr)
    listener = bind("bench", settings.host, settings.port)
    attester, _ = open_machine(settings)
    app, holder, _ = assemble(settings, [ScriptedEngine(WORDS)], attester, SECRET, random=secrets.token_bytes)
    generation = holder.current
    generation.issue(STATEMENT)
    ready = {
        "path": labels.PATH_OHTTP + generation.digest.hex(),
        "ohttp_keys": generation.keyset.ohttp_keys.hex(),
    }
    serve_enclave(Enclave(app, ()), listener, settings.limits, ready)


class SealedClient:
    """Seal, send, read, open; the answer must be whole."""

    def __init__(self, ready: dict[str, str], shape: str) -> None:
        self._connection = HTTPConnection(ready["url"].removeprefix("http://"))
        self._path, self._shape = ready["path"], shape_named(shape)
        (self._config,) = keyconfig.parse_key_configs(bytes.fromhex(ready["ohttp_keys"]))

    def exchange(self, path: str, body: bytes) -> None:
        sealer = RequestSealer(self._config, REQUIRED, os.urandom(32))
        fields = (
            (labels.FIELD_DATE, formatdate(usegmt=True)),
            (labels.FIELD_NONCE, os.urandom(32).hex()),
            (labels.FIELD_EVIDENCE, STATEMENT.hex()),
            (labels.FIELD_POLICY, STATEMENT.hex()),
            (labels.FIELD_SHAPE, self._shape.name),
            (labels.FIELD_SALT, os.urandom(32).hex()),
            ("content-type", "application/json"),
        )
        head = bhttp.RequestHead("POST", labels.INNER_SCHEME, labels.INNER_AUTHORITY, path, fields)
        message = bhttp.encode_head(head) + bhttp.encode_content(body) + bhttp.encode_end()
        sealed = sealer.header + sealer.seal(self._shape.pad_request(message), final=True)
        self._connection.request("POST", self._path, sealed, _HEADERS)
        answer = self._connection.getresponse()
        opener, decoder = sealer.response_opener(), bhttp.Decoder()
        plaintexts: list[bytes] = []
        while data := answer.read1(1 << 16):
            plaintexts += opener.push(data)
        plaintexts += opener.finish()
        events = [event for data in plaintexts for event in decoder.push(data)] + decoder.finish()
        _check(events)


def _check(events: Iterable[bhttp.Event]) -> None:
    length = 0
    for event in events:
        if isinstance(event, bhttp.ResponseHead):
            assert event.status == 200
        elif isinstance(event, bhttp.Content):
            length += len(event.data)
    assert length >= LEAST_BYTES


_HEADERS = {
    "content-type": labels.MEDIA_REQUEST,
    "authorization": f"Bearer {SECRET.decode()}",
    "incremental": "?1",
}


def chat(*, stream: bool) -> bytes:
    """One chat request of a kilobyte; the engine says 64 tokens, all in one body or one an event."""
    head = f'{{"model":"{CARD.name}","max_tokens":{STREAM_CHUNKS},"stream":{str(stream).lower()},'
    return padded(head.encode() + b'"messages":[{"role":"user","content":"', b'"}]}', 1024)


def run_driver(variant: str, ready: dict[str, str]) -> None:
    api = variant in ("sealed", "bucketed", "plain")
    paths = (PATH_CHAT, PATH_CHAT) if api else (PATH_REQUEST, PATH_STREAM)
    bodies = (chat(stream=False), chat(stream=True)) if api else (REQUEST, REQUEST)
    if variant in ("plain", "plain_app"):
        connection = HTTPConnection(ready["url"].removeprefix("http://"))

        def exchange(path: str, body: bytes) -> None:
            connection.request("POST", path, body)
            assert len(connection.getresponse().read()) >= LEAST_BYTES
    else:
        shape = labels.SHAPE_BUCKETED if variant == "bucketed" else labels.SHAPE_NONE
        exchange = SealedClient(ready, shape).exchange
    request, stream = zip(paths, bodies, strict=True)
    drive(lambda: exchange(*request), lambda: exchange(*stream))


if __name__ == "__main__":
    if sys.argv[2] == "serve":
        run_server(sys.argv[1])
    else:
        run_driver(sys.argv[1], json.loads(sys.argv[3]))
