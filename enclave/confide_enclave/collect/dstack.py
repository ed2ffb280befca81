"""Quote and event log from dstack's guest agent, over its unix socket.

Source: dstack, sdk/curl/api.md (GetQuote, 0.5 and later). The older agent (tappd) is not asked: it is superseded.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confide_enclave.collect.files import Files, unavailable
from confide_enclave.collect.http import post_json
from confide_enclave.errors import DeviceUnavailable

DSTACK_SOCKET: Final = Path("/var/run/dstack.sock")
_OLD_SOCKET: Final = "tappd.sock"


@dataclass(frozen=True)
class DstackQuote:
    """A TDX quote, and the JSON text of the log that replays into its registers."""

    quote: bytes
    event_log: bytes


def read_dstack(report_data: bytes, *, socket: Path, timeout_s: float) -> DstackQuote:
    """Ask for a quote over 64 bytes as they are. Raises: DeviceUnavailable. Does not check: the quote, the log."""
    files = Files()
    if not files.exists(socket):
        if files.exists(socket.parent / _OLD_SOCKET):
            raise DeviceUnavailable(
                f"{socket}: not there, only the older {_OLD_SOCKET}; dstack 0.5 or later is needed"
            )
        raise DeviceUnavailable(
            f"{socket}: not there; it needs a dstack machine, and the socket mounted into this container"
        )
    if not os.access(socket, os.R_OK | os.W_OK):
        raise unavailable(socket, PermissionError(errno.EACCES, ""), "")
    tree = post_json(
        "http://dstack/GetQuote", {"report_data": report_data.hex()}, timeout_s=timeout_s, socket=str(socket)
    )
    quote, log = _text(tree, "quote", socket), _text(tree, "event_log", socket)
    try:
        return DstackQuote(bytes.fromhex(quote), log.encode())
    except ValueError:
        raise DeviceUnavailable(f"{socket}: its quote is not hexadecimal") from None


def _text(tree: dict[str, Any], name: str, socket: Path) -> str:
    value = tree.get(name)
    if not isinstance(value, str) or not value:
        raise DeviceUnavailable(f"{socket}: its answer has no {name}")
    return value
