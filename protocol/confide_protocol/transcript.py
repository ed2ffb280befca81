"""Salted commitments to one exchange and the Merkle tree over its parts (SPEC 6).

Nothing here is an unsalted digest of prompt or answer: whoever lacks `confide-salt` cannot test a guess.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from confide_protocol import cbor, labels
from confide_protocol.errors import LocalStateError, ReceiptInvalid

SALT_BYTES = 32
PartKind = Literal["message", "chunk"]
_KINDS: dict[PartKind, tuple[bytes, bytes]] = {
    "message": (b"m", labels.SALT_MESSAGE),
    "chunk": (b"c", labels.SALT_CHUNK),
}


def derive_salt(salt: bytes, label: bytes, index: int = 0) -> bytes:
    """Derive one part's salt from `confide-salt` (32 bytes): HMAC-SHA256(salt, label || u32be(index))."""
    if len(salt) != SALT_BYTES:
        raise LocalStateError("a salt is 32 bytes")
    return hmac.digest(salt, label + index.to_bytes(4, "big"), "sha256")


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
            self._chunks.append(_salted_leaf(self._salt, "chunk", len(self._chunks), data))

    def finish(self, messages: Sequence[bytes] = ()) -> TranscriptDigests:
        """Close over the UTF-8 text of each choice's message, in the order of the choices."""
        self._step("open", "done")
        said = [_salted_leaf(self._salt, "message", index, text) for index, text in enumerate(messages)]
        leaves = (*said, *self._chunks)
        return TranscriptDigests(self._mac.digest(), _root(leaves), len(self._chunks), len(said), leaves)

    def _step(self, expected: str, after: Literal["open", "done"]) -> None:
        if self._state != expected:
            raise LocalStateError("a transcript takes one head, then chunks, then one finish")
        self._state = after


@dataclass(frozen=True)
class DisclosedPart:
    """One message or chunk shown to a third party. Its salt opens this part and no other."""

    kind: PartKind
    index: int
    salt: bytes = field(repr=False)
    content: bytes = field(repr=False)
    path: tuple[bytes, ...] = field(repr=False)


def disclose_part(
    salt: bytes, digests: TranscriptDigests, kind: PartKind, index: int, content: bytes
) -> DisclosedPart:
    """Prove one part of a transcript. Raises: LocalStateError when `content` is not that part."""
    at = index if kind == "message" else digests.message_count + index
    if not 0 <= index <= at < len(digests.leaves) or digests.leaves[at] != _salted_leaf(salt, kind, index, content):
        raise LocalStateError("the transcript has no such part")
    return DisclosedPart(kind, index, derive_salt(salt, _KINDS[kind][1], index), content, _path(digests.leaves, at))


def verify_part(part: DisclosedPart, *, root: bytes, message_count: int, chunk_count: int) -> None:
    """Verify that a disclosed part stands in the transcript of a receipt (its root and counts).

    Does not check the receipt itself. Raises: ReceiptInvalid.
    """
    in_messages = part.kind == "message"
    at = part.index + (0 if in_messages else message_count)
    if len(part.salt) != SALT_BYTES or not 0 <= part.index < (message_count if in_messages else chunk_count):
        raise ReceiptInvalid("a disclosed part is outside the transcript", part="transcript_root")
    leaf = _leaf(part.kind, part.salt, part.content)
    verify_inclusion(leaf, at, message_count + chunk_count, part.path, root)


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Verify an inclusion proof (RFC 9162 section 2.1.3.2, with our node hash). Raises: ReceiptInvalid."""
    node, last, rest = leaf, size - 1, index
    sound = 0 <= index < size and all(len(digest) == labels.DIGEST_BYTES for digest in (leaf, root, *path))
    for sibling in path:
        if not sound or last == 0:
            sound = False
            break
        if rest & 1 or rest == last:
            node = _node(sibling, node)
            while not rest & 1 and rest:
                rest, last = rest >> 1, last >> 1
        else:
            node = _node(node, sibling)
        rest, last = rest >> 1, last >> 1
    if not sound or last != 0 or not hmac.compare_digest(node, root):
        raise ReceiptInvalid("a disclosed part does not lead to the transcript's root", part="transcript_root")


def _salted_leaf(salt: bytes, kind: PartKind, index: int, content: bytes) -> bytes:
    return _leaf(kind, derive_salt(salt, _KINDS[kind][1], index), content)


def _leaf(kind: PartKind, part_salt: bytes, content: bytes) -> bytes:
    inner = hmac.digest(part_salt, content, "sha256")
    return hashlib.sha256(labels.LABEL_TRANSCRIPT_LEAF + _KINDS[kind][0] + inner).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(labels.LABEL_TRANSCRIPT_NODE + left + right).digest()


def _root(leaves: Sequence[bytes]) -> bytes:
    """Hash RFC 6962's tree: a level's odd node goes up as it is. No leaves: the bare node label."""
    if not leaves:
        return _node(b"", b"")
    level = list(leaves)
    while len(level) > 1:
        odd = level[len(level) & ~1 :]
        level = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)] + odd
    return level[0]


def _path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    if len(leaves) == 1:
        return ()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return (*_path(leaves[:split], index), _root(leaves[split:]))
    return (*_path(leaves[split:], index - split), _root(leaves[:split]))
