"""Where evidence comes from: the machine that signs, and the room where callers share its quotes (SPEC 4)."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import (
    MAX_BUNDLE_BYTES,
    CpuEvidence,
    Endorsements,
    EventLog,
    EvidenceBundle,
    GpuEvidence,
    encode_bundle,
)
from confide_attestation.nvidia.digest import gpu_evidence_digest
from confide_protocol.statement import NoncePath, ReportDataStatement, coalesce_nonces, gpu_nonce

from confide_enclave.endorsements import NOTHING, Shelf
from confide_enclave.errors import Busy, DeviceUnavailable
from confide_enclave.keys import Clock, Generation, KeysetHolder

QUOTE_INTERVAL_S: Final = 1.0
COLLECT_TIMEOUT_S: Final = 30.0
MAX_EPOCHS_WAITING: Final = 8


@dataclass(frozen=True)
class Quote:
    """What the hardware signed, what replays into it, and what came with it. The enclave verifies none of it."""

    cpu: CpuEvidence
    event_logs: tuple[EventLog, ...] = ()
    endorsements: Endorsements = NOTHING


class Attester(Protocol):
    """One machine. Both methods raise DeviceUnavailable."""

    @property
    def platform(self) -> str: ...

    @property
    def simulated(self) -> bool: ...

    async def gpus(self, nonce: bytes) -> tuple[GpuEvidence, ...]:
        """Ask every GPU with 32 bytes; empty where the machine is run without."""
        ...

    async def quote(self, statement: bytes) -> Quote:
        """Have the CPU sign the statement's digest."""
        ...


class QuoteRoom:
    """Where callers wait for evidence: at most one quote a second, shared by all that one quote can answer.

    A lone caller is served at once. All nonces that wait share a quote, and so do all who ask for one epoch. More
    than `max_waiting` callers, or more than MAX_EPOCHS_WAITING epochs, raise Busy. Collecting ends by its time-out.
    """

    def __init__(
        self,
        holder: KeysetHolder,
        attester: Attester,
        manifest: bytes,
        *,
        shelf: Shelf,
        max_waiting: int,
        monotonic: Clock,
        interval_s: float = QUOTE_INTERVAL_S,
        timeout_s: float = COLLECT_TIMEOUT_S,
    ) -> None:
        self._holder, self._attester, self._manifest, self._shelf = holder, attester, manifest, shelf
        self._max_waiting = max_waiting
        self._monotonic = monotonic
        self._interval_s, self._timeout_s = interval_s, timeout_s
        self._pending: dict[_Answer, _Asked] = {}
        self._waiting = 0
        self._next_quote_s = 0.0
        self._worker: asyncio.Task[None] | None = None

    async def evidence(self, fresh: bytes, *, is_epoch: bool = False) -> bytes:
        """Return an encoded bundle that answers a nonce, or an epoch. Raises: Busy, DeviceUnavailable."""
        asked = _Asked(fresh, is_epoch)
        epochs = {each for each in self._pending.values() if each.is_epoch}
        if self._waiting >= self._max_waiting or (
            is_epoch and asked not in epochs and len(epochs) >= MAX_EPOCHS_WAITING
        ):
            raise Busy
        answer: _Answer = asyncio.get_running_loop().create_future()
        self._pending[answer] = asked
        self._waiting += 1
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            bundle = encode_bundle(*await answer)
        finally:
            self._waiting -= 1
            self._pending.pop(answer, None)
        if len(bundle) > MAX_BUNDLE_BYTES:
            raise DeviceUnavailable(f"the evidence is larger than {MAX_BUNDLE_BYTES} bytes")
        return bundle

    async def close(self) -> None:
        """End every wait."""
        if self._worker is not None:
            self._worker.cancel()
        # A worker that was cancelled before its first step settles nothing itself.
        _fail(self._pending)

    async def _work(self) -> None:
        batch: dict[_Answer, _Asked] = {}
        try:
            while self._pending:
                await asyncio.sleep(max(0.0, self._next_quote_s - self._monotonic()))
                batch = self._take()
                self._next_quote_s = self._monotonic() + self._interval_s
                if batch:
                    await self._serve(batch)
        finally:
            self._worker = None
            _fail([*batch, *self._pending])

    def _take(self) -> dict["_Answer", "_Asked"]:
        """Take who has waited longest, and all whom the same quote answers."""
        first = next(iter(self._pending.values()), None)
        batch = {
            answer: asked
            for answer, asked in self._pending.items()
            if first is not None and (asked == first or not (asked.is_epoch or first.is_epoch))
        }
        for answer in batch:
            del self._pending[answer]
        return batch

    async def _serve(self, batch: dict["_Answer", "_Asked"]) -> None:
        asked = list(batch.values())
        paths: Iterable[NoncePath]
        try:
            generation = self._holder.current
            statement = ReportDataStatement(generation.digest, generation.keyset.not_after_unix_s)
            if asked[0].is_epoch:
                statement, paths = replace(statement, epoch=asked[0].fresh), [NoncePath()] * len(asked)
            else:
                root, paths = coalesce_nonces([each.fresh for each in asked])
                statement = replace(statement, nonce=root)
            async with asyncio.timeout(self._timeout_s):
                evidence, endorsements = await self._collect(generation, statement)
        except DeviceUnavailable as fault:
            _fail(batch, str(fault))
            return
        except Exception as fault:  # noqa: BLE001 - whatever an attester raises, nobody may be left waiting
            _fail(batch, f"collecting evidence failed ({type(fault).__name__})")
            return
        for answer, path in zip(batch, paths, strict=True):
            if not answer.done():
                answer.set_result((replace(evidence, nonce_path=path), endorsements))

    async def _collect(
        self, generation: Generation, statement: ReportDataStatement
    ) -> tuple[EvidenceBundle, Endorsements]:
        """GPUs first: what the CPU signs names their evidence. Raises: DeviceUnavailable."""
        gpus = await self._attester.gpus(gpu_nonce(statement.freshness, generation.digest))
        if gpus:
            try:
                statement = replace(statement, gpu_evidence_digest=gpu_evidence_digest(gpus))
            except EvidenceMalformed as fault:
                raise DeviceUnavailable(f"a GPU's evidence cannot be read: {fault}") from None
        quote = await self._attester.quote(statement.encoded)
        generation.issue(statement.digest)
        evidence = EvidenceBundle(
            keyset=generation.keyset.encoded,
            manifest=self._manifest,
            statement=statement.encoded,
            nonce_path=NoncePath(),
            cpu=quote.cpu,
            gpus=gpus,
            event_logs=quote.event_logs,
        )
        return evidence, self._shelf.beside(quote.endorsements)


@dataclass(frozen=True)
class _Asked:
    fresh: bytes
    is_epoch: bool


_Answer = asyncio.Future[tuple[EvidenceBundle, Endorsements]]


def _fail(answers: Iterable[_Answer], reason: str = DeviceUnavailable.reason) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(DeviceUnavailable(reason))
