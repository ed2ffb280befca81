"""Parse SPDM 1.1 measurement reports of NVIDIA devices; makes no trust claim.

Source: DMTF DSP0274 1.1.0, tables "GET_MEASUREMENTS request" and "MEASUREMENTS response"; NVIDIA/nvtrust
local_gpu_verifier `attestation/`; NVIDIA/attestation-sdk `gpu_opaque_data_parser.hpp`.
Layout: request (37 bytes) || response || signature r || s (96 bytes), integers little-endian, r and s big-endian.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from confide_attestation.errors import EvidenceMalformed

NONCE_BYTES = 32
SIGNATURE_BYTES = 96
MAX_REPORT_BYTES = 0x2000
_REQUEST_HEAD = bytes.fromhex("11e001ff")
_RESPONSE_HEAD = bytes.fromhex("1160")
_REQUEST_BYTES = 37
_BLOCKS_AT = 45
_SPEC_DMTF = 1


class Opaque(IntEnum):
    """Types of opaque data that are used here; others are kept as they are, since they are signed too."""

    DRIVER_VERSION = 3
    VBIOS_VERSION = 6
    NVDEC0_STATUS = 11
    CHIP_SKU = 15
    PROJECT = 17
    PROJECT_SKU = 18
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    SWITCH_PDI = 22
    LOCK_SWITCH_STATUS = 25
    SWITCH_GPU_PDIS = 26
    CHIP_INFO = 35
    FEATURE_FLAG = 36


class Measurement(NamedTuple):
    """One block's value. The top bit of `kind` (DMTFSpecMeasurementValueType) says that it is no digest."""

    kind: int
    value: bytes


@dataclass(frozen=True)
class SpdmReport:
    """The transcript's fields as they lie; nothing is judged. `measurements` counts from 0, as RIMs do."""

    raw: bytes
    nonce: bytes
    slot_id: int
    responder_nonce: bytes
    measurements: tuple[Measurement, ...]
    opaque: Mapping[int, bytes]

    @property
    def signed(self) -> bytes:
        """Return the transcript without its signature: no SPDM 1.2 prefix."""
        return self.raw[:-SIGNATURE_BYTES]

    @property
    def signature(self) -> bytes:
        return self.raw[-SIGNATURE_BYTES:]


def parse_spdm(data: bytes) -> SpdmReport:
    """Parse request and response, exactly to the end.

    Raises: EvidenceMalformed. Does not check: any value, the signature, which opaque data should be there.
    """
    if not _BLOCKS_AT + NONCE_BYTES + 2 + SIGNATURE_BYTES <= len(data) <= MAX_REPORT_BYTES:
        raise EvidenceMalformed(f"{len(data)} bytes are no measurement report")
    if data[:4] != _REQUEST_HEAD:
        raise EvidenceMalformed("it does not begin with a GET_MEASUREMENTS request of SPDM 1.1 for all, signed")
    if data[_REQUEST_BYTES : _REQUEST_BYTES + 2] != _RESPONSE_HEAD:
        raise EvidenceMalformed("no MEASUREMENTS response of SPDM 1.1 follows the request")
    count, record_bytes = data[41], int.from_bytes(data[42:45], "little")
    at = _BLOCKS_AT + record_bytes
    if len(data) < at + NONCE_BYTES + 2 + SIGNATURE_BYTES:
        raise EvidenceMalformed("the measurement record is longer than the report")
    measurements = _blocks(data[_BLOCKS_AT:at], count)
    opaque_at = at + NONCE_BYTES + 2
    opaque_bytes = int.from_bytes(data[opaque_at - 2 : opaque_at], "little")
    surplus = len(data) - (opaque_at + opaque_bytes + SIGNATURE_BYTES)
    if surplus:
        raise EvidenceMalformed(
            f"{surplus} bytes follow the signature" if surplus > 0 else f"the report is {-surplus} bytes short"
        )
    return SpdmReport(
        raw=data,
        nonce=data[4:36],
        slot_id=data[36],
        responder_nonce=data[at : at + NONCE_BYTES],
        measurements=measurements,
        opaque=_opaque(data[opaque_at : opaque_at + opaque_bytes]),
    )


def _blocks(record: bytes, count: int) -> tuple[Measurement, ...]:
    found: list[Measurement] = []
    at, end = 0, len(record)
    while at < end:
        if end - at < 7:
            raise EvidenceMalformed("a measurement block is cut off")
        size = record[at + 2] | record[at + 3] << 8
        value_size = record[at + 5] | record[at + 6] << 8
        if record[at] != len(found) + 1:
            raise EvidenceMalformed("measurement blocks do not count from 1 without gap or repetition")
        if record[at + 1] != _SPEC_DMTF or value_size != size - 3:
            raise EvidenceMalformed(f"measurement block {record[at]} is not of DMTF's form")
        if at + 4 + size > end:
            raise EvidenceMalformed("a measurement block is cut off")
        found.append(Measurement(record[at + 4], record[at + 7 : at + 4 + size]))
        at += 4 + size
    if len(found) != count:
        raise EvidenceMalformed(f"{count} measurement blocks are announced, {len(found)} are there")
    return tuple(found)


def _opaque(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            raise EvidenceMalformed("the opaque data is cut off")
        kind, size = data[at] | data[at + 1] << 8, data[at + 2] | data[at + 3] << 8
        at += 4 + size
        if at > len(data):
            raise EvidenceMalformed("the opaque data is cut off")
        if kind in found:
            raise EvidenceMalformed(f"opaque data of type {kind} is there twice")
        found[kind] = data[at - size : at]
    return found
