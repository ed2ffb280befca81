"""Reading the settings again while the process lives: other models, a new manifest and new keys (SPEC 3.5).

What can be known before is checked first, while the old models still answer: the settings, the files of the models,
the machine. Only then is all drained, what is not wanted any more closed, and the new loaded. A fault before the
draining leaves everything as it was; one after it leaves nothing served, until the settings are read again.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from confide_protocol.errors import ConfideError, ConfigError
from confide_protocol.keyset import Manifest

from confide_enclave.app import EnclaveApp
from confide_enclave.engine import Embedder, Engine, ModelCard
from confide_enclave.keys import KeysetHolder
from confide_enclave.models import Loader, make_loaders, read_cards, share_cores
from confide_enclave.serving import Enclave
from confide_enclave.settings import EnclaveSettings, load_settings
from confide_enclave.threads import in_thread

# What the process took at its start, and holds until its end.
FIXED: Final = (
    "listen", "gateway_secret_file", "platform", "device_socket", "gpus", "endorsements_file", "devices",
    "simulated",
)  # fmt: skip
FIXED_LIMITS: Final = ("max_request_bytes", "header_timeout_s", "device_timeout_s", "shutdown_grace_s")
Built = tuple[EnclaveApp, KeysetHolder, Manifest]
Build = Callable[[EnclaveSettings, Sequence[Engine], Embedder | None], Built]
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A model that the settings name, or the encoder. `key` is what of them decides how it is loaded."""

    key: object
    card: ModelCard
    load: Loader


@dataclass(frozen=True)
class Loaded:
    key: object
    part: Engine | Embedder

    def suits(self, wanted: Wanted) -> bool:
        """Say whether it is what is wanted, by settings and files as they were then, and has not given up."""
        return self.key == wanted.key and self.part.card == wanted.card and not self.part.failed


def keys_of(settings: EnclaveSettings) -> list[object]:
    """Return a key for each model in the settings' order, then for the encoder if there is one."""
    models: list[object] = [(model.name, model.weights, model.engine) for model in settings.models]
    return models if settings.embeddings is None else [*models, settings.embeddings]


@dataclass(frozen=True)
class Source:
    """One file of settings, and the models that it names. The methods block, and raise ConfigError."""

    file: Path

    def settings(self) -> EnclaveSettings:
        return share_cores(str(self.file), load_settings(self.file))

    def wanted(self, settings: EnclaveSettings) -> list[Wanted]:
        """Describe all that the settings name, in the order of `keys_of`; hashes the files."""
        models, encoder = read_cards(settings)
        cards = models if encoder is None else (*models, encoder)
        loaders = make_loaders(str(self.file), settings)
        return [Wanted(*each) for each in zip(keys_of(settings), cards, loaders, strict=True)]


class Reloader:
    """Makes one change at a time; a wish that comes amid one is fulfilled after it.

    `check` judges the machine, and `build` makes keys and application for engines that are loaded.
    """

    def __init__(
        self,
        enclave: Enclave,
        source: Source,
        settings: EnclaveSettings,
        loaded: Sequence[Loaded],
        check: Callable[[EnclaveSettings], Awaitable[None]],
        build: Build,
    ) -> None:
        self._enclave, self._source, self._settings, self._loaded = enclave, source, settings, list(loaded)
        self._check, self._build = check, build
        self._asked = asyncio.Event()

    def ask(self) -> None:
        self._asked.set()

    async def run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self.reload()

    async def reload(self) -> None:
        """Bring what is served in line with the file. Whatever is wrong is logged, and raises nothing."""
        try:
            settings, wanted = await in_thread(self._read, "confide-reload")
            if self._is_served(settings, wanted):
                log.info("reload.unchanged")
                return
            await self._check_machine(settings)
        except Exception as fault:  # noqa: BLE001 - the old goes on, whatever the new has
            log.error("reload.refused", **_told(fault))  # noqa: TRY400
            return
        log.info("reload.draining")
        try:
            await self._enclave.drain(self._settings.limits.shutdown_grace_s)
            await self._close_all_but(wanted)
            await self._open(settings, wanted)
        except Exception as fault:  # noqa: BLE001 - nothing is served until the file is read again
            log.error("reload.failed", **_told(fault))  # noqa: TRY400

    async def _check_machine(self, settings: EnclaveSettings) -> None:
        try:
            await self._check(settings)
        except ConfideError:
            self._enclave.doubt_gpus()  # what serves may no longer vouch for them either
            raise

    def _read(self) -> tuple[EnclaveSettings, list[Wanted]]:
        settings = self._source.settings()
        for name in changes(self._settings, settings):
            raise ConfigError(
                str(self._source.file), name, "cannot change while it runs; restart it, or put it back"
            )
        return settings, self._source.wanted(settings)

    def _is_served(self, settings: EnclaveSettings, wanted: Sequence[Wanted]) -> bool:
        same = len(wanted) == len(self._loaded) and all(map(Loaded.suits, self._loaded, wanted))
        return same and self._enclave.serving and settings == self._settings

    async def _close_all_but(self, wanted: Sequence[Wanted]) -> None:
        for each in list(self._loaded):
            if not any(each.suits(one) for one in wanted):
                self._loaded.remove(each)
                self._enclave.parts.remove(each.part)
                await each.part.close()

    async def _open(self, settings: EnclaveSettings, wanted: Sequence[Wanted]) -> None:
        gc.collect()  # of what was closed, keys too: the new may need the room
        for one in wanted:
            if all(each.key != one.key for each in self._loaded):  # of what is left, all suits
                part = await in_thread(one.load, "confide-reload")
                self._enclave.parts.append(part)
                self._loaded.append(Loaded(one.key, part))
                if part.card != one.card:
                    remedy = f"of {one.card.name} were exchanged while they were read; let it read them again"
                    raise ConfigError(str(self._source.file), "weights", remedy)
        order = keys_of(settings)
        self._loaded.sort(key=lambda each: order.index(each.key))
        self._settings = settings
        engines, embedder = split(self._loaded, settings)
        for engine in engines:
            engine.forget_all()  # what it keeps was kept under the old keys
        app, holder, manifest = self._build(settings, engines, embedder)
        keyset = holder.current.digest.hex()
        self._enclave.serve(app)
        log.info("reload.done", manifest=manifest.digest.hex(), keyset=keyset)


def split(loaded: Sequence[Loaded], settings: EnclaveSettings) -> tuple[list[Engine], Embedder | None]:
    """Tell the engines from the encoder, in the order of `keys_of`."""
    parts = [each.part for each in loaded]
    count = len(settings.models)
    return parts[:count], parts[count] if len(parts) > count else None  # type: ignore[return-value]


def changes(old: EnclaveSettings, new: EnclaveSettings) -> list[str]:
    """Name what differs of the settings that a reload cannot change."""
    names = [name for name in FIXED if getattr(old, name) != getattr(new, name)]
    return names + [
        f"limits.{name}" for name in FIXED_LIMITS if getattr(old.limits, name) != getattr(new.limits, name)
    ]


def _told(fault: Exception) -> dict[str, str]:
    """Say what the log may of a fault: of our own what is wrong and where, of others the type."""
    if isinstance(fault, ConfigError):
        return {"file": fault.file, "setting": fault.field, "remedy": fault.remedy}
    if isinstance(fault, ConfideError):
        return {"code": fault.code}
    return {"error": type(fault).__name__}
