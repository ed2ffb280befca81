"""A simulated vTPM that answers raw commands, byte by byte as TPM 2.0 has them, on a simulated Azure machine."""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from confide_attestation.simulated.azure import SimulatedAzure

HCL_INDEX, AK, OWNER = 0x0140_0001, 0x8100_0003, 0x4000_0001
NV_READ, QUOTE, NV_READ_PUBLIC, PCR_READ = 0x14E, 0x158, 0x169, 0x17E
RC_HANDLE_1, RC_NV_RANGE = 0x18B, 0x146
PASSWORD = bytes.fromhex("00000009400000090000000000")
Lie = Callable[[bytes], bytes]


@dataclass
class Vtpm:
    """Every answer can be bent by its command's code; `extended` replaces a PCR before each read of them."""

    azure: SimulatedAzure
    hcl: bytes
    bends: dict[int, Lie] = field(default_factory=dict)
    refusals: dict[int, int] = field(default_factory=dict)
    nonce: bytes | None = None
    extended: int = 0
    pcrs_at_once: int = 8
    banks: int = 1
    commands: list[int] = field(default_factory=list)

    def __call__(self, command: bytes) -> bytes:
        tag, size, code = struct.unpack_from(">HII", command)
        assert size == len(command)
        self.commands.append(code)
        if code in self.refusals:
            answer = struct.pack(">HII", 0x8001, 10, self.refusals[code])
        else:
            run = {NV_READ: self._nv, QUOTE: self._quote, NV_READ_PUBLIC: self._public, PCR_READ: self._pcrs}
            answer = run[code](tag, command[10:])
        return self.bends.get(code, bytes)(answer)

    @contextmanager
    def open(self, path: Path) -> Iterator[Callable[[bytes], bytes]]:
        yield self

    def _public(self, tag: int, body: bytes) -> bytes:
        assert tag == 0x8001
        if int.from_bytes(body) != HCL_INDEX:
            return refused(RC_HANDLE_1)
        public = struct.pack(">IHIHH", HCL_INDEX, 0x000B, 0x6204_0002, 0, len(self.hcl))
        return bare(sized(public) + sized(b"\0\x0b" + bytes(32)))

    def _nv(self, tag: int, body: bytes) -> bytes:
        size, offset = struct.unpack(">HH", authorised(tag, body, (OWNER, HCL_INDEX)))
        if offset + size > len(self.hcl):
            return refused(RC_NV_RANGE)
        return in_session(sized(self.hcl[offset : offset + size]))

    def _quote(self, tag: int, body: bytes) -> bytes:
        parameters = authorised(tag, body, (AK,))
        length = int.from_bytes(parameters[:2])
        nonce, rest = parameters[2 : 2 + length], parameters[2 + length :]
        assert rest == bytes.fromhex("0014000b00000001000b03ffffff")
        evidence = self.azure.quote(self.nonce or nonce)
        return in_session(sized(evidence.quote) + b"\0\x14\0\x0b" + sized(evidence.signature))

    def _pcrs(self, tag: int, body: bytes) -> bytes:
        assert tag == 0x8001
        count, algorithm, size = struct.unpack_from(">IHB", body)
        assert (count, algorithm, size, len(body)) == (1, 0x000B, 3, 10)
        bits = int.from_bytes(body[7:], "little")
        asked = [pcr for pcr in range(24) if bits >> pcr & 1]
        pcrs = list(self.azure.pcrs)
        if self.extended and 0 in asked:
            self.extended -= 1
            pcrs[0] = bytes(32)
        given = asked[: self.pcrs_at_once]
        selection = struct.pack(">IHB", self.banks, 0x000B, 3)
        selection += sum(1 << pcr for pcr in given).to_bytes(3, "little")
        digests = b"".join(sized(pcrs[pcr]) for pcr in given)
        return bare(bytes(4) + selection + len(given).to_bytes(4) + digests)


def with_pcrs(azure: SimulatedAzure, pcrs: Sequence[bytes]) -> SimulatedAzure:
    return replace(azure, pcrs=pcrs)


def authorised(tag: int, body: bytes, handles: tuple[int, ...]) -> bytes:
    """Take handles and the empty password from a command; return its parameters."""
    assert tag == 0x8002
    head = b"".join(handle.to_bytes(4) for handle in handles) + PASSWORD
    assert body.startswith(head)
    return body[len(head) :]


def bare(parameters: bytes) -> bytes:
    return struct.pack(">HII", 0x8001, 10 + len(parameters), 0) + parameters


def in_session(parameters: bytes) -> bytes:
    body = len(parameters).to_bytes(4) + parameters + bytes.fromhex("0000010000")
    return struct.pack(">HII", 0x8002, 10 + len(body), 0) + body


def refused(status: int) -> bytes:
    return struct.pack(">HII", 0x8001, 10, status)


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data
