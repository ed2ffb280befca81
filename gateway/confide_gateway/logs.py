"""Structured logs: one JSON object a line on standard error; never a body, a key or a peer's text."""

import logging
import sys
from typing import Any, Protocol

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Log(Protocol):
    def debug(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401 - structlog's own signature
    def info(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401
    def warning(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401
    def error(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401


def make_log(level: str) -> Log:
    """Make the gateway's logger and silence the libraries': their lines carry fields and addresses of clients."""
    logging.getLogger().addHandler(logging.NullHandler())
    for library in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "httpx2", "httpcore2"):
        logger = logging.getLogger(library)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
        logger.setLevel(logging.CRITICAL)
    log: Log = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        component="gateway",
    )
    return log
