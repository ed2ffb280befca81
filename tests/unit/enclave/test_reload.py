"""Reading the settings again: what changes, what stays, what is refused, and what a fault leaves behind."""

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confide_attestation.evidence import parse_bundle
from confide_enclave.engine import ModelCard
from confide_enclave.errors import DeviceUnavailable
from confide_enclave.keys import KeysetHolder
from confide_enclave.node import assemble
from confide_enclave.reload import (
    FIXED,
    FIXED_LIMITS,
    Loaded,
    Reloader,
    Source,
    Wanted,
    changes,
    keys_of,
)
from confide_enclave.serving import RETRY_AFTER_S, Enclave
from confide_enclave.settings import EnclaveSettings, Limits, load_settings
from confide_protocol.errors import ConfigError, LocalStateError
from confide_protocol.keyset import Manifest, parse_manifest
from structlog.testing import capture_logs

from tests.fakes.engine import CARD, ScriptedEngine
from tests.unit.enclave.support import SECRET, Clock, FakeDevice, Node, Opened, Sealed

pytestmark = pytest.mark.anyio
BASE = 'gateway_secret_file = "g"\nplatform = "simulated-sev-snp"\ndevice_socket = "d"\n'
ROOM = "[limits]\nmax_concurrent = 4096\nshutdown_grace_s = 0.3\n"
SAY = {"messages": [{"role": "user", "content": "what is said?"}]}


def file_of(*names: str, limits: str = ROOM) -> str:
    first, *more = names
    return (
        BASE + f'[model]\nname = "{first}"\n' + limits + "".join(f'[[more_models]]\nname = "{n}"\n' for n in more)
    )


@dataclass(frozen=True)
class Scripts(Source):
    """Scripted engines in place of models; `faults` breaks the loading of some, `files` changes what lies there."""

    engines: list[ScriptedEngine] = field(default_factory=list)
    faults: dict[str, Exception] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)

    def settings(self) -> EnclaveSettings:
        return load_settings(self.file)

    def wanted(self, settings: EnclaveSettings) -> list[Wanted]:
        return [
            Wanted(key, self.engine(model.name).card, lambda name=model.name: self.load(name))
            for key, model in zip(keys_of(settings), settings.models, strict=True)
        ]

    def engine(self, name: str) -> ScriptedEngine:
        engine = ScriptedEngine([f"this is {name}"] * 3, name=name, step_s=self.steps.get(name, 0.0))
        digest = self.files.get(name, CARD.weights_digest)
        engine._card = ModelCard(**{**vars(engine.card), "weights_digest": digest})
        return engine

    def load(self, name: str) -> ScriptedEngine:
        if name in self.gates:
            self.gates[name].wait(10)
        if name in self.faults:
            raise self.faults[name]
        self.engines.append(self.engine(name))
        return self.engines[-1]


class Reloading(Node):
    """An enclave of scripted models whose file can be changed. `app` is what the server calls."""

    def __init__(self, folder: Path, *names: str, steps: dict[str, float] | None = None) -> None:
        self.file = folder / "enclave.toml"
        self.file.write_text(file_of(*names))
        self.source = Scripts(self.file, steps=steps or {})
        self.device, self.clock = FakeDevice(), Clock()
        self.machine_fault: Exception | None = None
        settings = self.source.settings()
        loaded = [Loaded(each.key, each.load()) for each in self.source.wanted(settings)]
        app, _, _ = self.build(settings, [each.part for each in loaded], None)
        self.app = Enclave(app, [each.part for each in loaded])  # type: ignore[assignment]
        self.reloader = Reloader(self.app, self.source, settings, loaded, self.check, self.build)  # type: ignore[arg-type]

    def build(self, settings: EnclaveSettings, engines: Any, embedder: Any) -> Any:
        built = assemble(settings, engines, self.device, SECRET, clock=self.clock, random=os.urandom)
        _, holder, self.manifest = built
        self._holder = weakref.ref(holder)  # the enclave alone keeps it alive
        return built

    @property
    def holder(self) -> KeysetHolder:  # type: ignore[override]
        holder = self._holder()
        assert holder is not None
        return holder

    async def check(self, settings: EnclaveSettings) -> None:
        if self.machine_fault:
            raise self.machine_fault

    async def write(self, text: str) -> list[str]:
        """Change the file, read it again, and return what was logged of that."""
        self.file.write_text(text)
        with capture_logs() as logs:
            await self.reloader.reload()
        self.logs = [each for each in logs if each["event"].startswith("reload")]
        return [each["event"] for each in self.logs]

    async def ask(self, model: str, **options: Any) -> Opened:
        sealed = Sealed(self, await self.statement_digest(), {"model": model, **SAY, **options})
        return sealed.open(await sealed.send(self))

    async def served(self) -> Manifest:
        answer = await self.call("GET", f"/evidence?nonce={os.urandom(32).hex()}")
        return parse_manifest(parse_bundle(answer.body)[0].manifest)

    async def until(self, *, serving: bool, first: str = "") -> None:
        async with asyncio.timeout(10):
            while True:
                await asyncio.sleep(0.001)
                if self.app.serving == serving and self.manifest.model.startswith(first):  # type: ignore[attr-defined]
                    return

    @property
    def names(self) -> list[tuple[str, bool]]:
        return [(each.card.name, each.closed) for each in self.source.engines]


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Reloading]:
    return lambda *names, **options: Reloading(tmp_path, *names, **options)


async def test_a_model_is_exchanged_and_the_other_stays_loaded(start: Callable[..., Reloading]) -> None:
    """The new manifest is named by new keys, and by the receipts under them; the old model is gone."""
    node = start("a", "b")
    before, old = node.keyset, node.manifest.digest
    assert (await node.ask("b")).claims.manifest_digest == old
    assert await node.write(file_of("a", "c")) == ["reload.draining", "reload.done"]
    assert node.names == [("a", False), ("b", True), ("c", False)]
    assert node.keyset.digest != before.digest
    assert node.keyset.manifest_digest == node.manifest.digest == (await node.served()).digest != old
    opened = await node.ask("c")
    assert (opened.claims.model, opened.claims.manifest_digest) == ("c", node.manifest.digest)
    assert "this is c" in opened.body.decode()
    assert (await node.ask("a")).status == 200
    assert (await node.ask("b")).json["error"]["code"] == "model_not_found"
    assert node.logs[-1]["manifest"] == node.manifest.digest.hex()


async def test_the_old_keys_are_destroyed(start: Callable[..., Reloading]) -> None:
    """Nothing holds them any more, and what is sealed to them is answered as any unknown key is."""
    node = start("a")
    digest, keyset = await node.statement_digest(), node.keyset
    gone = weakref.ref(node.holder.current), weakref.ref(node.holder)
    sealed = Sealed(node, digest, {"model": "a", **SAY}, keyset=keyset)
    await node.write(file_of("b"))
    gc.collect()
    assert [each() for each in gone] == [None, None]
    assert (await sealed.send(node)).status == 400
    assert not any(engine.requests for engine in node.source.engines)


async def test_what_is_in_progress_ends_and_what_comes_meanwhile_is_told_to_come_again(
    start: Callable[..., Reloading],
) -> None:
    """A stream goes on to its receipt; all but health is 503 with a time, until the new model is there."""
    node = start("a", steps={"a": 0.05})
    sealed = Sealed(node, await node.statement_digest(), {"model": "a", "stream": True, **SAY})
    late = Sealed(node, await node.statement_digest(), {"model": "a", **SAY})
    stream = asyncio.create_task(sealed.send(node))
    await node.source.engines[0].started.wait()
    change = asyncio.create_task(node.write(file_of("b")))
    await node.until(serving=False)
    for answer in (
        await node.call("GET", "/readyz", secret=None),
        await node.call("GET", f"/evidence?nonce={'00' * 32}"),
        await late.send(node),
    ):
        assert (answer.status, answer.headers["retry-after"]) == (503, str(RETRY_AFTER_S))
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await node.call("GET", "/healthz", secret=None)).status == 200
    opened = Sealed.open(sealed, await stream)
    assert (opened.claims.outcome, opened.text) == ("complete", "this is a" * 3)
    assert await change == ["reload.draining", "reload.done"]
    assert (await node.call("GET", "/readyz")).status == 200
    assert (await node.ask("b")).status == 200


async def test_what_does_not_end_in_time_ends_signed(start: Callable[..., Reloading]) -> None:
    """The grace is that of a shutdown; an answer cut short says so, under its own keys."""
    node = start("a", steps={"a": 5.0})
    keyset = node.keyset
    sealed = Sealed(node, await node.statement_digest(), {"model": "a", "stream": True, **SAY})
    stream = asyncio.create_task(sealed.send(node))
    await node.source.engines[0].started.wait()
    assert await node.write(file_of("b")) == ["reload.draining", "reload.done"]
    opened = sealed.open(await stream)
    assert (opened.claims.outcome, opened.claims.keyset_digest) == ("refused", keyset.digest)
    assert b'"code":"shutting_down"' in opened.body


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = [", {"setting": "file"}),
        (file_of("a", "a"), {"setting": "more_models.0.name"}),
        (file_of("a").replace('"g"', '"h"'), {"setting": "gateway_secret_file"}),
        (file_of("a").replace("simulated-sev-snp", "simulated-tdx"), {"setting": "platform"}),
        ('listen = "127.0.0.1:1"\n' + file_of("a"), {"setting": "listen"}),
        (file_of("a", limits="[limits]\nshutdown_grace_s = 9\n"), {"setting": "limits.shutdown_grace_s"}),
    ],
)
async def test_a_file_that_is_wrong_changes_nothing(
    start: Callable[..., Reloading], text: str, told: dict[str, str]
) -> None:
    """One line says which setting and what to do; keys, manifest and models go on."""
    node = start("a")
    before = node.keyset.digest
    assert await node.write(text) == ["reload.refused"]
    assert told.items() <= node.logs[0].items()
    assert node.logs[0]["remedy"]
    assert (node.names, node.keyset.digest) == ([("a", False)], before)
    assert (await node.ask("a")).status == 200


async def test_a_machine_that_does_not_pass_changes_nothing(start: Callable[..., Reloading]) -> None:
    """No new keys are made on it, and none are given up."""
    node = start("a")
    before, node.machine_fault = node.keyset.digest, DeviceUnavailable("no")
    assert await node.write(file_of("b")) == ["reload.refused"]
    assert node.logs[0]["code"] == "device_unavailable"
    assert (node.names, node.keyset.digest) == ([("a", False)], before)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (ConfigError("w", "model.weights", "is not there"), {"setting": "model.weights", "remedy": "is not there"}),
        (MemoryError("CANARY"), {"error": "MemoryError"}),
    ],
)
async def test_a_model_that_does_not_load_leaves_nothing_served(
    start: Callable[..., Reloading], fault: Exception, told: dict[str, str]
) -> None:
    """503 for all, no keys, the reason in the log; what was kept is kept, and the next good file is served."""
    node = start("a", "b")
    node.source.faults["c"] = fault
    assert await node.write(file_of("a", "c")) == ["reload.draining", "reload.failed"]
    assert told.items() <= node.logs[1].items()
    assert "CANARY" not in str(node.logs)
    gc.collect()
    assert node._holder() is None
    assert [(await node.call("GET", each)).status for each in ("/healthz", "/readyz")] == [200, 503]
    assert (await node.call("GET", f"/evidence?nonce={'00' * 32}")).status == 503
    assert node.names == [("a", False), ("b", True)]
    del node.source.faults["c"]
    assert await node.write(file_of("a", "c")) == ["reload.draining", "reload.done"]
    assert node.names == [("a", False), ("b", True), ("c", False)]
    assert (await node.ask("c")).status == 200


async def test_a_model_that_does_not_close_leaves_nothing_served(start: Callable[..., Reloading]) -> None:
    """It is let go of, whatever it said; the next try loads what is still missing."""
    node = start("a", "b")

    async def close() -> None:
        raise OSError("CANARY")

    node.source.engines[1].close = close  # type: ignore[method-assign]
    assert await node.write(file_of("a", "c")) == ["reload.draining", "reload.failed"]
    assert node.logs[1]["error"] == "OSError"
    assert [(await node.call("GET", each)).status for each in ("/healthz", "/readyz")] == [200, 503]
    assert await node.write(file_of("a", "c")) == ["reload.draining", "reload.done"]
    assert [each.model for each in (await node.served()).models] == ["a", "c"]


async def test_the_same_file_changes_nothing(start: Callable[..., Reloading]) -> None:
    """Not even the keys."""
    node = start("a", "b")
    before = node.keyset.digest
    assert await node.write(file_of("a", "b")) == ["reload.unchanged"]
    assert node.keyset.digest == before


async def test_other_files_under_the_same_name_are_another_model(start: Callable[..., Reloading]) -> None:
    """Weights that were exchanged in place are loaded, and the manifest has their digest."""
    node = start("a", "b")
    node.source.files["b"] = b"\x07" * 32
    assert await node.write(file_of("a", "b")) == ["reload.draining", "reload.done"]
    assert node.names == [("a", False), ("b", True), ("b", False)]
    assert node.manifest.models[1].weights_digest == b"\x07" * 32


async def test_files_exchanged_while_they_are_read_are_not_served(
    start: Callable[..., Reloading], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was loaded is not what was described before the draining; read once more, it is."""
    node, load = start("a"), Scripts.load

    def exchange(source: Scripts, name: str) -> ScriptedEngine:
        source.files[name] = b"\x07" * 32
        return load(source, name)

    monkeypatch.setattr(Scripts, "load", exchange)
    assert await node.write(file_of("b")) == ["reload.draining", "reload.failed"]
    assert (node.logs[1]["setting"], (await node.call("GET", "/readyz")).status) == ("weights", 503)
    assert await node.write(file_of("b")) == ["reload.draining", "reload.done"]
    assert (await node.served()).weights_digest == b"\x07" * 32


async def test_the_order_of_models_is_a_manifest_of_its_own(start: Callable[..., Reloading]) -> None:
    """Nothing is loaded again for it, and what was kept for tenants is forgotten with the keys."""
    node = start("a", "b")
    forgotten: list[str] = []
    for engine in node.source.engines:
        engine.forget_all = lambda engine=engine: forgotten.append(engine.card.name)  # type: ignore[method-assign]
    old = node.manifest.digest
    assert await node.write(file_of("b", "a")) == ["reload.draining", "reload.done"]
    assert node.names == [("a", False), ("b", False)]
    assert [each.model for each in node.manifest.models] == ["b", "a"]
    assert node.manifest.digest != old
    assert sorted(forgotten) == ["a", "b"]
    assert b"this is a" in (await node.ask("a")).body


async def test_a_wish_amid_a_change_is_fulfilled_after_it(start: Callable[..., Reloading]) -> None:
    """Two signals make two changes, one after the other; what the last file says is served."""
    node = start("a")
    gate = node.source.gates["b"] = threading.Event()
    task = asyncio.create_task(node.reloader.run())
    node.file.write_text(file_of("b"))
    node.reloader.ask()
    await node.until(serving=False)
    node.file.write_text(file_of("c"))
    node.reloader.ask()
    gate.set()
    await node.until(serving=True, first="c")
    task.cancel()
    assert [name for name, closed in node.names if not closed] == ["c"]


async def test_the_end_closes_what_is_there_then(start: Callable[..., Reloading]) -> None:
    """Engines of before, of after, and of a change that failed: each once."""
    node = start("a", "b")
    node.source.faults["d"] = LocalStateError("no")
    await node.write(file_of("a", "c", "d"))
    messages, sent = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}], []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await node.app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert node.names == [("a", True), ("b", True), ("c", True)]


def test_what_a_reload_cannot_change_is_named() -> None:
    """Each name is a setting; every one of them, changed alone, is named alone."""
    tree = {"gateway_secret_file": "g", "platform": "simulated-sev-snp", "device_socket": "d"}
    old = EnclaveSettings.model_validate(tree)
    assert changes(old, old) == []
    assert set(FIXED) <= set(EnclaveSettings.model_fields)
    for name in FIXED:
        assert changes(old, old.model_copy(update={name: "other"})) == [name]
    for name in FIXED_LIMITS:
        limits = Limits(**{name: getattr(old.limits, name) + 1})
        assert changes(old, old.model_copy(update={"limits": limits})) == [f"limits.{name}"]
