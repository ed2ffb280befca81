"""Read the certificate table that a host puts beside an SEV-SNP report; makes no trust claim.

Source: AMD, SEV-ES Guest-Hypervisor Communication Block Standardization (56421) 2.03, section 4.1.8.1: entries of
GUID (16 bytes in the order of RFC 4122), offset and length (32 bits each, little-endian), ended by one of zeros.
"""

import struct
from typing import Final
from uuid import UUID

from confide_attestation.evidence import SnpEndorsements

from confide_enclave.errors import DeviceUnavailable

MAX_ENTRIES: Final = 16
_ENTRY: Final = struct.Struct("<16sII")
_VCEK, _VLEK, _ASK, _ARK, _CRL = (
    UUID(text).bytes
    for text in (
        "63da758d-e664-4564-adc5-f4b93be8accd",
        "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
        "4ab7b379-bbac-4fe4-a02f-05aef327c782",
        "c0b406a4-a803-4952-9743-3fb6014cd0ae",
        "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
    )
)


def parse_certificate_table(table: bytes) -> SnpEndorsements | None:
    """Return what the host offers; None if there is no key's certificate in it, as on bare metal.

    Raises: DeviceUnavailable if the table contradicts itself. Does not check: the certificates.
    """
    found: dict[bytes, bytes] = {}
    for number in range(MAX_ENTRIES):
        at = number * _ENTRY.size
        if not any(table[at : at + _ENTRY.size]):
            break
        if at + _ENTRY.size > len(table):
            raise _malformed("it does not end")
        guid, offset, length = _ENTRY.unpack_from(table, at)
        if offset + length > len(table):
            raise _malformed("an entry lies beyond its end")
        if guid in found:
            raise _malformed("an entry is there twice")
        found[guid] = table[offset : offset + length]
    else:
        raise _malformed(f"it has more than {MAX_ENTRIES} entries")
    vek = found.get(_VLEK) or found.get(_VCEK)
    if not vek:
        return None
    return SnpEndorsements(
        vek=vek, ask=found.get(_ASK) or None, ark=found.get(_ARK) or None, crl=found.get(_CRL) or None
    )


def _malformed(what: str) -> DeviceUnavailable:
    return DeviceUnavailable(f"the host's certificate table is malformed: {what}")
