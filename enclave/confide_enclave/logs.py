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
    }
)
MAX_VALUE_CHARS: Final = 128


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
    """Drop every key that is not on the list and every value that is no short plain one."""
    return {
        key: value
        for key, value in record.items()
        if key in ALLOWED
        and (isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= MAX_VALUE_CHARS))
    }


class _Foreign(logging.Handler):
    """Other libraries' messages and tracebacks may quote what they handled: only their origin is kept."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        structlog.get_logger().log(
            record.levelno, f"library.{record.name[:64]}", error=kind.__name__ if kind else record.levelname
        )
