"""Put one enclave together from its parts."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog
from confide_protocol.keyset import Manifest

from confide_enclave.api import Api
from confide_enclave.app import EnclaveApp
from confide_enclave.attester import Attester, QuoteRoom
from confide_enclave.deadlines import Deadlines
from confide_enclave.engine import Engine
from confide_enclave.keys import Clock, KeysetHolder, Random
from confide_enclave.manifest import build_manifest
from confide_enclave.session import Session
from confide_enclave.settings import EnclaveSettings

SIGNER_THREADS = 1


def assemble(
    settings: EnclaveSettings,
    engine: Engine,
    attester: Attester,
    gateway_secret: bytes,
    *,
    clock: Clock = time.time,
    monotonic: Clock = time.monotonic,
    random: Random,
) -> tuple[EnclaveApp, KeysetHolder, Manifest]:
    """Make the keys and everything that uses them. Only the engine and the attester touch the outside."""
    log = structlog.get_logger()
    limits = settings.limits
    manifest = build_manifest(settings, engine.card)
    holder = KeysetHolder(
        manifest.digest,
        simulated=attester.simulated,
        lifetime_s=settings.keyset.lifetime_s,
        grace_s=settings.keyset.grace_s,
        replay_capacity=limits.replay_capacity,
        clock=clock,
        random=random,
    )
    signer = ThreadPoolExecutor(SIGNER_THREADS, thread_name_prefix="confide-signer")

    async def close() -> None:
        await engine.close()
        signer.shutdown(wait=False)

    session = Session(
        holder=holder,
        manifest=manifest,
        api=Api(engine, f"fp_{manifest.digest.hex()[:12]}", clock=clock, random=random),
        answer_timeout_s=limits.answer_timeout_s,
        clock=clock,
        random=random,
        signer=signer,
        report=_reporter(log),
        deadlines=Deadlines(),
    )
    room = QuoteRoom(
        holder,
        attester,
        manifest.encoded,
        max_waiting=limits.max_quote_waiting,
        monotonic=monotonic,
    )
    return EnclaveApp(session, holder, room, gateway_secret, limits, log, close), holder, manifest


def _reporter(log: structlog.typing.FilteringBoundLogger) -> Callable[[Exception], None]:
    def report(error: Exception) -> None:
        log.error("exchange.failed", error=type(error).__name__)

    return report
