"""Where evidence comes from: the device that signs, and the room where callers share its quotes (SPEC 4)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from confide_attestation.evidence import (
    CpuEvidence,
    CpuKind,
    Endorsements,
    EvidenceBundle,
    SnpEndorsements,
    encode_bundle,
)
from confide_protocol import cbor
from confide_protocol.errors import Malformed
from confide_protocol.statement import ReportDataStatement, coalesce_nonces

from confide_enclave.errors import Busy, DeviceUnavailable
from confide_enclave.keys import Clock, KeysetHolder

REPORT_BYTES: Final = 1184
REPORT_DATA_AT: Final = slice(0x50, 0x90)
REPORT_DATA_BYTES: Final = 64
MAX_REPLY_BYTES: Final = 64 * 1024
QUOTE_INTERVAL_S: Final = 1.0


@dataclass(frozen=True)
class Quote:
    """What the device signed, and the endorsements that it offers. Nothing here is verified by the enclave."""

    cpu: CpuEvidence
    endorsements: Endorsements


class Attester(Protocol):
    """One TEE. `quote` raises DeviceUnavailable."""

    @property
    def platform(self) -> str: ...

    @property
    def simulated(self) -> bool: ...

    async def quote(self, report_data: bytes) -> Quote: ...


@dataclass(frozen=True)
class SimulatedSnpAttester:
    """Ask the `confide-sim` process over its unix socket: 64 bytes out, length-prefixed CBOR back."""

    socket_path: str
    timeout_s: float
    platform: str = "simulated-sev-snp"
    simulated: bool = True

    async def quote(self, report_data: bytes) -> Quote:
        try:
            async with asyncio.timeout(self.timeout_s):
                reader, writer = await asyncio.open_unix_connection(self.socket_path)
                try:
                    writer.write(report_data)
                    await writer.drain()
                    length = int.from_bytes(await reader.readexactly(4))
                    if length > MAX_REPLY_BYTES:
                        raise DeviceUnavailable("the attestation device's reply is too large")
                    reply = await reader.readexactly(length)
                finally:
                    writer.close()
        except (OSError, EOFError, TimeoutError):
            raise DeviceUnavailable from None
        return parse_device_reply(reply, report_data)


def parse_device_reply(data: bytes, report_data: bytes) -> Quote:
    """Read what the device said. Does not check: the signature, which is the verifier's.

    Raises: DeviceUnavailable.
    """
    try:
        reply = cbor.decode(data, max_bytes=MAX_REPLY_BYTES)
    except Malformed:
        raise DeviceUnavailable("the attestation device's reply is malformed") from None
    names = ("report", "vek", "ask", "ark")
    if not isinstance(reply, dict) or not all(isinstance(reply.get(name), bytes) for name in names):
        raise DeviceUnavailable("the attestation device's reply is malformed")
    report = reply["report"]
    if len(report) != REPORT_BYTES or report[REPORT_DATA_AT] != report_data:
        raise DeviceUnavailable("the attestation device's report answers another question")
    return Quote(
        CpuEvidence(CpuKind.SEV_SNP, report),
        Endorsements(snp=SnpEndorsements(vek=reply["vek"], ask=reply["ask"], ark=reply["ark"])),
    )


class QuoteRoom:
    """Where nonces wait for a quote: at most one quote a second, shared by all that are pending by then.

    A lone caller is served at once. More than `max_waiting` callers raise Busy.
    """

    def __init__(
        self,
        holder: KeysetHolder,
        attester: Attester,
        manifest: bytes,
        *,
        max_waiting: int,
        monotonic: Clock,
        interval_s: float = QUOTE_INTERVAL_S,
    ) -> None:
        self._holder, self._attester, self._manifest = holder, attester, manifest
        self._max_waiting = max_waiting
        self._monotonic = monotonic
        self._interval_s = interval_s
        self._pending: dict[asyncio.Future[bytes], bytes] = {}
        self._waiting = 0
        self._next_quote_s = 0.0
        self._worker: asyncio.Task[None] | None = None

    async def evidence(self, nonce: bytes) -> bytes:
        """Return an encoded bundle whose report answers `nonce`. Raises: Busy, DeviceUnavailable."""
        if self._waiting >= self._max_waiting:
            raise Busy
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending[answer] = nonce
        self._waiting += 1
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            return await answer
        finally:
            self._waiting -= 1
            self._pending.pop(answer, None)

    async def close(self) -> None:
        """End every wait."""
        if self._worker is not None:
            self._worker.cancel()
        # A worker that was cancelled before its first step settles nothing itself.
        _settle(self._pending, lambda answer: answer.set_exception(DeviceUnavailable()))

    async def _work(self) -> None:
        batch: dict[asyncio.Future[bytes], bytes] = {}
        try:
            while self._pending:
                await asyncio.sleep(max(0.0, self._next_quote_s - self._monotonic()))
                batch, self._pending = self._pending, {}
                self._next_quote_s = self._monotonic() + self._interval_s
                if batch:
                    await self._serve(batch)
        finally:
            self._worker = None
            _settle(batch | self._pending, lambda answer: answer.set_exception(DeviceUnavailable()))

    async def _serve(self, batch: dict[asyncio.Future[bytes], bytes]) -> None:
        generation = self._holder.current
        root, paths = coalesce_nonces(list(batch.values()))
        statement = ReportDataStatement(
            keyset_digest=generation.digest, not_after_unix_s=generation.keyset.not_after_unix_s, nonce=root
        )
        try:
            quote = await self._attester.quote(statement.report_data)
        except Exception:  # noqa: BLE001 - whatever an attester raises, nobody may be left waiting
            _settle(batch, lambda answer: answer.set_exception(DeviceUnavailable()))
            return
        generation.issue(statement.digest)
        path_of = dict(zip(batch, paths, strict=True))
        _settle(
            batch,
            lambda answer: answer.set_result(
                encode_bundle(
                    EvidenceBundle(
                        keyset=generation.keyset.encoded,
                        manifest=self._manifest,
                        statement=statement.encoded,
                        nonce_path=path_of[answer],
                        cpu=quote.cpu,
                    ),
                    quote.endorsements,
                )
            ),
        )


def _settle(batch: dict[asyncio.Future[bytes], bytes], settle: Callable[[asyncio.Future[bytes]], None]) -> None:
    for answer in batch:
        if not answer.done():
            settle(answer)
