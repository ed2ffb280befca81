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
    (der,) = pem_blocks(data, label, (1,))
    return der


def pem_blocks(data: bytes, label: str, counts: tuple[int, ...]) -> tuple[bytes, ...]:
    """Return the DER of each PEM block in order; all are of `label`, and there are as many as one of `counts`.

    Raises: EvidenceMalformed.
    """
    blocks = _BLOCK.findall(data)
    if len(blocks) not in counts or any(name.decode() != label for name, _ in blocks):
        wanted = " or ".join(map(str, counts))
        raise EvidenceMalformed(f"expected {wanted} PEM block(s) of {label}, found {len(blocks)} of any kind")
    try:
        return tuple(base64.b64decode(b"".join(text.split()), validate=True) for _, text in blocks)
    except binascii.Error:
        raise EvidenceMalformed("a PEM block is not base64") from None
