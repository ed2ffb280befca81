"""Read files that may be PEM or DER; makes no trust claim."""

import base64
import binascii
import re

from confide_attestation.errors import EvidenceMalformed

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END \1-----")


def pem_or_der(data: bytes, label: str) -> bytes:
    """Return the DER of a file that holds exactly one PEM block of `label`, or is no PEM at all.

    Raises: EvidenceMalformed. Does not check: that a file without PEM is DER.
    """
    if b"-----BEGIN" not in data:
        return data
    blocks = _BLOCK.findall(data)
    if len(blocks) != 1 or blocks[0][0].decode() != label:
        raise EvidenceMalformed(f"expected one PEM block of {label}, found {len(blocks)} of any kind")
    try:
        return base64.b64decode(b"".join(blocks[0][1].split()), validate=True)
    except binascii.Error:
        raise EvidenceMalformed("the PEM block is not base64") from None
