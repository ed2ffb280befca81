"""A GPU whose mode changes after the start: no further keys, no evidence, and what is there ends in time."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import structlog
from confide_attestation.evidence import Endorsements
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor
from confide_enclave.collect.nvml import NvmlGpus
from confide_enclave.endorsements import Shelf
from confide_enclave.errors import DeviceUnavailable
from confide_enclave.keys import KeysetHolder
from confide_enclave.node import assemble
from confide_enclave.recheck import Recheck
from confide_enclave.settings import EnclaveSettings
from confide_protocol.errors import LocalStateError
from structlog.testing import capture_logs

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.collect.fake_nvml import FakeNvml
from tests.unit.enclave.support import NOW, SECRET, Clock, FakeDevice, Node

pytestmark = pytest.mark.anyio


class Guarded(Node):
    """An enclave with one simulated GPU behind NVML, whose mode a test changes."""

    def __init__(self) -> None:
        vendor = SimulatedVendor(int(NOW))
        device = SimulatedDevice(vendor)
        self.nvml = FakeNvml([device])
        self.gpus = NvmlGpus(timeout_s=5, load=lambda: self.nvml, driver_gpus=Path("/nonexistent"))
        self.clock, self.shelf = Clock(), Shelf()
        self.shelf.take(Endorsements(nvidia=NvidiaEndorsements(device.rims, ())))
        roots = {
            "nvidia_device_root_spki_sha256": vendor.roots.device_spki_sha256.hex(),
            "nvidia_rim_root_spki_sha256": vendor.roots.rim_spki_sha256.hex(),
        }
        tree = {"gateway_secret_file": "x", "platform": "simulated-sev-snp", "device_socket": "x"}
        self.settings = EnclaveSettings.model_validate({**tree, "gpus": True, "simulated": roots})
        self.app, self.holder, self.manifest = assemble(
            self.settings,
            [ScriptedEngine()],
            FakeDevice(),
            SECRET,
            shelf=self.shelf,
            gpus=self.gpus,
            clock=self.clock,
            random=os.urandom,
        )

    async def due(self) -> None:
        """Let the time of new keys come, and everything happen that follows."""
        self.clock.now = self.holder.current.keyset.not_after_unix_s - self.settings.keyset.grace_s
        await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            self.holder.tick()
            await asyncio.sleep(0.01)

    async def evidence(self) -> int:
        return (await self.call("GET", f"/evidence?nonce={'11' * 32}")).status


async def test_new_keys_are_made_once_the_gpus_have_passed_again() -> None:
    """The check counts for one keyset; the old answers on the shelf do not keep the enclave from going on."""
    node = Guarded()
    first = node.holder.current
    await node.due()
    second = node.holder.current
    assert second is not first
    assert node.holder.find(first.digest) is first
    assert node.nvml.calls.count("nvmlDeviceGetConfComputeGpuAttestationReport") == 1
    assert await node.evidence() == 200
    await node.due()
    assert node.holder.current is not second


@pytest.mark.parametrize("fault", [{"devtools": 1}, {"cc": 0}, {"environment": 1}, {"multi_gpu": 1}])
async def test_a_gpu_whose_mode_changed_gets_no_new_keys(fault: dict[str, int]) -> None:
    """Evidence is refused, the old keyset ends in time and is gone one grace later; the log says so once."""
    node = Guarded()
    first = node.holder.current
    for name, value in fault.items():
        setattr(node.nvml, name, value)
    with capture_logs() as logs:
        structlog.get_logger()
        await node.due()
        assert node.holder.current is first
        assert await node.evidence() == 503
        node.clock.now = first.keyset.not_after_unix_s + node.settings.keyset.grace_s - 1
        await node.settle()
        assert node.holder.find(first.digest) is first
        node.clock.now += 1
        await node.settle()
    assert node.holder.find(first.digest) is None
    with pytest.raises(LocalStateError):
        _ = node.holder.current
    assert await node.evidence() == 503
    assert (await node.call("GET", "/.well-known/ohttp-gateway")).status == 503
    assert len([each for each in logs if each["event"] == "gpu_check.failed"]) == 1


async def test_a_failed_check_is_repeated_until_it_passes() -> None:
    """A GPU that was only reset has its keys again, also after the old ones ended."""
    clock, outcomes = Clock(), [False, False, True]

    async def check() -> None:
        if not outcomes.pop(0):
            raise DeviceUnavailable("reset")

    recheck = Recheck(check, structlog.get_logger(), retry_s=0.01)
    options: dict[str, Any] = {"simulated": True, "lifetime_s": 3600, "grace_s": 300, "replay_capacity": 10}
    holder = KeysetHolder(bytes(32), clock=clock, random=os.urandom, may_rotate=recheck.may_rotate, **options)
    first = holder.current
    clock.now += 2 * 3600
    with pytest.raises(LocalStateError):
        _ = holder.current
    await asyncio.sleep(0)
    with pytest.raises(DeviceUnavailable):
        recheck.demand()
    await asyncio.sleep(0.1)
    recheck.demand()
    assert holder.current is not first
    assert holder.find(first.digest) is None
    assert outcomes == []


def test_a_machine_without_gpus_asks_nobody() -> None:
    """Keys are made at once."""
    recheck = Recheck(None, structlog.get_logger())
    assert recheck.may_rotate()
    recheck.demand()
    recheck.close()


def test_the_manifest_says_whether_there_are_gpus() -> None:
    """A policy that pins it pins that too."""
    assert Guarded().manifest.engine["gpus"] is True
    assert Node().manifest.engine["gpus"] is False
