"""EHBP on the wire: every derivation, label and frame of it, sans-IO (SPEC 11.3).

Body of both directions: frames `u32be length || ciphertext`, AAD empty, until the HTTP body ends. What the dialect
lacks is lacking here: nothing binds path, method or header fields, and a cut between two frames looks like an end.
"""

from collections.abc import Sequence
from typing import Final

from confide_protocol.errors import DecryptionFailed, LocalStateError, Malformed, Truncated
from confide_protocol.hpke import (
    NONCE_BYTES,
    TAG_BYTES,
    AeadId,
    KemId,
    PrivateKey,
    RecipientContext,
    Sealer,
    Suite,
    hkdf_expand,
    hkdf_extract,
    setup_base_recipient,
)

SUITE: Final = Suite(KemId.X25519, AeadId.AES_256_GCM)
REQUEST_INFO: Final = b"ehbp request"
RESPONSE_EXPORT: Final = b"ehbp response"
KEY_LABEL: Final = b"key"
NONCE_LABEL: Final = b"nonce"
SECRET_BYTES: Final = 32
RESPONSE_NONCE_BYTES: Final = 32  # max(Nn, Nk)
LENGTH_BYTES: Final = 4


def derive_response(secret: bytes, enc: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    """Derive a response's key and base nonce from the exported secret, as RFC 9458 section 4.4 does."""
    prk = hkdf_extract(enc + nonce, secret)
    return hkdf_expand(prk, KEY_LABEL, SUITE.aead.key_bytes), hkdf_expand(prk, NONCE_LABEL, NONCE_BYTES)


class ResponseSealer:
    """Seals a response frame by frame."""

    def __init__(self, secret: bytes, enc: bytes, nonce: bytes) -> None:
        if len(nonce) != RESPONSE_NONCE_BYTES or not any(nonce):
            raise LocalStateError("a response's nonce is 32 random bytes")
        self.nonce = nonce
        self._sealer = Sealer(SUITE.aead, *derive_response(secret, enc, nonce))

    def seal(self, plaintext: bytes) -> bytes:
        """Seal one frame; nothing seals to nothing."""
        if not plaintext:
            return b""
        sealed = self._sealer.seal(b"", plaintext)
        return len(sealed).to_bytes(LENGTH_BYTES, "big") + sealed


class RequestOpener:
    """Opens a request's frames, split anywhere. EHBP names no key: the first frame tells which of `keys` it is.

    `opened_by` is its place in `keys`, None until a frame has authenticated. After an error it takes no more bytes.
    """

    def __init__(self, keys: Sequence[PrivateKey], enc: bytes, max_frame_bytes: int) -> None:
        self.opened_by: int | None = None
        self._keys, self._enc, self._max_frame_bytes = keys, enc, max_frame_bytes
        self._context: RecipientContext | None = None
        self._buffer = bytearray()
        self._usable = True

    def push(self, data: bytes) -> list[bytes]:
        """Take bytes as they came; return the plaintexts of the frames that they complete.

        Raises: Malformed; DecryptionFailed, which before `opened_by` is set means that no key is the right one.
        """
        self._take_turn()
        self._buffer += data
        plaintexts: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= LENGTH_BYTES:
            start = at + LENGTH_BYTES
            length = int.from_bytes(self._buffer[at:start], "big")
            if length and not TAG_BYTES <= length <= self._max_frame_bytes:
                raise Malformed("a frame is shorter than its tag or over its limit")
            if len(self._buffer) < start + length:
                break
            at = start + length
            if length:
                plaintexts.append(self._open(bytes(self._buffer[start:at])))
        del self._buffer[:at]
        self._usable = True
        return plaintexts

    def finish(self) -> None:
        """Take the end of the body. Raises: Truncated inside a frame, Malformed where no frame came.

        Does not notice: frames cut off at the end.
        """
        self._take_turn()
        if self._buffer:
            raise Truncated
        if self._context is None:
            raise Malformed("a request without a frame")

    def response_sealer(self, nonce: bytes) -> ResponseSealer:
        if self._context is None:
            raise LocalStateError("nothing was opened yet")
        return ResponseSealer(self._context.export(RESPONSE_EXPORT, SECRET_BYTES), self._enc, nonce)

    def _open(self, sealed: bytes) -> bytes:
        if self._context is not None:
            return self._context.open(b"", sealed)
        for place, key in enumerate(self._keys):
            try:
                context = setup_base_recipient(SUITE, key, self._enc, REQUEST_INFO)
                plaintext = context.open(b"", sealed)
            except DecryptionFailed:
                continue
            self._context, self.opened_by = context, place
            return plaintext
        raise DecryptionFailed

    def _take_turn(self) -> None:
        if not self._usable:
            raise LocalStateError("the stream has ended or failed")
        self._usable = False
