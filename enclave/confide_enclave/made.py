"""The keysets that this process made. What was sealed to one of them may have been run here, even if it is gone."""

from collections import deque
from collections.abc import Iterable
from typing import Final

from confide_protocol import labels

from confide_enclave.keys import Generation

KEYSETS_TOLD: Final = 16


class Made:
    """Outlives a reload, as what was run does; forgets all but the latest `KEYSETS_TOLD`."""

    def __init__(self) -> None:
        self._digests: deque[str] = deque(maxlen=KEYSETS_TOLD)

    def note(self, live: Iterable[Generation]) -> None:
        """Take note of what is live, the latest first. In time: nobody seals before evidence was given."""
        for generation in reversed(tuple(live)):
            if (digest_hex := generation.digest.hex()) not in self._digests:
                self._digests.appendleft(digest_hex)

    @property
    def field(self) -> tuple[bytes, bytes]:
        """Return the header field that tells the gateway (SPEC 6.6)."""
        return labels.FIELD_KEYSETS.encode(), ",".join(self._digests).encode()
