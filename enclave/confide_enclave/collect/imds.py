"""Azure's metadata service turns a TDREPORT into a TDX quote.

Source: Microsoft, "Azure confidential VM guest attestation" (POST /acc/tdquote).
"""

import base64
from typing import Final

from confide_enclave.collect.http import post_json
from confide_enclave.errors import DeviceUnavailable

IMDS_URL: Final = "http://169.254.169.254"


def quote_tdreport(report: bytes, *, base_url: str, timeout_s: float) -> bytes:
    """Return the quote of a TDREPORT. Raises: DeviceUnavailable. Does not check: the quote."""
    url = f"{base_url}/acc/tdquote"
    text = base64.urlsafe_b64encode(report).rstrip(b"=").decode()
    quote = post_json(url, {"report": text}, timeout_s=timeout_s).get("quote")
    bare = quote.rstrip("=") if isinstance(quote, str) else ""
    try:
        data = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except ValueError:
        data = b""
    if not data:
        raise DeviceUnavailable(f"{url}: its answer has no quote in base64url")
    return data
