"""The four commands of a TPM that a quote needs, and nothing else of the library.

Source: TCG, TPM 2.0 Library, part 2 (structures), part 3 (commands); all integers are big-endian.
Authorisation is the empty password, as Azure's vTPM has it; nothing here has to be kept from anybody.
"""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.reader import Reader
from confide_attestation.vtpm.tpm import ALG_SHA256, PCR_COUNT

from confide_enclave.collect.files import unavailable
from confide_enclave.errors import DeviceUnavailable

TPM: Final = Path("/dev/tpmrm0")
MAX_ANSWER_BYTES: Final = 4096
# Every TPM reads so much of an index at once (part 2, TPM_PT_NV_BUFFER_MAX).
NV_BLOCK_BYTES: Final = 512
MAX_NV_BYTES: Final = 8 * 1024
DIGEST_BYTES: Final = 32
NO_SESSIONS, SESSIONS = 0x8001, 0x8002
NV_READ, QUOTE, NV_READ_PUBLIC, PCR_READ = 0x14E, 0x158, 0x169, 0x17E
OWNER: Final = 0x4000_0001
ALG_RSASSA: Final = 0x0014
# TPM_RS_PW with an empty nonce, no attribute, an empty password.
_PASSWORD: Final = struct.pack(">IHBH", 0x4000_0009, 0, 0, 0)
_HEAD: Final = struct.Struct(">HII")
# TPM_RC_HANDLE of any handle: format 1 without its number.
_RC_HANDLE, _RC_NUMBER_MASK = 0x08B, 0x0BF
_SHA256_BANK: Final = struct.pack(">IHB", 1, ALG_SHA256, PCR_COUNT // 8)
Exchange = Callable[[bytes], bytes]
OpenTpm = AbstractContextManager[Exchange]


@contextmanager
def open_tpm(path: Path) -> Iterator[Exchange]:
    """Open the kernel's resource manager; commands and answers go whole. Raises: DeviceUnavailable."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as fault:
        raise unavailable(path, fault, "it needs an Azure confidential VM; load tpm_crb, check lsmod") from None
    try:
        yield lambda command: exchange(handle, command, path)
    finally:
        os.close(handle)


def exchange(handle: int, command: bytes, path: Path) -> bytes:
    """Send one command and wait for its answer. Raises: DeviceUnavailable."""
    try:
        if os.write(handle, command) != len(command):
            raise DeviceUnavailable(f"{path}: took only a part of a command")
        return os.read(handle, MAX_ANSWER_BYTES)
    except OSError as fault:
        raise unavailable(path, fault, "the TPM is gone") from None


@dataclass(frozen=True)
class Tpm:
    """One opened TPM. Every method raises DeviceUnavailable."""

    exchange: Exchange
    path: Path

    def read_nv(self, index: int) -> bytes:
        """Read all of an index with the owner's authorisation."""
        answer = self._run(NV_READ_PUBLIC, (index,), b"", what=f"NV index {index:#010x}")
        with self._strict():
            public = answer.within(answer.uint(2))
            public.take(4 + 2 + 4)
            public.take(public.uint(2))
            size = public.uint(2)
            self._end(public)
            answer.take(answer.uint(2))
            self._end(answer)
        if size > MAX_NV_BYTES:
            raise DeviceUnavailable(
                f"{self.path}: NV index {index:#010x} has {size} bytes, not at most {MAX_NV_BYTES}"
            )
        data = b""
        while len(data) < size:
            wanted = min(NV_BLOCK_BYTES, size - len(data))
            place = struct.pack(">HH", wanted, len(data))
            answer = self._run(NV_READ, (OWNER, index), place, authorised=True, what=f"NV index {index:#010x}")
            with self._strict():
                block = answer.take(answer.uint(2))
                self._end(answer)
            if len(block) != wanted:
                raise self._malformed()
            data += block
        return data

    def quote(self, key: int, nonce: bytes) -> tuple[bytes, bytes]:
        """Quote all PCRs of the SHA-256 bank by a key; return TPMS_ATTEST and the bare RSA signature."""
        parameters = struct.pack(">H", len(nonce)) + nonce + struct.pack(">HH", ALG_RSASSA, ALG_SHA256)
        answer = self._run(
            QUOTE, (key,), parameters + _selection(range(PCR_COUNT)), authorised=True, what=f"key {key:#010x}"
        )
        with self._strict():
            attest = answer.take(answer.uint(2))
            scheme = (answer.uint(2), answer.uint(2))
            signature = answer.take(answer.uint(2))
            self._end(answer)
        if scheme != (ALG_RSASSA, ALG_SHA256):
            raise DeviceUnavailable(f"{self.path}: key {key:#010x} does not sign by RSASSA with SHA-256")
        return attest, signature

    def read_pcrs(self) -> tuple[bytes, ...]:
        """Read the SHA-256 bank, as many PCRs at once as the TPM gives."""
        values: dict[int, bytes] = {}
        while len(values) < PCR_COUNT:
            left = [pcr for pcr in range(PCR_COUNT) if pcr not in values]
            answer = self._run(PCR_READ, (), _selection(left), what="the SHA-256 PCRs")
            with self._strict():
                answer.take(4)
                if answer.take(len(_SHA256_BANK)) != _SHA256_BANK:
                    raise DeviceUnavailable(f"{self.path}: has no bank of SHA-256 PCRs")
                bits = int.from_bytes(answer.take(PCR_COUNT // 8), "little")
                given = [pcr for pcr in range(PCR_COUNT) if bits >> pcr & 1]
                digests = [answer.take(answer.uint(2)) for _ in range(answer.uint(4))]
                self._end(answer)
            if (
                not given
                or not set(given) <= set(left)
                or len(given) != len(digests)
                or {len(digest) for digest in digests} != {DIGEST_BYTES}
            ):
                raise self._malformed()
            values |= zip(given, digests, strict=True)
        return tuple(values[pcr] for pcr in range(PCR_COUNT))

    def _run(
        self, code: int, handles: tuple[int, ...], parameters: bytes, *, authorised: bool = False, what: str
    ) -> Reader:
        """Run a command and return its answer's parameters; `what` names its object in a fault."""
        body = b"".join(handle.to_bytes(4, "big") for handle in handles)
        if authorised:
            body += len(_PASSWORD).to_bytes(4, "big") + _PASSWORD
        body += parameters
        tag = SESSIONS if authorised else NO_SESSIONS
        data = self.exchange(_HEAD.pack(tag, _HEAD.size + len(body), code) + body)
        with self._strict():
            answer = Reader(data, what="the answer", check="tpm_answer", order="big")
            found, size, status = (answer.uint(width) for width in (2, 4, 4))
            if size != len(data):
                raise self._malformed()
            if status:
                raise self._refusal(status, what)
            if found != tag:
                raise self._malformed()
            if not authorised:
                return answer
            inner = answer.within(answer.uint(4))
            answer.take(answer.uint(2) + 1)
            answer.take(answer.uint(2))
            self._end(answer)
        return inner

    def _refusal(self, status: int, what: str) -> DeviceUnavailable:
        if status & _RC_NUMBER_MASK == _RC_HANDLE:
            return DeviceUnavailable(f"{self.path}: has no {what}: this machine is no Azure confidential VM")
        return DeviceUnavailable(f"{self.path}: the TPM refused {what} with {status:#x}")

    def _malformed(self) -> DeviceUnavailable:
        return DeviceUnavailable(f"{self.path}: the TPM's answer is malformed")

    def _end(self, answer: Reader) -> None:
        if answer.at != len(answer.data):
            raise self._malformed()

    @contextmanager
    def _strict(self) -> Iterator[None]:
        try:
            yield
        except EvidenceMalformed:
            raise self._malformed() from None


def _selection(pcrs: range | list[int]) -> bytes:
    """Write TPML_PCR_SELECTION of one bank."""
    return _SHA256_BANK + sum(1 << pcr for pcr in pcrs).to_bytes(PCR_COUNT // 8, "little")
