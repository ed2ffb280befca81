"""Cross-origin access for an explicit list of origins; everybody else's browser is told nothing."""

from collections.abc import Sequence

from confide_protocol import labels

Fields = list[tuple[bytes, bytes]]

METHODS = b"GET, POST"
HEADERS = b"authorization, content-type, incremental"
MAX_AGE_S = 600
# EHBP leaves the application's own fields where they are: those of OpenAI's SDK pass the browser, and end here.
_STAINLESS = ("arch", "lang", "os", "package-version", "retry-count", "runtime", "runtime-version", "timeout")
EHBP_HEADERS = ", ".join(["", labels.FIELD_EHBP_KEY, *(f"x-stainless-{name}" for name in _STAINLESS)]).encode()
EHBP_EXPOSED = (b"access-control-expose-headers", f"{labels.FIELD_EHBP_NONCE}, {labels.FIELD_KEYSET}".encode())


class Cors:
    """Answers for exact origins. No wildcard, no credentials mode: a key travels in `authorization` only."""

    def __init__(self, origins: Sequence[str], *, ehbp: bool = False) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._headers, self._exposed = (HEADERS + EHBP_HEADERS, [EHBP_EXPOSED]) if ehbp else (HEADERS, [])

    def fields(self, origin: bytes) -> Fields:
        """Return what every answer to this origin carries."""
        if origin not in self._origins:
            return []
        return [(b"vary", b"origin"), (b"access-control-allow-origin", origin), *self._exposed]

    def preflight(self, origin: bytes | None) -> Fields | None:
        """Return what a 204 to a preflight carries besides, or None where the origin is not on the list."""
        if origin is None or origin not in self._origins:
            return None
        return [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", self._headers),
            (b"access-control-max-age", str(MAX_AGE_S).encode()),
        ]
