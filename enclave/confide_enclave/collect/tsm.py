"""Reports through configfs-tsm, which SEV-SNP and TDX guests share.

Source: Linux, Documentation/ABI/testing/configfs-tsm-report (6.7 and later).
"""

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from confide_enclave.collect.files import Files, unavailable
from confide_enclave.errors import DeviceUnavailable

TSM_ROOT: Final = Path("/sys/kernel/config/tsm/report")
MAX_BLOB_BYTES: Final = 64 * 1024
MAX_ATTEMPTS: Final = 3
REPORT_DATA_BYTES: Final = 64
# Somebody else used the device, or a signal came: asking again may do.
_PASSING: Final = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR})


class Provider(StrEnum):
    """The kernel's drivers, by the names that they report."""

    SNP = "sev_guest"
    TDX = "tdx_guest"


@dataclass(frozen=True)
class TsmReport:
    """What the hardware signed, and what the host puts beside it (SEV-SNP: the certificate table)."""

    outblob: bytes
    auxblob: bytes


def read_tsm(
    report_data: bytes, provider: Provider, *, root: Path, files: Files, random: Callable[[int], bytes]
) -> TsmReport:
    """Ask for a report over 64 bytes, through an entry of our own that is removed whatever happens.

    Raises: DeviceUnavailable. Does not check: that the report holds the 64 bytes, which is its reader's.
    """
    if not files.exists(root):
        raise DeviceUnavailable(
            f"{root}: not there; it needs a confidential VM with Linux 6.7 or later, the module {provider} loaded "
            "and configfs mounted (mount -t configfs none /sys/kernel/config)"
        )
    for _ in range(MAX_ATTEMPTS):
        report = _attempt(report_data, provider, root / f"confide-{random(8).hex()}", files)
        if report is not None:
            return report
    raise DeviceUnavailable(
        f"{root}: busy, or asked something else in between, {MAX_ATTEMPTS} times; try again later"
    )


def _attempt(report_data: bytes, provider: Provider, entry: Path, files: Files) -> TsmReport | None:
    """Return None if it is worth another try."""
    try:
        files.mkdir(entry)
    except OSError as fault:
        raise unavailable(entry.parent, fault, f"no driver serves it: run modprobe {provider}") from None
    try:
        found = files.read(entry / "provider", 64).decode("ascii", "replace").strip()
        if found != provider:
            raise DeviceUnavailable(
                f"{entry.parent}: its provider is {found[:32]!r}, not {provider}: this machine has another TEE; "
                "correct `platform`"
            )
        writes = 1
        # Under an SVSM the guest is no longer at level 0, and a report for that level is refused.
        if files.exists(entry / "privlevel_floor") and (floor := _number(files, entry / "privlevel_floor")) > 0:
            files.write(entry / "privlevel", str(floor).encode())
            writes += 1
        files.write(entry / "inblob", report_data)
        # The kernel hides a failure of the write itself: only this count tells that it was taken, and no other.
        if _number(files, entry / "generation") != writes:
            return None
        outblob = files.read(entry / "outblob", MAX_BLOB_BYTES)
        auxblob = files.read(entry / "auxblob", MAX_BLOB_BYTES) if files.exists(entry / "auxblob") else b""
        if _number(files, entry / "generation") != writes:
            return None
    except OSError as fault:
        if fault.errno in _PASSING:
            return None
        raise unavailable(entry.parent, fault, "the driver gave no report") from None
    finally:
        with suppress(OSError):
            files.rmdir(entry)
    return TsmReport(outblob, auxblob)


def _number(files: Files, path: Path) -> int:
    text = files.read(path, 32).strip()
    if not text.isdigit():
        raise DeviceUnavailable(f"{path.parent.parent}: its {path.name} is no number")
    return int(text)
