"""Cross-origin access for an explicit list of origins; everybody else's browser is told nothing."""

from collections.abc import Sequence

Fields = list[tuple[bytes, bytes]]

METHODS = b"GET, POST"
HEADERS = b"authorization, content-type, incremental"
MAX_AGE_S = 600


class Cors:
    """Answers for exact origins. No wildcard, no credentials mode: a key travels in `authorization` only."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def fields(self, origin: bytes) -> Fields:
        """Return what every answer to this origin carries."""
        if origin not in self._origins:
            return []
        return [(b"vary", b"origin"), (b"access-control-allow-origin", origin)]

    def preflight(self, origin: bytes | None) -> Fields | None:
        """Return what a 204 to a preflight carries besides, or None where the origin is not on the list."""
        if origin is None or origin not in self._origins:
            return None
        return [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", HEADERS),
            (b"access-control-max-age", str(MAX_AGE_S).encode()),
        ]
