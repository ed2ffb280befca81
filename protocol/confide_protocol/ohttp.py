"""Chunked Oblivious HTTP, draft-ietf-ohai-chunked-ohttp-08: sealers and openers of both directions.

On the wire a message is a prefix (request: header and enc; response: nonce), then chunks: varint length and
sealed bytes. The last chunk has length 0, the AAD "final", and runs to the end of the stream, so a stream
that was cut never looks whole. Sans-IO: the caller brings bytes and randomness.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

from confide_protocol import hpke, varint
from confide_protocol.errors import LocalStateError, Malformed, Truncated, UnknownKey
from confide_protocol.keyconfig import KeyConfig
from confide_protocol.labels import CHUNK_PLAINTEXT_BYTES, FINAL_AAD, REQUEST_INFO, RESPONSE_EXPORT

HEADER_BYTES: Final = 7
_SEALED_MAX: Final = CHUNK_PLAINTEXT_BYTES + hpke.TAG_BYTES


def response_nonce_bytes(aead: hpke.AeadId) -> int:
    """max(Nn, Nk): the length of a response's nonce."""
    return max(hpke.NONCE_BYTES, aead.key_bytes)


class _ChunkSealer:
    """Turn plaintext into framed chunks."""

    def __init__(self, sealer: hpke.Sealer) -> None:
        self._sealer: hpke.Sealer | None = sealer

    def seal(self, plaintext: bytes, *, final: bool = False) -> bytes:
        """Seal `plaintext` as one chunk, or as several where it is longer than 16,384 bytes.

        Empty plaintext seals to nothing unless it is final. After the final chunk nothing can be sealed.
        """
        sealer = self._sealer
        if sealer is None:
            raise LocalStateError("the final chunk is sealed already")
        if not final and 0 < len(plaintext) <= CHUNK_PLAINTEXT_BYTES:
            sealed = sealer.seal(b"", plaintext)
            return varint.encode(len(sealed)) + sealed
        out = bytearray()
        while len(plaintext) > CHUNK_PLAINTEXT_BYTES or (plaintext and not final):
            out += self.seal(plaintext[:CHUNK_PLAINTEXT_BYTES])
            plaintext = plaintext[CHUNK_PLAINTEXT_BYTES:]
        if final:
            self._sealer = None
            out += b"\0" + sealer.seal(FINAL_AAD, plaintext)
        return bytes(out)


class _ChunkOpener(ABC):
    """Turn a stream, split anywhere, into plaintexts. After any error it takes no more bytes.

    `authenticated`: a chunk has opened, so the peer holds the key. `complete`: so has the final one.
    """

    def __init__(self) -> None:
        self.authenticated = False
        self.complete = False
        self._buffer = bytearray()
        self._opener: hpke.Opener | None = None
        self._in_final = False
        self._usable = True

    @abstractmethod
    def _begin(self) -> hpke.Opener | None:
        """Take the prefix off the buffer and make the opener, or return None while bytes are missing."""

    def push(self, data: bytes) -> list[bytes]:
        """Take bytes as they came; return the plaintexts of the non-final chunks that they complete.

        Raises: Malformed, DecryptionFailed, UnknownKey.
        """
        if not self._usable:
            raise LocalStateError("the stream has ended or failed")
        self._usable = False
        self._buffer += data
        self._opener = self._opener or self._begin()
        plaintexts = self._open_chunks(self._opener) if self._opener is not None else []
        self._usable = True
        return plaintexts

    def finish(self) -> list[bytes]:
        """Take the end of the stream; return the final chunk's plaintext, if it is not empty.

        Raises: Truncated where no final chunk has begun, DecryptionFailed where it does not authenticate.
        """
        if not self._usable:
            raise LocalStateError("the stream has ended or failed")
        self._usable = False
        if self._opener is None or not self._in_final or len(self._buffer) < hpke.TAG_BYTES:
            raise Truncated
        plaintext = self._opener.open(FINAL_AAD, bytes(self._buffer))
        self._buffer.clear()
        self.authenticated = self.complete = True
        return [plaintext] if plaintext else []

    def _open_chunks(self, opener: hpke.Opener) -> list[bytes]:
        """Take the whole chunks off the buffer, all at once, and open them."""
        buffer, plaintexts, at = self._buffer, [], 0
        while not self._in_final and (prefix := varint.read(buffer, at)) is not None:
            length, start = prefix
            # No data, or more than we say we take: refused before any of it is kept.
            if length and not hpke.TAG_BYTES < length <= _SEALED_MAX:
                raise Malformed("a chunk is empty or over its limit")
            if len(buffer) < start + length:
                break
            at = start + length
            if length:
                plaintexts.append(opener.open(b"", bytes(buffer[start:at])))
                self.authenticated = True
            self._in_final = not length
        del buffer[:at]
        if self._in_final and len(buffer) > _SEALED_MAX:
            raise Malformed("the final chunk is over its limit")
        return plaintexts


class RequestSealer(_ChunkSealer):
    """The client's side of a request. Send `header` first, then what `seal` returns."""

    def __init__(self, config: KeyConfig, suite: hpke.Suite, ephemeral: bytes) -> None:
        """`ephemeral`: 32 random bytes, used for this request only.

        Raises: LocalStateError (all-zero randomness, a key of another suite), Malformed (no valid key).
        """
        if config.kem_id != suite.kem or (hpke.HKDF_SHA256, suite.aead) not in config.symmetric:
            raise LocalStateError("the key configuration is not of the suite that is asked for")
        header = config.key_id.to_bytes(1, "big") + suite.encoded
        self.enc, context = hpke.setup_base_sender(suite, config.public_key, _request_info(header), ephemeral)
        self.header = header + self.enc
        self._suite = suite
        self._secret = context.export(RESPONSE_EXPORT, response_nonce_bytes(suite.aead))
        super().__init__(context)

    def response_opener(self) -> "ResponseOpener":
        return ResponseOpener(self._suite.aead, self._secret, self.enc)


class RequestOpener(_ChunkOpener):
    """The enclave's side of a request.

    Does not check: replay (remember `enc_digest` once `authenticated`, even if a later chunk failed).
    """

    def __init__(self, keys: Mapping[int, tuple[hpke.Suite, hpke.PrivateKey]]) -> None:
        """`keys`: by key id, the one suite that each key serves."""
        super().__init__()
        self.enc: bytes | None = None
        self.suite: hpke.Suite | None = None
        self._keys = keys
        self._context: hpke.RecipientContext | None = None
        self._answered = False

    @property
    def enc_digest(self) -> bytes | None:
        """SHA-256(enc), the name of this request; None until the header is whole."""
        return None if self.enc is None else hashlib.sha256(self.enc).digest()

    def response_sealer(self, response_nonce: bytes) -> "ResponseSealer":
        """Answer the request, once. `response_nonce`: `response_nonce_bytes(suite.aead)` random bytes.

        Raises: LocalStateError before the request has authenticated, and for a nonce that is not random.
        """
        if self._context is None or self.enc is None or self.suite is None or not self.authenticated:
            raise LocalStateError("only an authenticated request can be answered")
        if self._answered:
            raise LocalStateError("the request is answered already")
        self._answered = True
        secret = self._context.export(RESPONSE_EXPORT, response_nonce_bytes(self.suite.aead))
        return ResponseSealer(self.suite.aead, secret, self.enc, response_nonce)

    def _begin(self) -> hpke.Opener | None:
        buffer = self._buffer
        if len(buffer) < HEADER_BYTES:
            return None
        header = bytes(buffer[:HEADER_BYTES])
        held = self._keys.get(header[0])
        if held is None or header[1:] != held[0].encoded:
            raise UnknownKey
        suite, private_key = held
        end = HEADER_BYTES + suite.kem.enc_bytes
        if len(buffer) < end:
            return None
        self.enc, self.suite = bytes(buffer[HEADER_BYTES:end]), suite
        del buffer[:end]
        self._context = hpke.setup_base_recipient(suite, private_key, self.enc, _request_info(header))
        return self._context


class ResponseSealer(_ChunkSealer):
    """The enclave's side of a response. Send `prefix` first, then what `seal` returns."""

    def __init__(self, aead: hpke.AeadId, secret: bytes, enc: bytes, response_nonce: bytes) -> None:
        if len(response_nonce) != response_nonce_bytes(aead) or not any(response_nonce):
            raise LocalStateError("the response nonce is not random bytes of the right length")
        self.prefix = response_nonce
        super().__init__(hpke.Sealer(aead, *_response_keys(aead, secret, enc, response_nonce)))


class ResponseOpener(_ChunkOpener):
    """The client's side of a response. Only `complete` says that nothing was cut off."""

    def __init__(self, aead: hpke.AeadId, secret: bytes, enc: bytes) -> None:
        super().__init__()
        self._aead, self._secret, self._enc = aead, secret, enc

    def _begin(self) -> hpke.Opener | None:
        size = response_nonce_bytes(self._aead)
        if len(self._buffer) < size:
            return None
        response_nonce = bytes(self._buffer[:size])
        del self._buffer[:size]
        if not any(response_nonce):
            raise Malformed("the response nonce is all zero")
        return hpke.Opener(self._aead, *_response_keys(self._aead, self._secret, self._enc, response_nonce))


def _request_info(header: bytes) -> bytes:
    return REQUEST_INFO + b"\0" + header


def _response_keys(aead: hpke.AeadId, secret: bytes, enc: bytes, response_nonce: bytes) -> tuple[bytes, bytes]:
    key = hpke.hkdf_extract(enc + response_nonce, secret)
    return hpke.hkdf_expand(key, b"key", aead.key_bytes), hpke.hkdf_expand(key, b"nonce", hpke.NONCE_BYTES)
