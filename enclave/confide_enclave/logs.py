"""Structured logs that cannot carry content: keys outside a short list are dropped, values are plain."""

import logging
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

ALLOWED: Final = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "path",
        "method",
        "status",
        "kind",
        "duration_ms",
        "error",
        "code",
        "count",
        "keyset",
        "manifest",
        "file",
        "setting",
        "remedy",
        "reason",
        "device",
        "weights",
        "cache",
        "steps",
    }
)
MAX_VALUE_CHARS: Final = 128
# What is wrong with a setting, a file or a device is cut rather than dropped. It may quote those, and what vendors
# say: whoever logs such a sentence sees to it that no word of a request, an answer or an engine is in it.
SENTENCES: Final = frozenset({"file", "setting", "remedy", "reason"})
MAX_SENTENCE_CHARS: Final = 400


def configure(stream: TextIO) -> None:
    """Send structlog as JSON lines to `stream`, and of other libraries' records no more than who and what type."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            keep_allowed,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Foreign()]
    root.setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def keep_allowed(_: object, __: str, record: MutableMapping[str, Any]) -> dict[str, Any]:
    """Drop every key that is not on the list and every value that is no short plain one; cut long sentences."""
    return {key: _cut(key, value) for key, value in record.items() if key in ALLOWED and _is_plain(key, value)}


def _is_plain(key: str, value: object) -> bool:
    if isinstance(value, str):
        return key in SENTENCES or len(value) <= MAX_VALUE_CHARS
    return isinstance(value, (int, float))


def _cut(key: str, value: Any) -> Any:  # noqa: ANN401
    if key in SENTENCES and isinstance(value, str) and len(value) > MAX_SENTENCE_CHARS:
        return value[: MAX_SENTENCE_CHARS - 1] + "…"
    return value


class _Foreign(logging.Handler):
    """Other libraries' messages and tracebacks may quote what they handled: only their origin is kept."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        structlog.get_logger().log(
            record.levelno, f"library.{record.name[:64]}", error=kind.__name__ if kind else record.levelname
        )
