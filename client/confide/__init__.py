"""Confide: OpenAI's API over an enclave that was verified before the first byte, with a signed receipt back."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from confide_attestation.errors import AppraisalRejected
    from confide_protocol.errors import (
        ConfideError,
        ConfigError,
        PolicyError,
        ReceiptInvalid,
        RelayRefused,
        RelayUnreachable,
        Truncated,
    )

    from confide.anyhttp import async_verified_transport, verified_transport
    from confide.errors import NotConfide, OutcomeUnknown, RuntimeUnfit
    from confide.fetch import Limits, Link
    from confide.openai import AsyncOpenAI, OpenAI
    from confide.policy_memory import PolicyMemory
    from confide.relay import Relay
    from confide.session import Receipt
    from confide.transport import AsyncTransport, Transport
    from confide.views import Attestation

__all__ = [
    "AppraisalRejected",
    "AsyncOpenAI",
    "AsyncTransport",
    "Attestation",
    "ConfideError",
    "ConfigError",
    "Limits",
    "Link",
    "NotConfide",
    "OpenAI",
    "OutcomeUnknown",
    "PolicyError",
    "PolicyMemory",
    "Receipt",
    "ReceiptInvalid",
    "Relay",
    "RelayRefused",
    "RelayUnreachable",
    "RuntimeUnfit",
    "Transport",
    "Truncated",
    "async_verified_transport",
    "verified_transport",
]
_ERRORS = "confide_protocol.errors"
_HOMES = {
    "AppraisalRejected": "confide_attestation.errors",
    "AsyncOpenAI": "confide.openai",
    "AsyncTransport": "confide.transport",
    "Attestation": "confide.views",
    "ConfideError": _ERRORS,
    "ConfigError": _ERRORS,
    "Limits": "confide.fetch",
    "Link": "confide.fetch",
    "NotConfide": "confide.errors",
    "OpenAI": "confide.openai",
    "OutcomeUnknown": "confide.errors",
    "PolicyError": _ERRORS,
    "PolicyMemory": "confide.policy_memory",
    "Receipt": "confide.session",
    "ReceiptInvalid": _ERRORS,
    "Relay": "confide.relay",
    "RelayRefused": _ERRORS,
    "RelayUnreachable": _ERRORS,
    "RuntimeUnfit": "confide.errors",
    "Transport": "confide.transport",
    "Truncated": _ERRORS,
    "async_verified_transport": "confide.anyhttp",
    "verified_transport": "confide.anyhttp",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562: `import confide` stays light
    if name not in _HOMES:
        raise AttributeError(f"module 'confide' has no attribute {name!r}")
    home = _HOMES[name]
    if not home.endswith(".errors"):
        # Modules that seal and verify cannot even be imported without it.
        import_module("confide.runtime").demand_cryptography()
    return getattr(import_module(home), name)
