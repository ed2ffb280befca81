"""Which model a receipt has to name (SPEC 9.2.2)."""

import json

from confide_protocol.keyset import Manifest
from confide_protocol.receipt import ReceiptClaims


def expected_model(manifest: Manifest, claims: ReceiptClaims, request_body: bytes) -> str:
    """Return the model that the request named, if the manifest has it and nothing was refused, else the first."""
    if not manifest.more_models or claims.outcome == "refused":
        return manifest.model
    try:
        request = json.loads(request_body.decode())
    except (ValueError, RecursionError):
        return manifest.model
    name = request.get("model") if isinstance(request, dict) else None
    named = manifest.find(name) if isinstance(name, str) else None
    return manifest.model if named is None else named.model
