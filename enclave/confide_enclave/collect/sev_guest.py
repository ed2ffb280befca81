"""SEV-SNP reports through /dev/sev-guest, where configfs-tsm is absent.

Source: Linux, include/uapi/linux/sev-guest.h; AMD, SEV-SNP Firmware ABI (56860), MSG_REPORT_RSP.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confide_enclave.collect.files import unavailable
from confide_enclave.errors import DeviceUnavailable

SEV_GUEST: Final = Path("/dev/sev-guest")
REPORT_BYTES: Final = 1184
# _IOWR('S', 0 and 2, struct snp_guest_request_ioctl), which has 32 bytes.
SNP_GET_REPORT: Final = 0xC0205300
SNP_GET_EXT_REPORT: Final = 0xC0205302
# version, request, response, exitinfo2: firmware error in its low half, the host's in its high half
_GUEST_REQUEST: Final = struct.Struct("<B7xQQQ")
# report data, VMPL
_REPORT_REQUEST: Final = struct.Struct("<64sI28x")
_CERTIFICATES: Final = struct.Struct("<QI4x")
_RESPONSE_HEAD: Final = struct.Struct("<II24x")
_RESPONSE_BYTES: Final = 4000
# The most that the driver takes (SEV_FW_BLOB_MAX_SIZE).
_TABLE_BYTES: Final = 16 * 1024
_HOST_BUFFER_TOO_SMALL, _HOST_BUSY = 1, 2
# Linux, include/uapi/linux/psp-sev.h
_FIRMWARE: Final = {
    0x01: "invalid platform state",
    0x02: "invalid guest state",
    0x07: "against the guest's policy",
    0x13: "hardware error",
    0x14: "hardware error; restart the host",
    0x16: "invalid parameter",
    0x17: "resource limit",
    0x27: "invalid key: the platform has none of the kind to sign with",
}
_FIRMWARE_NOT_CALLED: Final = 0xFFFF_FFFF
Ioctl = Callable[[int, int, bytearray], object]


@dataclass(frozen=True)
class SevGuestReport:
    report: bytes
    certificates: bytes


def read_sev_guest(report_data: bytes, *, path: Path, ioctl: Ioctl) -> SevGuestReport:
    """Ask for a report over 64 bytes at VMPL 0, with the host's certificate table if it has one that fits.

    Raises: DeviceUnavailable. Does not check: the report's content.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as fault:
        raise unavailable(
            path, fault, "it needs an SEV-SNP guest with the module sev-guest (modprobe sev-guest)"
        ) from None
    request = _REPORT_REQUEST.pack(report_data, 0)
    try:
        table = ctypes.create_string_buffer(_TABLE_BYTES)
        extended = request + _CERTIFICATES.pack(ctypes.addressof(table), _TABLE_BYTES)
        report = _ask(handle, SNP_GET_EXT_REPORT, extended, path, ioctl)
        if report is not None:
            return SevGuestReport(report, table.raw)
        report = _ask(handle, SNP_GET_REPORT, request, path, ioctl)
    finally:
        os.close(handle)
    if report is None:
        raise DeviceUnavailable(f"{path}: the host wants room for certificates that were not asked for")
    return SevGuestReport(report, b"")


def _ask(handle: int, code: int, request: bytes, path: Path, ioctl: Ioctl) -> bytes | None:
    """Return the report; None if the host's certificates do not fit into what the driver takes."""
    asked = ctypes.create_string_buffer(request, len(request))
    answer = ctypes.create_string_buffer(_RESPONSE_BYTES)
    command = bytearray(_GUEST_REQUEST.pack(1, ctypes.addressof(asked), ctypes.addressof(answer), 0))
    try:
        ioctl(handle, code, command)
    except OSError as fault:
        errors = _GUEST_REQUEST.unpack(command)[3]
        host, firmware = errors >> 32, errors & 0xFFFF_FFFF
        if host == _HOST_BUFFER_TOO_SMALL:
            return None
        raise _refusal(path, fault, host, firmware) from None
    status, size = _RESPONSE_HEAD.unpack_from(answer.raw)
    if status:
        raise _firmware(path, status)
    if size != REPORT_BYTES:
        raise DeviceUnavailable(f"{path}: a report of {size} bytes, not {REPORT_BYTES}")
    return answer.raw[_RESPONSE_HEAD.size : _RESPONSE_HEAD.size + REPORT_BYTES]


def _refusal(path: Path, fault: OSError, host: int, firmware: int) -> DeviceUnavailable:
    if host == _HOST_BUSY:
        return DeviceUnavailable(f"{path}: the host is busy with other guests' reports; try again later")
    if host:
        return DeviceUnavailable(f"{path}: the host refused with error {host:#x}")
    if firmware not in (0, _FIRMWARE_NOT_CALLED):
        return _firmware(path, firmware)
    if fault.errno == errno.ENOTTY:
        return DeviceUnavailable(
            f"{path}: the driver gives no reports; if an error disabled its key, restart the machine"
        )
    return unavailable(path, fault, "the driver gave no report")


def _firmware(path: Path, status: int) -> DeviceUnavailable:
    return DeviceUnavailable(f"{path}: the firmware refused with {status:#x}, {_FIRMWARE.get(status, 'unknown')}")
