"""GPUs through NVML, with a simulated binding."""

import ctypes
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from confide_attestation.nvidia.device import Arch
from confide_attestation.nvidia.evidence import DeviceEvidence, NvidiaEndorsements
from confide_attestation.nvidia.verify import verify_nvidia
from confide_attestation.result import Verdict
from confide_attestation.simulated.nvidia import SimulatedDevice
from confide_enclave.collect.nvml import Environment, GpuState, MultiGpu, NvmlGpus, load_pynvml
from confide_enclave.errors import DeviceUnavailable

from tests.unit.enclave.collect.conftest import NOW
from tests.unit.enclave.collect.fake_nvml import Certificate, FakeNvml, Memory, Report, Settings, State

pytestmark = pytest.mark.anyio
NONCE = bytes(range(32))


@pytest.fixture(scope="module")
def devices(vendor):
    return [SimulatedDevice(vendor), SimulatedDevice(vendor, pdi=b"\x01" * 8)]


def gpus(nvml: FakeNvml, driver_gpus: Path = Path("/nonexistent")) -> NvmlGpus:
    return NvmlGpus(timeout_s=5, load=lambda: nvml, driver_gpus=driver_gpus)


@pytest.mark.parametrize("arch", [Arch.HOPPER, Arch.BLACKWELL])
async def test_the_verifier_accepts_what_is_collected(vendor, devices, arch):
    """Reports and chains of all GPUs, in NVML's order, are authentic as they lie."""
    own = [replace(each, arch=arch) for each in devices]
    nvml = FakeNvml(own)
    evidence = await gpus(nvml).evidence(NONCE)
    assert [each.architecture for each in evidence] == [arch.value] * 2
    judged = [DeviceEvidence(each.report, each.certificate_chain, each.architecture) for each in evidence]
    result = verify_nvidia(judged, NvidiaEndorsements(own[0].rims), now_unix_s=NOW, nonce=NONCE, roots=vendor.roots)
    assert result.verdict is Verdict.AUTHENTIC, result.failed
    assert nvml.open == 0


async def test_states_tell_each_gpu_and_the_machines_mode(devices):
    """UUIDs and versions of each, mode, ready state and protected memory."""
    states = await gpus(FakeNvml(devices)).states()
    assert states[1] == GpuState(
        index=1,
        uuid="GPU-0101010101010101",
        architecture="HOPPER",
        driver_version="550.90.07",
        vbios_version="96.00.9F.00.01",
        environment=Environment.PRODUCTION,
        cc_on=True,
        devtools_on=False,
        multi_gpu=MultiGpu.NONE,
        ready=True,
        protected_memory_kib=80 << 20,
    )


async def test_a_machine_without_confidential_computing_still_has_states(devices):
    """What the driver refuses then is not asked."""
    state = (await gpus(FakeNvml(devices, cc=0, environment=0)).states())[0]
    assert (state.cc_on, state.ready, state.protected_memory_kib) == (False, False, 0)


async def test_an_unknown_developer_mode_counts_as_on(devices):
    """Nothing unknown is taken for off."""
    assert (await gpus(FakeNvml(devices, devtools=7)).states())[0].devtools_on


async def test_a_driver_before_multi_gpu_modes_is_asked_the_older_way(devices):
    """A library without the newer call has no such mode."""
    nvml = FakeNvml(devices, errors={"nvmlSystemGetConfComputeSettings": 13})
    assert (await gpus(nvml).states())[0].multi_gpu is MultiGpu.NONE
    assert len(await gpus(nvml).evidence(NONCE)) == 2


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"cc": 0}, "confidential computing off"),
        ({"devtools": 1}, "DevTools mode on"),
        ({"environment": 1}, "not in the production environment"),
        ({"protected_kib": 0}, "no protected memory"),
        ({"multi_gpu": 1, "cc": 0}, r"protected PCIe \(PPCIE\) mode"),
        ({"architecture": 8}, r"GPU 0: its architecture \(8\)"),
        ({"devices": []}, "shows 0 GPUs"),
        ({"bend": lambda e: replace(e, report=e.report[:4] + bytes(32) + e.report[36:])}, "answers another nonce"),
        ({"bend": lambda e: replace(e, report=b"")}, "GPU 0: gave 0 bytes in a place of 8192"),
        ({"bend": lambda e: replace(e, report=bytes(0x2001))}, "gave 8193 bytes"),
        ({"bend": lambda e: replace(e, chain=bytes(0x1401))}, "gave 5121 bytes in a place of 5120"),
        ({"errors": {"nvmlSystemGetConfComputeSettings": 3}}, "NVML error 3; the GPU or its driver cannot"),
        ({"errors": {"nvmlDeviceGetConfComputeGpuAttestationReport": 15}}, "GPU 0: NVML error 15; .*off the bus"),
        ({"errors": {"nvmlDeviceGetConfComputeGpuCertificate": 999}}, "NVML error 999; stop and start"),
        ({"errors": {"nvmlInit": 12}}, "libnvidia-ml.so.1 is not there"),
        ({"errors": {"nvmlInit": 9}}, "modprobe nvidia"),
    ],
)
async def test_no_evidence_has_a_reason(devices, lie, said):
    """Mode, device, answer and driver each have their own words, and the session is closed."""
    nvml = FakeNvml(**{"devices": devices, **lie})
    with pytest.raises(DeviceUnavailable, match=said):
        await gpus(nvml).evidence(NONCE)
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"environment": 7}, "Environment 7 is unknown"),
        ({"multi_gpu": 7}, "MultiGpu 7 is unknown"),
        ({"errors": {"nvmlSystemGetConfComputeGpusReadyState": 13}}, "the driver is too old"),
    ],
)
async def test_an_unknown_mode_is_no_state(devices, lie, said):
    """What this release does not know it does not wave through."""
    with pytest.raises(DeviceUnavailable, match=said):
        await gpus(FakeNvml(devices, **lie)).states()


async def test_every_gpu_that_the_driver_holds_is_counted(devices, tmp_path):
    """One that NVML does not show would be used unattested."""
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert len(await gpus(FakeNvml(devices), tmp_path).states()) == 2
    (tmp_path / "0000:03:00.0").mkdir()
    with pytest.raises(DeviceUnavailable, match=r"shows 2 GPUs, .* 3; run as a user that sees all"):
        await gpus(FakeNvml(devices), tmp_path).states()


async def test_a_nonce_of_another_length_is_refused(devices):
    """32 bytes, as the report has them."""
    with pytest.raises(DeviceUnavailable, match="a nonce has 32 bytes, not 31"):
        await gpus(FakeNvml(devices)).evidence(bytes(31))


async def test_gpus_are_made_ready(devices):
    """The state is set, and read again."""
    nvml = FakeNvml(devices, ready=0)
    await gpus(nvml).make_ready()
    assert nvml.ready == 1


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"errors": {"nvmlSystemSetConfComputeGpusReadyState": 4}}, "nvidia-smi conf-compute -srs 1"),
        ({"refuses_ready": True}, "did not become ready"),
    ],
)
async def test_gpus_that_do_not_become_ready_are_a_fault(devices, lie, said):
    """Without the right, and without effect."""
    with pytest.raises(DeviceUnavailable, match=said):
        await gpus(FakeNvml(devices, ready=0, **lie)).make_ready()


@pytest.mark.parametrize(("module", "said"), [(None, "not installed"), (ModuleType("pynvml"), "too old")])
async def test_a_missing_binding_names_the_extra(monkeypatch, module, said):
    """pynvml is imported only when it is needed."""
    monkeypatch.setitem(sys.modules, "pynvml", module)
    with pytest.raises(DeviceUnavailable, match=rf"nvidia-ml-py is {said}.*pip install 'confide\[gpu\]'"):
        await NvmlGpus(timeout_s=5).states()


def test_the_real_binding_has_every_name():
    """What the simulated binding has, the real one has, in structures of the same fields and size."""
    real = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert load_pynvml() is real
    for name in dir(FakeNvml):
        if name.startswith(("nvml", "NVML", "c_nvml")):
            assert hasattr(real, name), name
    for ours, theirs in (
        (Settings, real.c_nvmlSystemConfComputeSettings_v1_t),
        (State, real.c_nvmlConfComputeSystemState_t),
        (Memory, real.c_nvmlConfComputeMemSizeInfo_t),
        (Certificate, real.c_nvmlConfComputeGpuCertificate_t),
        (Report, real.c_nvmlConfComputeGpuAttestationReport_t),
    ):
        assert ctypes.sizeof(ours) == ctypes.sizeof(theirs)
        assert [name for name, *_ in ours._fields_] == [name for name, *_ in theirs._fields_]
