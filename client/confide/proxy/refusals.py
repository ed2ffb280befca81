"""Errors as OpenAI's clients read them: a stable code, what to do, and whether to ask again."""

import json
from typing import Any

import httpx2
from confide_protocol.errors import ConfideError, LocalStateError, ProtocolError, RelayRefused, TooLarge

from confide.errors import RefusedAfterSending
from confide.proxy.guard import Refused

# What a gateway's clear answer may become; it is unauthenticated, and every other one is 502.
_PASSED = frozenset({401, 413, 429, 503})
NOT_SENT = "The proxy never sends a request in clear."


def status_of(fault: Exception) -> int:
    if isinstance(fault, Refused):
        return fault.status
    if isinstance(fault, RelayRefused):
        return fault.status if fault.status in _PASSED else 502
    if isinstance(fault, httpx2.TimeoutException):
        return 504
    if isinstance(fault, TooLarge):
        return 413
    if isinstance(fault, LocalStateError):
        return 400  # the caller's request cannot be sealed
    if isinstance(fault, ProtocolError):
        return 502  # the peer is the gateway's side
    return fault.http_status if isinstance(fault, ConfideError) else 500


def body_of(fault: Exception) -> dict[str, Any]:
    """Return OpenAI's error object. Texts are our own: no byte of a peer's is among them."""
    status = status_of(fault)
    if isinstance(fault, Refused):
        code, message = fault.name, str(fault)
    elif isinstance(fault, ConfideError):
        code, message = fault.code, f"{_sentence(str(fault))} {NOT_SENT}"
    elif isinstance(fault, httpx2.TimeoutException):
        code, message = "timeout", "The gateway was silent for too long; the enclave may have run the request."
    else:
        code, message = "internal", "The proxy failed; its log names the error."
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def may_retry(fault: Exception) -> bool:
    """Whether a client may ask again by itself: only where nothing sealed had left, whatever the gateway says."""
    if isinstance(fault, Refused):
        return fault.retry
    if isinstance(fault, RefusedAfterSending):
        return False
    return isinstance(fault, RelayRefused) and fault.status in (429, 503)


def event_of(fault: Exception) -> bytes:
    """Return the event that ends a stream in an error."""
    return b"data: " + json.dumps(body_of(fault)).encode() + b"\n\n"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
