"""Confide: OpenAI's API over an enclave that was verified before the first byte, with a signed receipt back."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from confide_attestation.errors import AppraisalRejected
    from confide_protocol.errors import ConfideError, PolicyError, ReceiptInvalid, RelayRefused

    from confide.openai import AsyncOpenAI, OpenAI
    from confide.policy_memory import PolicyMemory
    from confide.relay import Limits, Link
    from confide.session import Receipt
    from confide.transport import AsyncTransport, Transport

__all__ = [
    "AppraisalRejected",
    "AsyncOpenAI",
    "AsyncTransport",
    "ConfideError",
    "Limits",
    "Link",
    "OpenAI",
    "PolicyError",
    "PolicyMemory",
    "Receipt",
    "ReceiptInvalid",
    "RelayRefused",
    "Transport",
]
_HOMES = {
    "AppraisalRejected": "confide_attestation.errors",
    "AsyncOpenAI": "confide.openai",
    "AsyncTransport": "confide.transport",
    "ConfideError": "confide_protocol.errors",
    "Limits": "confide.relay",
    "Link": "confide.relay",
    "OpenAI": "confide.openai",
    "PolicyError": "confide_protocol.errors",
    "PolicyMemory": "confide.policy_memory",
    "Receipt": "confide.session",
    "ReceiptInvalid": "confide_protocol.errors",
    "RelayRefused": "confide_protocol.errors",
    "Transport": "confide.transport",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562: `import confide` stays light
    if name not in _HOMES:
        raise AttributeError(f"module 'confide' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
