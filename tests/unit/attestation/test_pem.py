"""PEM or DER: one block of the right label, or bytes as they are."""

import base64

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.pem import pem_or_der

BLOCK = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(b"der" * 40) + b"-----END CERTIFICATE-----\n"


def test_one_block_gives_its_bytes_and_der_stays_itself() -> None:
    """Text around a block and CRLF do not matter."""
    assert pem_or_der(BLOCK, "CERTIFICATE") == b"der" * 40
    assert pem_or_der(b"subject=x\r\n" + BLOCK.replace(b"\n", b"\r\n"), "CERTIFICATE") == b"der" * 40
    assert pem_or_der(b"\x30\x00", "CERTIFICATE") == b"\x30\x00"


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (BLOCK * 2, "CERTIFICATE"),
        (BLOCK, "X509 CRL"),
        (BLOCK[:-30], "CERTIFICATE"),
        (BLOCK.replace(b"ZGVy", b"ZGV=", 1), "CERTIFICATE"),
        (b"-----BEGIN CERTIFICATE-----", "CERTIFICATE"),
    ],
)
def test_anything_else_is_malformed(data: bytes, label: str) -> None:
    """Two blocks, another label, a torn block and bad base64 are named as such."""
    with pytest.raises(EvidenceMalformed):
        pem_or_der(data, label)
