"""Salted commitments to one exchange and the Merkle tree over its parts (SPEC 9).

Nothing here is an unsalted digest of prompt or answer: whoever lacks `confide-salt` cannot test a guess.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal

from confide_protocol import cbor, labels
from confide_protocol.errors import LocalStateError

SALT_BYTES = 32
PartKind = Literal["message", "chunk"]
KINDS: dict[PartKind, tuple[bytes, bytes]] = {
    "message": (b"m", labels.SALT_MESSAGE),
    "chunk": (b"c", labels.SALT_CHUNK),
}
_IPAD, _OPAD = bytes(b ^ 0x36 for b in range(256)), bytes(b ^ 0x5C for b in range(256))


def derive_salt(salt: bytes, label: bytes, index: int = 0) -> bytes:
    """Derive one part's salt from `confide-salt` (32 bytes): HMAC-SHA256(salt, label || u32be(index))."""
    if len(salt) != SALT_BYTES:
        raise LocalStateError("a salt is 32 bytes")
    return _hmac(salt, label + index.to_bytes(4, "big"))


def request_commitment(salt: bytes, method: str, path: str, body: bytes) -> bytes:
    """Commit to the inner request before padding: HMAC(request salt, CBOR([method, path]) || body)."""
    return hmac.digest(derive_salt(salt, labels.SALT_REQUEST), cbor.encode([method, path]) + body, "sha256")


@dataclass(frozen=True)
class TranscriptDigests:
    """What a receipt says of a response. `leaves` (messages, then chunks) prove single parts of it later."""

    commitment: bytes
    root: bytes
    chunk_count: int
    message_count: int
    leaves: tuple[bytes, ...] = field(default=(), repr=False, compare=False)


class ResponseTranscript:
    """Commit to a response piece by piece: `head`, then `chunk`s, then `finish` once.

    Both sides feed it the same pieces: one SSE event with its blank line, or the whole plain body; before
    padding and without the receipt. An empty piece counts for nothing.
    Raises: LocalStateError when called out of order.
    """

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._mac = hmac.new(derive_salt(salt, labels.SALT_RESPONSE), digestmod="sha256")
        self._chunks: list[bytes] = []
        self._state: Literal["new", "open", "done"] = "new"

    def head(self, status: int, content_type: str) -> None:
        self._step("new", "open")
        self._mac.update(cbor.encode([status, content_type]))

    def chunk(self, data: bytes) -> None:
        self._step("open", "open")
        if data:
            self._mac.update(data)
            self._chunks.append(salted_leaf(self._salt, "chunk", len(self._chunks), data))

    def finish(self, messages: Sequence[bytes] = ()) -> TranscriptDigests:
        """Close over the UTF-8 text of each choice's message, in the order of the choices."""
        self._step("open", "done")
        said = [salted_leaf(self._salt, "message", index, text) for index, text in enumerate(messages)]
        leaves = (*said, *self._chunks)
        return TranscriptDigests(self._mac.digest(), tree_root(leaves), len(self._chunks), len(said), leaves)

    def _step(self, expected: str, after: Literal["open", "done"]) -> None:
        if self._state != expected:
            raise LocalStateError("a transcript takes one head, then chunks, then one finish")
        self._state = after


def salted_leaf(salt: bytes, kind: PartKind, index: int, content: bytes) -> bytes:
    return leaf_hash(kind, derive_salt(salt, KINDS[kind][1], index), content)


def leaf_hash(kind: PartKind, part_salt: bytes, content: bytes) -> bytes:
    return sha256(labels.LABEL_TRANSCRIPT_LEAF + KINDS[kind][0] + _hmac(part_salt, content)).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(labels.LABEL_TRANSCRIPT_NODE + left + right).digest()


def _hmac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104) under a key of at most 64 bytes; `hmac.digest` is slower, and an event needs two."""
    block = key.ljust(64, b"\0")
    return sha256(block.translate(_OPAD) + sha256(block.translate(_IPAD) + data).digest()).digest()


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """Hash RFC 6962's tree: a level's odd node goes up as it is. No leaves: the bare node label."""
    if not leaves:
        return node_hash(b"", b"")
    level = list(leaves)
    while len(level) > 1:
        odd = level[len(level) & ~1 :]
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)] + odd
    return level[0]
