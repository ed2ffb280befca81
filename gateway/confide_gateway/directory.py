"""The nodes: each judged by its evidence before it is routed to, and again for as long as it stays."""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Coroutine, Sequence

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import MAX_BUNDLE_BYTES
from confide_attestation.result import AttestationResult, AttestedKeyset, Verdict
from confide_protocol import labels
from confide_protocol.statement import NONCE_BYTES

from confide_gateway.forward import (
    UpstreamBusy,
    UpstreamDown,
    UpstreamError,
    UpstreamPool,
    UpstreamRequest,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from confide_gateway.logs import Log
from confide_gateway.metrics import Metrics
from confide_gateway.settings import Appraisal, Limits

Judge = Callable[[bytes, bytes], AttestationResult]
"""Judges evidence as it was served against the nonce that was asked for; raises EvidenceMalformed."""

REFRESH_S = 1.0
"""What clients ask for causes at most one appraisal of a node in this time."""


MAX_KEYSETS = 16
"""How many a node names of those that it made."""

_HEX_32 = re.compile(r"[0-9a-f]{64}")


class _NotReady(UpstreamError):
    """It answers, and says that it could not answer a prompt now."""


class Node:
    """One enclave of the directory, out of rotation until `accept`."""

    def __init__(self, name: str, pool: UpstreamPool) -> None:
        self.name = name
        self.pool = pool
        self.in_flight = 0
        # As it said since it was accepted; its evidence is judged all the same.
        self.ready = False
        self.simulated = False
        self.digest_hex: str | None = None
        self.ehbp_key: bytes | None = None
        # What it said to have made since it was started, and whether that is all: it was asked and it answered.
        self.keysets: frozenset[str] = frozenset()
        self.told = False
        self.due = 0.0
        self.asked_at = float("-inf")
        self.state: tuple[str, ...] = ()
        self.wake = asyncio.Event()
        self.appraisal: asyncio.Task[None] | None = None
        self._until_unix_s = 0.0

    @property
    def accepted(self) -> bool:
        return time.time() < self._until_unix_s

    @property
    def routable(self) -> bool:
        return self.accepted and self.ready

    def holds(self, digest_hex: str) -> bool:
        """Tell whether this node made the keyset; whether it still opens what is sealed to it, it says itself."""
        return digest_hex == self.digest_hex or digest_hex in self.keysets

    def lacks(self, digest_hex: str) -> bool:
        """Tell whether the node, when asked last, surely was none that ever opened what is sealed to the keyset."""
        return self.told and not self.holds(digest_hex)

    def accept(self, attested: AttestedKeyset, max_age_s: float) -> None:
        self.digest_hex = attested.keyset.digest.hex()
        self.ehbp_key = attested.keyset.ehbp_key
        self._until_unix_s = min(time.time() + max_age_s, attested.valid_until_unix_s)

    def hear(self, keysets: str) -> None:
        """Take what the node says of itself beside its evidence; what is not told as it should be is not told."""
        told = keysets.split(",")
        self.told = len(told) <= MAX_KEYSETS and all(_HEX_32.fullmatch(each) for each in told)
        self.keysets = frozenset(told if self.told else ())

    def end(self) -> None:
        """Take note that no process is there: what it had begun, and its keys, ended with it."""
        self.told, self.keysets = True, frozenset()

    def expel(self) -> None:
        self.ready = False
        self.digest_hex = self.ehbp_key = None
        self._until_unix_s = 0.0


class Directory:
    """Chooses among nodes that passed this gateway's own appraisal; no client takes that on trust."""

    def __init__(
        self,
        nodes: Sequence[Node],
        judge: Judge,
        settings: Appraisal,
        limits: Limits,
        metrics: Metrics,
        log: Log,
    ) -> None:
        self.nodes = tuple(nodes)
        self._judge = judge
        self._settings = settings
        self._limits = limits
        self._metrics = metrics
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        return any(node.routable for node in self.nodes)

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep(node)) for node in self.nodes]

    async def aclose(self) -> None:
        appraisals = [node.appraisal for node in self.nodes if node.appraisal is not None]
        for task in (*self._tasks, *appraisals):
            task.cancel()
        await asyncio.gather(*self._tasks, *appraisals, return_exceptions=True)
        for node in self.nodes:
            await node.pool.aclose()

    def holding(self, digest_hex: str | None, *, unready: bool = False) -> Node | None:
        """Choose the node with least in flight that holds the keyset (None: any), routable or accepted at least."""
        found = None
        for node in self.nodes:
            fits = (digest_hex is None or node.holds(digest_hex)) and (node.accepted if unready else node.routable)
            if fits and (found is None or node.in_flight < found.in_flight):
                found = node
        return found

    def answering_ehbp(self) -> Node | None:
        """Choose the first routable node, in the settings' order, whose keyset has a key for EHBP.

        Its requests name no key: whoever fetched one must meet the same node, at every gateway of these settings.
        """
        return next((node for node in self.nodes if node.ehbp_key is not None and node.routable), None)

    async def find(self, digest_hex: str) -> Node | None:
        """Ask all nodes anew for one that opens what is sealed to the keyset: they rotate unasked.

        Those that are silent are waited for no longer than `search_s`.
        """
        if not _HEX_32.fullmatch(digest_hex):
            return None
        since = time.monotonic() - REFRESH_S
        asking = [self.appraise(node, since=since) for node in self.nodes]
        return await _first(lambda: self.holding(digest_hex), asking, self._limits.search_s)

    async def trace(self, digest_hex: str) -> tuple[Node | None, bool]:
        """Ask all nodes anew for one that made the keyset; without one, tell whether it is surely gone.

        Whoever hears so may have a call executed anew. Each node has to say so now, or not to be there: one that is
        silent may be at work.
        """
        asking = [self.renew(node) for node in self.nodes]
        node = await _first(lambda: self.holding(digest_hex, unready=True), asking, None)
        return node, node is None and all(each.lacks(digest_hex) for each in self.nodes)

    async def renew(self, node: Node) -> None:
        """Judge a node by evidence asked for from now on, whoever asks for it."""
        now = time.monotonic()
        await asyncio.sleep(max(0.0, node.asked_at + REFRESH_S - now))
        await self.appraise(node, since=now)

    def disowned(self, node: Node, digest_hex: str, keysets: str) -> bool:
        """Hear what a node says beside evidence; tell whether it is another process than the one that was judged.

        It is, if it names keysets and not this one; then it is out of the rotation until it is appraised.
        """
        node.hear(keysets)
        if not node.told or digest_hex in node.keysets:
            return False
        node.expel()
        node.wake.set()
        return True

    def suspect(self, node: Node) -> None:
        """Take a node that could not be reached out of the rotation, until it is appraised again."""
        node.expel()
        node.told = False
        node.wake.set()
        if self._turned(node, "unreachable"):
            self._log.warning("node_unreachable", node=node.name)

    async def appraise(self, node: Node, *, since: float) -> None:
        """Have a node judged by evidence asked for `since` then (on the monotonic clock).

        There is one appraisal of a node at a time, for all who wait for it; it goes on when they leave.
        """
        while True:
            if node.appraisal is None or node.appraisal.done():
                if node.asked_at >= since:
                    return
                node.asked_at = time.monotonic()
                node.appraisal = asyncio.create_task(self._appraise(node))
            asked_at = node.asked_at
            await asyncio.wait((node.appraisal,))
            if asked_at >= since:
                return

    async def _appraise(self, node: Node) -> None:
        """Judge a node by fresh evidence.

        Refused or unreachable: out at once. No answer to be had: it stays until its last appraisal is too old.
        """
        nonce = os.urandom(NONCE_BYTES)
        try:
            path = f"{labels.PATH_EVIDENCE}?nonce={nonce.hex()}"
            data, keysets = await self._fetch(node, path, labels.MEDIA_EVIDENCE, self._limits.evidence_s)
            node.hear(keysets)
            result = await asyncio.to_thread(self._judge, data, nonce)
            if result.verdict is Verdict.ACCEPTED and result.keyset is not None:
                self._accept(node, result.keyset, simulated=result.simulated)
                if not node.ready:
                    await self._probe(node)
            else:
                self._refuse(node, [check.id for check in result.failed])
        except UpstreamUnreachable as fault:
            self._metrics.appraisal(node.name, "unreachable")
            self.suspect(node)
            if isinstance(fault, UpstreamDown):
                node.end()
        except UpstreamError as fault:
            node.told = False
            self._metrics.appraisal(node.name, "no_evidence")
            self._log.warning("node_no_evidence", node=node.name, code=fault.code)
        except EvidenceMalformed as fault:
            self._refuse(node, [fault.check])
        except asyncio.CancelledError:
            node.told = False
            raise
        except Exception as fault:  # noqa: BLE001 - a fault of ours must not leave a node in the rotation unjudged
            self._break(node, fault)

    def _break(self, node: Node, fault: Exception) -> None:
        node.expel()
        node.told = False
        self._log.error("appraisal_broke", node=node.name, error=type(fault).__name__)

    def _accept(self, node: Node, attested: AttestedKeyset, *, simulated: bool) -> None:
        node.accept(attested, self._settings.max_age_s)
        rest_s = max(0.0, attested.valid_until_unix_s - time.time())
        node.due = time.monotonic() + min(self._settings.interval_s, rest_s / 2)
        self._metrics.appraisal(node.name, "accepted")
        node.simulated = simulated
        if node.ready:
            self._tell_accepted(node)

    def _tell_accepted(self, node: Node) -> None:
        if self._turned(node, "accepted", node.digest_hex or ""):
            self._log.info("node_accepted", node=node.name, keyset=node.digest_hex, simulated=node.simulated)

    def _refuse(self, node: Node, checks: list[str]) -> None:
        node.expel()
        self._metrics.appraisal(node.name, "refused")
        if self._turned(node, "refused", *checks):
            self._log.error("node_refused", node=node.name, checks=checks)

    @staticmethod
    def _turned(node: Node, *state: str) -> bool:
        """Tell whether this is news of the node; what stays as it is is logged once."""
        news = node.state != state
        node.state = state
        return news

    async def _keep(self, node: Node) -> None:
        while True:
            try:
                if not (node.accepted and time.monotonic() < node.due):
                    await self.appraise(node, since=time.monotonic())
                if node.accepted:
                    await self._probe(node)
            except Exception as fault:  # noqa: BLE001 - as above
                self._break(node, fault)
            pause_s = self._settings.health_interval_s if node.routable else self._settings.retry_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await node.wake.wait()
                await asyncio.sleep(min(pause_s, self._settings.retry_s))
            node.wake.clear()

    async def _probe(self, node: Node) -> None:
        try:
            await self._fetch(node, labels.PATH_READY, None, self._settings.health_interval_s)
        except UpstreamBusy:
            return  # full of our own exchanges, which shows that it lives
        except _NotReady:
            node.ready = False
            if self._turned(node, "not_ready"):
                self._log.warning("node_not_ready", node=node.name)
        except UpstreamError:
            self.suspect(node)
        else:
            if not node.ready and node.accepted:
                node.ready = True
                if node.state == ("not_ready",):
                    self._turned(node, "accepted", node.digest_hex or "")
                    self._log.info("node_ready", node=node.name)
                else:
                    self._tell_accepted(node)

    async def _fetch(self, node: Node, path: str, media: str | None, limit_s: float) -> tuple[bytes, str]:
        """Return the body of an answer, and which keysets it names."""
        data = bytearray()
        try:
            async with asyncio.timeout(limit_s):
                response = await node.pool.send(UpstreamRequest("GET", path))
                try:
                    if path == labels.PATH_READY and response.status != 200:
                        raise _NotReady
                    if response.status != 200 or media not in (None, response.content_type):
                        raise UpstreamError
                    while not response.ended:
                        data += await response.read()
                        if len(data) > MAX_BUNDLE_BYTES:
                            raise UpstreamError
                finally:
                    await response.close()
        except TimeoutError:
            raise UpstreamTimeout from None
        return bytes(data), response.keysets


async def _first(
    found: Callable[[], Node | None], asking: Sequence[Coroutine[None, None, None]], limit_s: float | None
) -> Node | None:
    """Return what is `found` as soon as one of those that are `asking` has its answer, or the limit is over."""
    tasks = [asyncio.create_task(each) for each in asking]
    try:
        with contextlib.suppress(TimeoutError):
            for each in asyncio.as_completed(tasks, timeout=limit_s):
                await each
                if (node := found()) is not None:
                    return node
        return found()
    finally:
        for task in tasks:
            task.cancel()
