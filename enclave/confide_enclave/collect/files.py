"""Files as the kernel shows its devices, and what a person reads when one cannot be used."""

import errno
import os
from pathlib import Path

from confide_enclave.errors import DeviceUnavailable

BLOCK_BYTES = 64 * 1024


class Files:
    """The machine's own file system. A test puts a simulated kernel in this place."""

    def exists(self, path: Path) -> bool:
        """Say whether something is there; what may not be looked at is, and its use will say why it fails."""
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def mkdir(self, path: Path) -> None:
        path.mkdir(mode=0o700)

    def rmdir(self, path: Path) -> None:
        path.rmdir()

    def read(self, path: Path, limit: int) -> bytes:
        """Read all of a file that has at most `limit` bytes. Raises: OSError (EFBIG if it has more)."""
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = b""
            while block := os.read(handle, BLOCK_BYTES):
                data += block
                if len(data) > limit:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        finally:
            os.close(handle)
        return data

    def write(self, path: Path, data: bytes) -> None:
        """Write in one call, as an attribute of the kernel wants it. Raises: OSError."""
        # Not truncated first: that would be a second write.
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.write(handle, data) != len(data):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        finally:
            os.close(handle)


def unavailable(path: Path | str, fault: OSError, absent: str) -> DeviceUnavailable:
    """Say which path failed and what to do; `absent` is the remedy where it is not there at all."""
    if fault.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ECONNREFUSED):
        return DeviceUnavailable(f"{path}: {os.strerror(fault.errno)}; {absent}")
    if fault.errno in (errno.EACCES, errno.EPERM):
        return DeviceUnavailable(
            f"{path}: permission denied; run the enclave as a user (or in a container) that may use it"
        )
    return DeviceUnavailable(f"{path}: {os.strerror(fault.errno or errno.EIO)} (errno {fault.errno})")
