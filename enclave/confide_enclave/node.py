"""Put one enclave together from its parts: hardware, the check of its GPUs, keys, and what serves."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from confide_protocol.keyset import Manifest

from confide_enclave.api import Api
from confide_enclave.app import EnclaveApp
from confide_enclave.attester import Attester, QuoteRoom
from confide_enclave.deadlines import Deadlines
from confide_enclave.ehbp import Foreign
from confide_enclave.endorsements import Shelf
from confide_enclave.engine import Embedder, Engine
from confide_enclave.keys import Clock, KeysetHolder, Random, fresh
from confide_enclave.made import Made
from confide_enclave.manifest import build_manifest, fingerprint
from confide_enclave.recheck import Recheck
from confide_enclave.session import Session
from confide_enclave.settings import EnclaveSettings

if TYPE_CHECKING:
    from confide_attestation.nvidia.evidence import NvidiaEndorsements

    from confide_enclave.collect.nvml import GpuSource

SIGNER_THREADS = 1
PROBE_BYTES = 32


def open_machine(settings: EnclaveSettings) -> tuple[Attester, "GpuSource | None"]:
    """Return what gives evidence of the machine that the settings name, and of its GPUs if it runs with any.

    Nothing is asked yet.
    """
    timeout_s = settings.limits.device_timeout_s
    if settings.is_simulated:
        from confide_enclave.simulated import SimulatedAttester

        assert settings.device_socket is not None  # noqa: S101 - load_settings demands it
        simulated = SimulatedAttester(settings.device_socket, timeout_s, settings.platform, settings.gpus)
        return simulated, simulated if settings.gpus else None
    from confide_enclave.collect.attesters import Machine
    from confide_enclave.collect.choose import choose_attester
    from confide_enclave.collect.nvml import NvmlGpus

    given = settings.devices.model_dump(exclude_none=True)
    paths: dict[str, Any] = {name: value if name == "imds_url" else Path(value) for name, value in given.items()}
    machine = Machine(timeout_s=timeout_s, **paths)
    gpus = NvmlGpus(timeout_s=timeout_s) if settings.gpus else None
    return choose_attester(settings.platform, machine, gpus), gpus


async def check_machine(
    settings: EnclaveSettings,
    attester: Attester,
    gpus: "GpuSource | None",
    shelf: Shelf,
    *,
    again: bool = False,
    clock: Clock = time.time,
    random: Random,
) -> None:
    """Ask the machine once, and appraise its GPUs with a nonce of our own: before any key is made.

    again: it has passed before in this process. Raises: GpuRejected, DeviceUnavailable.
    """
    if gpus is not None:
        given = without_answers(shelf) if again else shelf.current.nvidia
        await check_own_gpus(settings, gpus, given, clock=clock, random=random)
    # No statement has this form: the quote is worth nothing, but a device that gives none is told of now.
    await attester.quote(fresh(random, PROBE_BYTES))


def without_answers(shelf: Shelf) -> "NvidiaEndorsements | None":
    """Return what a check after the first goes by: the shelf's answers are of the start, and clients have newer."""
    given = shelf.current.nvidia
    return None if given is None else replace(given, ocsp=None)


async def check_own_gpus(
    settings: EnclaveSettings,
    gpus: "GpuSource",
    endorsements: "NvidiaEndorsements | None",
    *,
    clock: Clock,
    random: Random,
) -> None:
    """Appraise the GPUs with a nonce of our own. Raises: GpuRejected, DeviceUnavailable."""
    # The judge is slow to import, and neither a manifest nor a machine without GPUs needs it.
    from confide_attestation.policy import SimulatedRoots

    from confide_enclave.collect.gpu_check import check_gpus

    roots = None
    if settings.simulated is not None:
        nvidia = settings.simulated.model_dump()
        roots = SimulatedRoots(amd_ark_sha256="none", intel_root_sha256="none", **nvidia)
    now_unix_s, draw = int(clock()), partial(fresh, random)
    await check_gpus(gpus, endorsements, now_unix_s=now_unix_s, random=draw, simulated=roots)


def assemble(
    settings: EnclaveSettings,
    engines: Sequence[Engine],
    attester: Attester,
    gateway_secret: bytes,
    *,
    shelf: Shelf | None = None,
    gpus: "GpuSource | None" = None,
    embedder: Embedder | None = None,
    made: Made | None = None,
    clock: Clock = time.time,
    monotonic: Clock = time.monotonic,
    random: Random,
) -> tuple[EnclaveApp, KeysetHolder, Manifest]:
    """Make the keys and everything that uses them; `check_machine` comes first. `engines`: in the settings' order.

    With `gpus` these are checked again before each later keyset; revocation is then left to the clients, whose
    answers are fresher than what was put on the shelf. Only engines, attester, GPUs and shelf touch the outside.
    The engines are the caller's to close. `made`: the keysets that this process made before.
    """
    log = structlog.get_logger()
    limits = settings.limits
    manifest = build_manifest(
        settings, [engine.card for engine in engines], None if embedder is None else embedder.card
    )
    shelf = Shelf() if shelf is None else shelf
    made = Made() if made is None else made

    async def check(source: "GpuSource") -> None:
        await check_own_gpus(settings, source, without_answers(shelf), clock=clock, random=random)

    def forget() -> None:
        for engine in engines:
            engine.forget_all()

    recheck = Recheck(None if gpus is None else partial(check, gpus), log)
    holder = KeysetHolder(
        manifest.digest,
        simulated=attester.simulated,
        lifetime_s=settings.keyset.lifetime_s,
        grace_s=settings.keyset.grace_s,
        replay_capacity=limits.replay_capacity,
        clock=clock,
        random=random,
        may_rotate=recheck.may_rotate,
        forget=forget,
        ehbp=settings.dialects.ehbp,
    )
    signer = ThreadPoolExecutor(SIGNER_THREADS, thread_name_prefix="confide-signer")
    stop_signer = partial(signer.shutdown, wait=False)
    session = Session(
        holder=holder,
        manifest=manifest,
        api=Api(
            engines,
            fingerprint(manifest),
            clock=clock,
            random=random,
            embedder=embedder,
            answers={each.card.name: model.answers for each, model in zip(engines, settings.models, strict=True)},
        ),
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
        shelf=shelf,
        max_waiting=limits.max_quote_waiting,
        monotonic=monotonic,
        timeout_s=limits.evidence_timeout_s,
    )
    foreign = Foreign(session, max_frame_bytes=limits.max_request_bytes) if settings.dialects.ehbp else None

    def ready() -> bool:
        return any(engine.ready for engine in engines)

    app = EnclaveApp(
        session, holder, room, shelf, gateway_secret, limits, log, stop_signer, recheck, made, foreign, ready
    )
    return app, holder, manifest


def _reporter(log: structlog.typing.FilteringBoundLogger) -> Callable[[Exception], None]:
    def report(error: Exception) -> None:
        log.error("exchange.failed", error=type(error).__name__)

    return report
