"""tinfoil-ehbp's client before a small EHBP server, alone or below openai's. Runs in an environment of its own.

The package has no server, so this one follows its SPEC (sections 4 and 5) and uses the package's own framing. It
keeps one AEAD object a response, where the package's client makes one a chunk: the server is what is measured.
"""

import json
import secrets
import ssl
import sys
from collections.abc import Callable
from typing import Any

import httpx
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from ehbp import EHBPTransport, ServerIdentity, compute_nonce, derive_response_keys, frame_chunk
from ehbp.protocol import (
    ENCAPSULATED_KEY_HEADER,
    EXPORT_LABEL,
    EXPORT_LENGTH,
    HPKE_REQUEST_INFO,
    RESPONSE_NONCE_HEADER,
)
from loopback import (
    EVENT,
    PATH_PACED,
    PATH_REQUEST,
    PATH_STREAM,
    REPLY,
    REQUEST,
    STREAM_CHUNKS,
    App,
    Message,
    Receive,
    Send,
    drive,
    plain_app,
    read_body,
    serve,
)
from pairs import Exchanges, openai_exchanges, run
from pyhpke import AEADId, CipherSuite, KDFId, KEMId

SUITE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)


class Ehbp:
    """Open request bodies and seal response bodies around an application."""

    def __init__(self, app: App, private_key: object) -> None:
        self._app, self._private_key = app, private_key

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        enc = bytes.fromhex(dict(scope["headers"])[ENCAPSULATED_KEY_HEADER.lower().encode()].decode())
        recipient = SUITE.create_recipient_context(enc, self._private_key, info=HPKE_REQUEST_INFO)
        body = b"".join(recipient.open(frame, b"") for frame in frames(await read_body(receive)))
        nonce = secrets.token_bytes(32)
        keys = derive_response_keys(recipient.export(EXPORT_LABEL, EXPORT_LENGTH), enc, nonce)
        aead, count = AESGCM(keys.key), 0

        async def opened() -> Message:
            return {"type": "http.request", "body": body}

        async def seal(message: Message) -> None:
            nonlocal count
            if message["type"] == "http.response.start":
                message["headers"].append((RESPONSE_NONCE_HEADER.lower().encode(), nonce.hex().encode()))
            elif message["body"]:
                sealed = aead.encrypt(compute_nonce(keys.nonce_base, count), message["body"], None)
                message["body"], count = frame_chunk(sealed), count + 1
            await send(message)

        await self._app(scope, opened, seal)


def frames(data: bytes) -> list[bytes]:
    out, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        out.append(data[at + 4 : end])
        at = end
    return out


def run_server() -> None:
    pair = SUITE.kem.derive_key_pair(secrets.token_bytes(32))
    serve(Ehbp(plain_app, pair.private_key), {"public_key": pair.public_key.to_public_bytes().hex()})


def run_driver(ready: dict[str, str]) -> None:
    identity = ServerIdentity.from_public_key_hex(ready["public_key"])
    client = httpx.Client(transport=EHBPTransport(identity, inner=httpx.HTTPTransport()), base_url=ready["url"])

    def request() -> None:
        assert client.post(PATH_REQUEST, content=REQUEST).content == REPLY

    def stream() -> None:
        with client.stream("POST", PATH_STREAM, content=REQUEST) as answer:
            assert b"".join(answer.iter_bytes()) == EVENT * STREAM_CHUNKS

    drive(request, stream)


def plain_client(url: str) -> Callable[[], Exchanges]:
    import openai

    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return lambda: calls(openai, url, httpx.HTTPTransport(verify=nobody))


def sealed_client(ready: dict[str, str]) -> Callable[[], Exchanges]:
    import openai
    from ehbp import EHBPTransport, ServerIdentity

    def make() -> Exchanges:
        identity = ServerIdentity.from_public_key_hex(ready["public_key"])
        inner = httpx.HTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return calls(openai, ready["url"], EHBPTransport(identity, inner=inner))

    return make


def calls(openai: Any, url: str, transport: httpx.BaseTransport) -> Exchanges:
    http = httpx.Client(transport=transport, trust_env=False, timeout=openai.DEFAULT_TIMEOUT)
    return openai_exchanges(
        *(
            openai.OpenAI(base_url=url + path, api_key="bench", http_client=http)
            for path in (PATH_REQUEST, PATH_STREAM, PATH_PACED)
        )
    )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        run_server()
    elif sys.argv[1] == "drive":
        run_driver(json.loads(sys.argv[2]))
    else:
        given = json.loads(sys.argv[2])
        run({"plain": lambda: plain_client(given["plain"]), "sealed": lambda: sealed_client(given)}, *sys.argv[3:])
