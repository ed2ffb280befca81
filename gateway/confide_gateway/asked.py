"""What a client's request asks of a node."""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl

from confide_protocol import labels

_HEX_32 = re.compile(r"[0-9a-f]{64}")


class Asked(NamedTuple):
    """A path of a node, the media type of its answer, and the keyset that it has to hold (None: any will do)."""

    path: str
    media: str
    digest_hex: str | None = None

    @property
    def about(self) -> str | None:
        """The keyset that the question is about: whether its node is there, and one that is busy loading is."""
        return self.digest_hex if self.media == labels.MEDIA_EVIDENCE else None


def evidence_query(query: bytes) -> tuple[str, str | None] | None:
    """Read `nonce` and, if given, `keyset`: 32 bytes each in lower-case hex. None for anything else."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=2)
    except ValueError:
        return None
    asked = dict(pairs)
    if len(asked) != len(pairs) or not {"nonce"} <= set(asked) <= {"nonce", "keyset"}:
        return None
    if not all(_HEX_32.fullmatch(value) for value in asked.values()):
        return None
    return asked["nonce"], asked.get("keyset")
