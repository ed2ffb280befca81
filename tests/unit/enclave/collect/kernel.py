"""A simulated kernel: configfs-tsm as a file system, and the two guest drivers as ioctl callables."""

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from confide_attestation.vtpm.hcl import TDREPORT_BYTES
from confide_enclave.collect.files import Files

ROOT = Path("/sys/kernel/config/tsm/report")
WRITE_ONLY = {"inblob", "privlevel"}


def fault(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class Tsm(Files):
    """Entries with counters as the kernel keeps them. Every field can be replaced to make it fail or lie."""

    sign: Callable[[bytes], bytes]
    provider: str = "sev_guest"
    auxblob: bytes | None = b""
    floor: int | None = None
    mounted: bool = True
    errors: dict[str, list[int]] = field(default_factory=dict)
    foreign_writes: int = 0
    lost_writes: int = 0
    entries: dict[Path, dict[str, bytes]] = field(default_factory=dict)
    made: list[Path] = field(default_factory=list)
    generations: dict[Path, int] = field(default_factory=dict)

    def exists(self, path: Path) -> bool:
        if path == ROOT:
            return self.mounted
        absent = {"auxblob": self.auxblob is None, "privlevel_floor": self.floor is None}
        return path.parent in self.entries and not absent.get(path.name, False)

    def mkdir(self, path: Path) -> None:
        self._fail("mkdir")
        assert path.parent == ROOT
        if path in self.entries:
            raise fault(errno.EEXIST)
        self.entries[path] = {}
        self.generations[path] = 0
        self.made.append(path)

    def rmdir(self, path: Path) -> None:
        self._fail("rmdir")
        del self.entries[path]

    def write(self, path: Path, data: bytes) -> None:
        self._fail(path.name)
        assert path.name in WRITE_ONLY
        if path.name == "privlevel" and int(data) < (self.floor or 0):
            raise fault(errno.EINVAL)
        if self.lost_writes:
            self.lost_writes -= 1
            return
        self.entries[path.parent][path.name] = data
        self.generations[path.parent] += 1

    def read(self, path: Path, limit: int) -> bytes:
        self._fail(path.name)
        entry = self.entries[path.parent]
        if path.name == "outblob":
            if self.foreign_writes:
                self.foreign_writes -= 1
                self.generations[path.parent] += 1
            if "inblob" not in entry or (self.floor and "privlevel" not in entry):
                raise fault(errno.EINVAL)
            data = self.sign(entry["inblob"])
        else:
            data = {
                "provider": self.provider.encode() + b"\n",
                "generation": b"%d\n" % self.generations[path.parent],
                "privlevel_floor": b"%d\n" % (self.floor or 0),
                "auxblob": self.auxblob or b"",
            }[path.name]
        if len(data) > limit:
            raise fault(errno.EFBIG)
        return data

    def _fail(self, what: str) -> None:
        """Fail with the next error that is set for an operation or attribute; 0 is none."""
        waiting = self.errors.get(what)
        if waiting and (number := waiting.pop(0)):
            raise fault(number)


@dataclass
class SevGuest:
    """The driver behind /dev/sev-guest; takes and fills real structures through their addresses."""

    sign: Callable[[bytes], bytes]
    table: bytes = b""
    error: int = 0
    exitinfo2: int = 0
    extended_exitinfo2: int = 0
    status: int = 0
    size: int = 1184
    codes: list[int] = field(default_factory=list)
    vmpls: list[int] = field(default_factory=list)

    def __call__(self, handle: int, code: int, command: bytearray) -> int:
        os.fstat(handle)
        assert len(command) == 32
        self.codes.append(code)
        version, asked, answer, _ = struct.unpack("<B7xQQQ", command)
        assert version == 1
        errors = self.exitinfo2 or (self.extended_exitinfo2 if code == 0xC0205302 else 0)
        if self.error or errors:
            struct.pack_into("<Q", command, 24, errors)
            raise fault(self.error or errno.EIO)
        report_data, vmpl = struct.unpack("<64sI28x", ctypes.string_at(asked, 96))
        self.vmpls.append(vmpl)
        if code == 0xC0205302:
            address, length = struct.unpack("<QI4x", ctypes.string_at(asked + 96, 16))
            assert length % 4096 == 0
            assert len(self.table) <= length
            ctypes.memmove(address, self.table, len(self.table))
        response = struct.pack("<II24x", self.status, self.size) + self.sign(report_data)
        ctypes.memmove(answer, response.ljust(4000, b"\0"), 4000)
        return 0


@dataclass
class TdxGuest:
    """The driver behind /dev/tdx_guest."""

    error: int = 0
    head: bytes = b"\x81\0\0\0"
    report_data: bytes | None = None

    def __call__(self, handle: int, code: int, request: bytearray) -> int:
        os.fstat(handle)
        assert code == 0xC4405401
        assert len(request) == 64 + TDREPORT_BYTES
        if self.error:
            raise fault(self.error)
        report = bytearray(TDREPORT_BYTES)
        report[:4] = self.head
        report[128:192] = self.report_data or request[:64]
        request[64:] = report
        return 0


def table(*entries: tuple[str, bytes], at: int = 0) -> bytes:
    """Write a certificate table: GUIDs as text, contents after the list."""
    head, body = b"", b""
    start = at or 24 * (len(entries) + 1)
    for guid, content in entries:
        head += UUID(guid).bytes + struct.pack("<II", start + len(body), len(content))
        body += content
    return head + bytes(24) + body


VCEK = "63da758d-e664-4564-adc5-f4b93be8accd"
VLEK = "a8074bc2-a25a-483e-aae6-39c045a0b8a1"
ASK = "4ab7b379-bbac-4fe4-a02f-05aef327c782"
ARK = "c0b406a4-a803-4952-9743-3fb6014cd0ae"
CRL = "92f81bc3-5811-4d3d-97ff-d19f88dc67ea"
