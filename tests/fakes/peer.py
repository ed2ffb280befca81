"""The enclave's side of the wire in a few lines, honest unless told otherwise; no code of the enclave's."""

import base64
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from confide.fetch import Limits
from confide.policy_memory import PolicyMemory
from confide.relay import Relay
from confide.session import Call, ClientSession, Exchange
from confide_attestation.evidence import encode_bundle
from confide_attestation.policy import AppraisalPolicy
from confide_protocol import bhttp, hpke, labels
from confide_protocol.keyconfig import KeyConfig, encode_key_configs
from confide_protocol.keyset import ServedModel
from confide_protocol.ohttp import RequestOpener
from confide_protocol.receipt import ReceiptClaims, sign_receipt
from confide_protocol.shape import ResponseShaper, shape_named
from confide_protocol.statement import coalesce_nonces
from confide_protocol.transcript import ResponseTranscript, request_commitment
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from tests.fakes.scene import NONCE, NOW, Scene

EVENTS = "text/event-stream"
JSON = "application/json"
DONE = b"data: [DONE]\n\n"


def said(*words: str) -> list[bytes]:
    """Return a stream that says these words, one event each, and [DONE]."""
    events = [b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % word.encode() for word in words]
    return [*events, DONE]


@cache
def _certificates() -> dict[str, bytes]:
    """Issue one chain for all peers: RSA-PSS signs the same thing differently each time."""
    issued = Scene().device.endorsements
    return {"vek": issued.vek, "ask": issued.ask or b"", "ark": issued.ark or b""}


@dataclass
class Peer:
    """One enclave with keys of its own. Its evidence is that of `Scene`."""

    shape: str = labels.SHAPE_NONE
    seal: hpke.PrivateKey = field(
        default_factory=lambda: hpke.PrivateKey.generate(hpke.REQUIRED.kem, os.urandom(32)), repr=False
    )
    ed25519: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate, repr=False)
    ml_dsa_65: MLDSA65PrivateKey = field(default_factory=MLDSA65PrivateKey.generate, repr=False)
    key_id: int = 1
    more_models: tuple[ServedModel, ...] = ()
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    enc_digest: bytes = b""

    def __post_init__(self) -> None:
        suite = hpke.REQUIRED
        config = KeyConfig(self.key_id, suite.kem, self.seal.public, ((hpke.HKDF_SHA256, suite.aead),))
        scene = Scene(policy_fields={"shape": self.shape}, endorse=lambda amd: _certificates())
        scene.keyset = {
            "ohttp_keys": encode_key_configs([config]),
            "receipt_ed25519": self.ed25519.public_key().public_bytes_raw(),
            "receipt_ml_dsa_65": self.ml_dsa_65.public_key().public_bytes_raw(),
        }
        scene.manifest = {"more_models": self.more_models}
        scene.statement["not_after_unix_s"] = NOW + 3000
        self.scene = scene
        evidence, endorsements, self.policy = scene.build()
        self.policy_text = scene.policy_text(endorsements.snp, evidence.manifest)
        self.bundle = self.evidence(NONCE)

    def evidence(self, nonce: bytes) -> bytes:
        """Return a bundle that answers this nonce."""
        self.scene.statement["nonce"], _ = coalesce_nonces([nonce])
        evidence, endorsements, _ = self.scene.build()
        return encode_bundle(evidence, endorsements)

    def session(self, policy: AppraisalPolicy | None = None, **options) -> ClientSession:
        """Return a client session that has verified this peer."""
        options = {"floor": 0, "allow_simulated": True, "random": os.urandom, **options}
        session = ClientSession(policy or self.policy, **options)
        session.verify(self.bundle, NONCE, NOW)
        return session

    @cached_property
    def trusting(self) -> ClientSession:
        return self.session()

    def exchange(self, body: bytes = b'{"stream":true}') -> Exchange:
        return self.trusting.seal(a_call(self.trusting, body), NOW)

    def relay(self, **options) -> Relay:
        quick = Limits(recover_s=0.2)
        options = {
            "allow_simulated": True,
            "memory": PolicyMemory(None),
            "clock": lambda: float(NOW),
            "limits": quick,
            **options,
        }
        return Relay("http://gateway.test", self.policy, **options)

    def open(self, sealed: bytes) -> RequestOpener:
        """Open a request; what it said is in `fields` and `body`."""
        opener = RequestOpener({self.key_id: (hpke.REQUIRED, self.seal)})
        decoder = bhttp.Decoder()
        plaintexts = [*opener.push(sealed), *opener.finish()]
        events = [event for plaintext in plaintexts for event in decoder.push(plaintext)] + decoder.finish()
        self.head = next(event for event in events if isinstance(event, bhttp.RequestHead))
        self.fields = dict(self.head.fields)
        self.body = b"".join(event.data for event in events if isinstance(event, bhttp.Content))
        self.enc_digest = opener.enc_digest or b""
        return opener

    def answer(
        self,
        sealed: bytes,
        parts: Sequence[bytes],
        *,
        status: int = 200,
        content_type: str = EVENTS,
        messages: Sequence[bytes] = (),
        outcome: str = "complete",
        claims: Callable[[ReceiptClaims], ReceiptClaims] = lambda claims: claims,
        trailers: Callable[[str], bhttp.Fields] = lambda text: ((labels.FIELD_RECEIPT, text),),
    ) -> list[bytes]:
        """Seal an answer; return the nonce and then each chunk, so that a test can lose or mix them."""
        opener = self.open(sealed)
        salt = bytes.fromhex(self.fields[labels.FIELD_SALT])
        transcript = ResponseTranscript(salt)
        transcript.head(status, content_type)
        head = bhttp.ResponseHead(status, (("content-type", content_type),))
        shaper = ResponseShaper(shape_named(self.shape), head)
        sealer = opener.response_sealer(os.urandom(32))
        chunks = [sealer.prefix]
        for part in parts:
            transcript.chunk(part)
            shaper.content(part)
            chunks += [sealer.seal(plaintext) for plaintext in shaper.flush()]
        digests = transcript.finish(messages)
        keyset = self.trusting.attested(NOW)
        assert keyset is not None
        honest = ReceiptClaims(
            keyset_digest=keyset.keyset.digest,
            statement_digest=bytes.fromhex(self.fields[labels.FIELD_EVIDENCE]),
            manifest_digest=keyset.manifest.digest,
            request_commitment=request_commitment(salt, self.head.method, self.head.path, self.body),
            response_commitment=digests.commitment,
            transcript_root=digests.root,
            chunk_count=digests.chunk_count,
            message_count=digests.message_count,
            enc_digest=self.enc_digest,
            model=keyset.manifest.model,
            outcome=outcome,
            status=status,
            sampling={"temperature": "0"},
            seed=1,
            engine_mode="fast",
            suite=hpke.REQUIRED.name,
            shape=self.shape,
            prompt_tokens=1,
            completion_tokens=1,
            issued_unix_s=NOW,
            simulated=True,
            client_asserted={
                "nonce": bytes.fromhex(self.fields[labels.FIELD_NONCE]),
                "policy": bytes.fromhex(self.fields[labels.FIELD_POLICY]),
            },
        )
        receipt = sign_receipt(claims(honest), self.ed25519, self.ml_dsa_65)
        text = base64.urlsafe_b64encode(receipt).rstrip(b"=").decode()
        *before, last = shaper.finish(trailers(text))
        return [*chunks, *(sealer.seal(plaintext) for plaintext in before), sealer.seal(last, final=True)]

    def stream(self, exchange: Exchange, *words: str, **options) -> list[bytes]:
        """Answer with a stream of words."""
        options = {"messages": ["".join(words).encode()], **options}
        return self.answer(exchange.body, said(*words), **options)


@cache
def a_peer(shape: str = labels.SHAPE_NONE) -> Peer:
    """Return one peer for all tests that do not change it."""
    return Peer(shape)


def a_call(session: ClientSession, body: bytes = b"{}", path: str = "/v1/chat/completions") -> Call:
    return session.call("POST", path, [("Content-Type", JSON), ("user-agent", "test")], body)


def differing(**changes) -> Callable[[ReceiptClaims], ReceiptClaims]:
    """Return a lie for `claims`."""
    return lambda claims: replace(claims, **changes)


class Wire:
    """What lies between a transport and a peer, in process. `reply` may be replaced by any other behaviour.

    Stands in for the pool of either HTTP library, sync and async; requests are kept in `seen`.
    """

    def __init__(self, peer: Peer, module: Any) -> None:
        self.peer, self.module = peer, module
        self.seen: list[Any] = []
        self.fetched: list[dict[str, str]] = []
        self.closed = 0
        self.reply: Callable[[bytes], tuple[int, str, Iterable[bytes]]] = lambda sealed: (
            200,
            labels.MEDIA_RESPONSE,
            peer.answer(sealed, said("Par", "is."), messages=[b"Paris."]),
        )

    def fetch(
        self,
        url: str,
        nonce: bytes,
        authorization: Mapping[str, str],
        limits: Any,
        link: Any,
        keyset: bytes | None = None,
    ) -> bytes:
        self.fetched.append(dict(authorization))
        return self.peer.evidence(nonce)

    def _respond(self, request: Any) -> tuple[int, dict[str, str], Iterable[bytes]]:
        self.seen.append(request)
        status, content_type, chunks = self.reply(request.content)
        return status, {"content-type": content_type}, chunks

    def handle_request(self, request: Any) -> Any:
        status, headers, chunks = self._respond(request)
        wire = self

        class Body(self.module.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                yield from chunks

            def close(self) -> None:
                wire.closed += 1

        return self.module.Response(status, headers=headers, stream=Body())

    async def handle_async_request(self, request: Any) -> Any:
        status, headers, chunks = self._respond(request)
        wire = self

        class Body(self.module.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                for chunk in chunks:
                    yield chunk

            async def aclose(self) -> None:
                wire.closed += 1

        return self.module.Response(status, headers=headers, stream=Body())

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass
