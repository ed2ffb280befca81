"""What a reload's own look at the GPUs means for the enclave that serves."""

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from confide_attestation.evidence import Endorsements
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_enclave import cli
from confide_enclave.collect.gpu_check import GpuRejected
from confide_enclave.errors import DeviceUnavailable
from confide_enclave.node import assemble, check_machine
from confide_enclave.recheck import Recheck
from confide_enclave.reload import Loaded, Reloader, Source, Wanted, keys_of
from confide_enclave.serving import Enclave
from confide_enclave.settings import EnclaveSettings, load_settings
from structlog.testing import capture_logs

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.support import NOW, SECRET, FakeDevice
from tests.unit.enclave.test_recheck import Guarded

pytestmark = pytest.mark.anyio
DAY_S = 24 * 3600


class Reloading(Guarded):
    """The enclave with one simulated GPU, and a file that names other shapes."""

    def __init__(self) -> None:
        super().__init__()
        engine, new = ScriptedEngine(), self.settings.model_copy(update={"shapes": ("none",)})

        class Shaped(Source):
            def settings(self) -> EnclaveSettings:
                return new

            def wanted(self, settings: EnclaveSettings) -> list[Wanted]:
                return [Wanted(key, engine.card, lambda: engine) for key in keys_of(settings)]

        def build(settings: EnclaveSettings, engines: Any, embedder: Any) -> Any:
            options: Any = {"shelf": self.shelf, "gpus": self.gpus, "clock": self.clock, "random": os.urandom}
            built = assemble(settings, engines, FakeDevice(), SECRET, **options)
            self.holder = built[1]
            return built

        self.check = partial(
            check_machine,
            attester=FakeDevice(),
            gpus=self.gpus,
            shelf=self.shelf,
            clock=self.clock,
            random=os.urandom,
        )
        loaded = [Loaded(key, engine) for key in keys_of(self.settings)]
        enclave = Enclave(self.app, [engine])
        self.app = enclave  # type: ignore[assignment]
        source, again = Shaped(Path("enclave.toml")), partial(self.check, again=True)
        self.reloader = Reloader(enclave, source, self.settings, loaded, again, build)

    async def reload(self) -> list[str]:
        with capture_logs() as logs:
            structlog.get_logger()
            await self.reloader.reload()
            await asyncio.sleep(0.1)
        return [each["event"] for each in logs if each["event"].startswith(("reload", "gpu_check"))]


async def test_a_gpu_that_a_reload_rejects_ends_evidence() -> None:
    """The old keys go on to their end, as after a rotation that was refused; a GPU that passes again ends that."""
    node = Reloading()
    before = node.holder.current
    assert await node.evidence() == 200
    node.nvml.devtools = 1
    assert await node.reload() == ["reload.refused", "gpu_check.failed"]
    assert await node.evidence() == 503
    assert node.holder.current is before
    await node.due()
    assert node.holder.current is before
    node.nvml.devtools = 0
    assert (await node.reload())[-1] == "reload.done"
    assert await node.evidence() == 200


async def test_a_reload_asks_as_a_rotation_does() -> None:
    """The answers about revocation that came with the start, stale after a day, keep nobody from reloading."""
    node = Reloading()
    device = node.nvml.devices[0]
    node.shelf.take(Endorsements(nvidia=NvidiaEndorsements(device.rims, tuple(device.answers()))))
    await node.check(node.settings)
    node.clock.now = NOW + 2 * DAY_S
    with pytest.raises(GpuRejected):
        await node.check(node.settings)
    assert (await node.reload())[-1] == "reload.done"


async def test_a_doubt_that_was_wrong_ends_without_new_keys() -> None:
    """The check that ends it counts for no keyset: the next one is made after a check of its own."""
    outcomes = [False, True, True]

    async def check() -> None:
        if not outcomes.pop(0):
            raise DeviceUnavailable("reset")

    recheck = Recheck(check, structlog.get_logger(), retry_s=0.01)
    recheck.doubt()
    with pytest.raises(DeviceUnavailable):
        recheck.demand()
    await asyncio.sleep(0.1)
    recheck.demand()
    assert not recheck.may_rotate()
    await asyncio.sleep(0.01)
    assert recheck.may_rotate()
    assert outcomes == []


def test_the_command_asks_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its start with the answers on the shelf, at a reload without."""
    asked: list[dict[str, Any]] = []

    async def check(settings: EnclaveSettings, **given: Any) -> None:
        asked.append(given)

    file = tmp_path / "enclave.toml"
    file.write_text('gateway_secret_file = "x"\nplatform = "simulated-sev-snp"\ndevice_socket = "x"\n')
    monkeypatch.setattr(cli, "check_machine", check)
    monkeypatch.setattr(cli, "open_machine", lambda settings: (FakeDevice(), None))
    monkeypatch.setattr(cli, "make_loaders", lambda *_: [ScriptedEngine])
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    settings = load_settings(file)
    _, reloader, _ = cli._start(file, settings, SECRET)
    asyncio.run(reloader._check(settings))  # type: ignore[arg-type]
    assert [each.get("again", False) for each in asked] == [False, True]
