"""What the hardware signs: the report-data statement, the GPU nonce, the tree of coalesced nonces (SPEC 4)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from confide_protocol import cbor, labels
from confide_protocol.errors import Malformed
from confide_protocol.fields import Test, check_fields, is_digest, is_time

NONCE_BYTES = 32
MAX_NONCE_PATH = 16
_FIELDS: dict[str, Test] = {
    "keyset_digest": is_digest,
    "not_after": is_time,
    "nonce": is_digest,
    "epoch": is_digest,
    "gpu_evidence_digest": is_digest,
}


@dataclass(frozen=True)
class ReportDataStatement:
    """Bind one keyset (and the GPUs' evidence) to a nonce or an epoch; exactly one of the two is set."""

    keyset_digest: bytes
    not_after_unix_s: int
    nonce: bytes | None = None
    epoch: bytes | None = None
    gpu_evidence_digest: bytes | None = None

    @property
    def encoded(self) -> bytes:
        tree: dict[str, str | bytes | int] = {
            "purpose": labels.PURPOSE_REPORT_DATA,
            "keyset_digest": self.keyset_digest,
            "not_after": self.not_after_unix_s,
        }
        for name in ("nonce", "epoch", "gpu_evidence_digest"):
            value = getattr(self, name)
            if value is not None:
                tree[name] = value
        return cbor.encode(tree)

    @property
    def digest(self) -> bytes:
        """SHA-256: the name by which `confide-evidence` calls this statement."""
        return hashlib.sha256(self.encoded).digest()

    @property
    def report_data(self) -> bytes:
        """SHA-512: the 64 bytes that the CPU's report carries."""
        return hashlib.sha512(self.encoded).digest()

    @property
    def freshness(self) -> bytes:
        value = self.nonce if self.nonce is not None else self.epoch
        assert value is not None  # noqa: S101 - parse_statement and the attester guarantee it
        return value


def parse_statement(data: bytes) -> ReportDataStatement:
    """Parse a report-data statement; makes no trust claim. Raises: Malformed."""
    tree = cbor.decode(data)
    if not isinstance(tree, dict) or tree.pop("purpose", None) != labels.PURPOSE_REPORT_DATA:
        raise Malformed("not a report-data statement")
    required = {"keyset_digest", "not_after"}
    if not required <= set(tree) <= set(_FIELDS) or ("nonce" in tree) == ("epoch" in tree):
        raise Malformed("a report-data statement needs exactly its fields, and a nonce or an epoch")
    check_fields(tree, {name: _FIELDS[name] for name in tree})
    not_after_unix_s = tree.pop("not_after")
    return ReportDataStatement(not_after_unix_s=not_after_unix_s, **tree)


def gpu_nonce(freshness: bytes, keyset_digest: bytes) -> bytes:
    """Derive the nonce that every GPU's evidence must answer."""
    return hashlib.sha256(labels.LABEL_GPU_NONCE + freshness + keyset_digest).digest()


@dataclass(frozen=True)
class NoncePath:
    """The way from one caller's nonce to the statement's: (sibling is on the left, sibling hash) upwards."""

    steps: tuple[tuple[bool, bytes], ...] = ()

    def root(self, nonce: bytes) -> bytes:
        """Recompute the statement's nonce. A lone nonce is hashed too: no raw client bytes reach a report."""
        node = hashlib.sha256(labels.LABEL_NONCE_LEAF + nonce).digest()
        for sibling_is_left, sibling in self.steps:
            left, right = (sibling, node) if sibling_is_left else (node, sibling)
            node = hashlib.sha256(labels.LABEL_NONCE_NODE + left + right).digest()
        return node


def coalesce_nonces(nonces: Sequence[bytes]) -> tuple[bytes, tuple[NoncePath, ...]]:
    """Fold pending nonces (1 to 2**16 of them) into one root and a path for each, in their order."""
    if not 0 < len(nonces) <= 1 << MAX_NONCE_PATH:
        raise ValueError("between 1 and 65,536 nonces share a quote")
    level = [hashlib.sha256(labels.LABEL_NONCE_LEAF + nonce).digest() for nonce in nonces]
    place = list(range(len(nonces)))
    steps: list[list[tuple[bool, bytes]]] = [[] for _ in nonces]
    while len(level) > 1:
        for i, at in enumerate(place):
            if at ^ 1 < len(level):
                steps[i].append((at % 2 == 1, level[at ^ 1]))
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [
            hashlib.sha256(labels.LABEL_NONCE_NODE + b"".join(p)).digest() if len(p) == 2 else p[0] for p in pairs
        ]
        place = [at // 2 for at in place]
    return level[0], tuple(NoncePath(tuple(path)) for path in steps)
