"""Show one part of a signed exchange to a third party: its salt, its place, nothing else (SPEC 9.4)."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from confide_protocol import labels
from confide_protocol.errors import LocalStateError, ReceiptInvalid
from confide_protocol.transcript import (
    KINDS,
    SALT_BYTES,
    PartKind,
    TranscriptDigests,
    derive_salt,
    leaf_hash,
    node_hash,
    salted_leaf,
    tree_root,
)


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
    if not 0 <= index <= at < len(digests.leaves) or digests.leaves[at] != salted_leaf(salt, kind, index, content):
        raise LocalStateError("the transcript has no such part")
    return DisclosedPart(kind, index, derive_salt(salt, KINDS[kind][1], index), content, _path(digests.leaves, at))


def verify_part(part: DisclosedPart, *, root: bytes, message_count: int, chunk_count: int) -> None:
    """Verify that a disclosed part stands in the transcript of a receipt (its root and counts).

    Does not check the receipt itself. Raises: ReceiptInvalid.
    """
    in_messages = part.kind == "message"
    at = part.index + (0 if in_messages else message_count)
    if len(part.salt) != SALT_BYTES or not 0 <= part.index < (message_count if in_messages else chunk_count):
        raise ReceiptInvalid("a disclosed part is outside the transcript", part="transcript_root")
    leaf = leaf_hash(part.kind, part.salt, part.content)
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
            node = node_hash(sibling, node)
            while not rest & 1 and rest:
                rest, last = rest >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        rest, last = rest >> 1, last >> 1
    if not sound or last != 0 or not hmac.compare_digest(node, root):
        raise ReceiptInvalid("a disclosed part does not lead to the transcript's root", part="transcript_root")


def _path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    if len(leaves) == 1:
        return ()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return (*_path(leaves[:split], index), tree_root(leaves[split:]))
    return (*_path(leaves[split:], index - split), tree_root(leaves[:split]))
