"""A client of EHBP by hand, for what real ones do not do: cut, replay, change, send too much."""

import base64
import json
import os
from dataclasses import dataclass
from typing import Any

from confide_enclave.ehbp.wire import (
    LENGTH_BYTES,
    REQUEST_INFO,
    RESPONSE_EXPORT,
    SECRET_BYTES,
    SUITE,
    derive_response,
)
from confide_protocol import hpke, labels
from confide_protocol.keyset import Keyset
from confide_protocol.receipt import ReceiptClaims, verify_receipt
from confide_protocol.sse import EventSplitter
from confide_protocol.transcript import ResponseTranscript, request_commitment

COMMENT = b": confide "
CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "the capital of France?"}]}


def frame(sealed: bytes) -> bytes:
    return len(sealed).to_bytes(LENGTH_BYTES, "big") + sealed


def frames_of(body: bytes) -> list[bytes]:
    """Cut a body into its frames, lengths included."""
    found = []
    while body:
        end = LENGTH_BYTES + int.from_bytes(body[:LENGTH_BYTES], "big")
        found.append(body[:end])
        body = body[end:]
    return found


@dataclass
class Said:
    """An opened answer: what the application reads, and the receipt that came with it."""

    body: bytes
    receipt: bytes
    salt: bytes

    @property
    def events(self) -> list[bytes]:
        return EventSplitter().push(self.body)

    @property
    def text(self) -> str:
        chunks = [json.loads(each[6:]) for each in self.events if each != b"data: [DONE]\n\n"]
        return "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk.get("choices", []))

    def check(self, keyset: Keyset, request: bytes, status: int, media: str, path: str) -> ReceiptClaims:
        """Verify the receipt and that it speaks of this exchange."""
        claims = verify_receipt(self.receipt, keyset)
        chunks = self.events if media == "text/event-stream" else [self.body]
        transcript = ResponseTranscript(self.salt)
        transcript.head(status, media)
        for chunk in chunks:
            transcript.chunk(chunk)
        assert claims.response_commitment == transcript.finish().commitment
        assert claims.chunk_count == len(chunks)
        assert claims.request_commitment == request_commitment(self.salt, "POST", path, request)
        assert claims.status == status
        assert claims.dialect == labels.DIALECT_EHBP
        return claims


class Sealed:
    """One request sealed to a key of EHBP."""

    def __init__(self, key: bytes, body: Any, *, path: str = "/v1/chat/completions") -> None:
        self.path = path
        self.plain = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.enc, self._context = hpke.setup_base_sender(SUITE, key, REQUEST_INFO, os.urandom(32))
        self._secret = self._context.export(RESPONSE_EXPORT, SECRET_BYTES)

    @property
    def fields(self) -> dict[str, str]:
        return {labels.FIELD_EHBP_KEY: self.enc.hex(), "content-type": "application/json"}

    def seal(self, plaintext: bytes) -> bytes:
        return frame(self._context.seal(b"", plaintext))

    def whole(self, piece_bytes: int = 1 << 16) -> bytes:
        return b"".join(
            self.seal(self.plain[at : at + piece_bytes]) for at in range(0, len(self.plain), piece_bytes)
        )

    def open(self, nonce_hex: str, body: bytes) -> list[bytes]:
        """Open an answer's frames. Raises: DecryptionFailed."""
        nonce = bytes.fromhex(nonce_hex)
        opener = hpke.Opener(SUITE.aead, *derive_response(self._secret, self.enc, nonce))
        return [opener.open(b"", each[LENGTH_BYTES:]) for each in frames_of(body) if len(each) > LENGTH_BYTES]

    def read(self, nonce_hex: str, body: bytes) -> Said:
        """Open a whole answer and part the receipt from it."""
        return part(b"".join(self.open(nonce_hex, body)))


def part(plain: bytes) -> Said:
    """Part an answer from its receipt, as SPEC 11.5 says."""
    if plain.startswith(b"{"):
        head, mark, said = plain.rstrip(b" ").rpartition(b',"confide":')
        assert mark
        body, said = head + b"}", said[:-1]
    else:
        body, mark, rest = plain.rpartition(COMMENT)
        assert mark
        said, _, after = rest.partition(b"\n")
        assert after.strip(b": \n") == b""
    tree = json.loads(said)
    text = tree["receipt"]
    return Said(body, base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), bytes.fromhex(tree["salt"]))
