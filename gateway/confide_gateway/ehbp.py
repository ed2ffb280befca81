"""What EHBP asks of the gateway: the key of a verified node, and bodies that pass as they are (SPEC 11).

EHBP leaves path and header fields in clear. All that goes on to a node is of our own making: a path of a closed
form, one field of 64 hex digits, and the account. A body without that field is in clear, and is refused unread.
"""

import json
import re
from typing import Final

from confide_protocol import labels
from confide_protocol.keyconfig import KeyConfig, encode_key_configs

from confide_gateway.asgi import Scope
from confide_gateway.cors import Fields
from confide_gateway.forward import UpstreamResponse

MEDIA_JSON: Final = "application/json"
MEDIA_EVENTS: Final = "text/event-stream"
NO_STORE: Final = (b"cache-control", b"no-store")
# What a node's own clear answers may tell a client of EHBP beside what others are told.
STALE_KEY: Final = 422
TURNED_OFF: Final = 404  # in clear: one that speaks EHBP seals what it says of a path
CLEAR_BODY_STATUS: Final = 415
CLEAR_BODY: Final = json.dumps(
    {
        "error": {
            "message": "This gateway takes no prompt in clear, and has not read this one. Use confide.OpenAI, "
            "`confide proxy`, or a client that speaks EHBP.",
            "type": "invalid_request_error",
            "param": None,
            "code": "clear_body_refused",
        }
    }
).encode()
_API_PATH: Final = re.compile(re.escape(labels.PATH_API) + r"[A-Za-z0-9._:/-]{1,256}")
_HEX_32: Final = re.compile(r"[0-9a-f]{64}")


def serves(path: str) -> bool:
    return path.startswith(labels.PATH_API) or path == labels.PATH_EHBP_KEYS


def api_path(scope: Scope) -> str | None:
    """Return the path to ask a node for, or None for one that no API has. The query is left out."""
    path: str = scope["path"]
    return path if _API_PATH.fullmatch(path) and _is_plain(path) else None


def _is_plain(path: str) -> bool:
    """Tell whether the path is one that every forwarder and every server reads as it stands."""
    return "//" not in path and ".." not in path and "." not in path.split("/")


def is_encapsulated_key(value: bytes) -> bool:
    return _HEX_32.fullmatch(value.decode("latin-1")) is not None


def key_config(key: bytes) -> bytes:
    """The one key configuration as EHBP's clients read it: without the length before it (RFC 9458 section 3)."""
    return encode_key_configs([KeyConfig(0, 0x0020, key, ((0x0001, 0x0002),))])[2:]


def answer_fields(response: UpstreamResponse) -> Fields | None:
    """Return the head of a node's answer if it is one to pass on: sealed, or the clear one to a GET."""
    if response.content_type not in (MEDIA_JSON, MEDIA_EVENTS):
        return None
    fields: Fields = [(b"content-type", response.content_type.encode()), NO_STORE]
    if response.ehbp_nonce:
        if not _HEX_32.fullmatch(response.ehbp_nonce):
            return None
        fields.append((labels.FIELD_EHBP_NONCE.encode(), response.ehbp_nonce.encode()))
    return fields
