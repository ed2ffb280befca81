"""TDREPORTs through /dev/tdx_guest: proof for the same machine alone, until a quoting service signs them.

Source: Linux, include/uapi/linux/tdx-guest.h; Intel TDX Module ABI, TDREPORT_STRUCT.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from confide_enclave.collect.files import unavailable
from confide_enclave.errors import DeviceUnavailable

TDX_GUEST: Final = Path("/dev/tdx_guest")
# _IOWR('T', 1, struct tdx_report_req): 64 bytes in, 1,024 bytes out.
TDX_CMD_GET_REPORT0: Final = 0xC4405401
REPORT_DATA_BYTES: Final = 64
TDREPORT_BYTES: Final = 1024
_TD: Final = b"\x81"
_REPORT_DATA_AT: Final = slice(128, 192)
Ioctl = Callable[[int, int, bytearray], object]


def read_tdreport(report_data: bytes, *, path: Path, ioctl: Ioctl) -> bytes:
    """Ask for a TDREPORT over 64 bytes. Raises: DeviceUnavailable."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as fault:
        raise unavailable(
            path, fault, "it needs a TDX guest with the module tdx_guest (modprobe tdx_guest)"
        ) from None
    request = bytearray(report_data + bytes(TDREPORT_BYTES))
    try:
        ioctl(handle, TDX_CMD_GET_REPORT0, request)
    except OSError as fault:
        raise unavailable(path, fault, "the driver gave no report") from None
    finally:
        os.close(handle)
    report = bytes(request[REPORT_DATA_BYTES:])
    if report[:1] != _TD:
        raise DeviceUnavailable(f"{path}: what it gave is no TDREPORT")
    if report[_REPORT_DATA_AT] != report_data:
        raise DeviceUnavailable(f"{path}: the report answers another question")
    return report
