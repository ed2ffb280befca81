"""The enclave's own appraisal of its GPUs, by the real verifier on simulated devices."""

from dataclasses import replace
from pathlib import Path

import pytest
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.simulated.nvidia import SimulatedDevice
from confide_enclave.collect.gpu_check import GpuRejected, check_gpus
from confide_enclave.collect.nvml import NvmlGpus, mode_faults
from confide_enclave.errors import DeviceUnavailable
from confide_protocol.errors import ConfideError

from tests.unit.enclave.collect.conftest import NOW
from tests.unit.enclave.collect.fake_nvml import FakeNvml

pytestmark = pytest.mark.anyio
NONCE = bytes(range(1, 33))


@pytest.fixture(scope="module")
def devices(vendor):
    return [SimulatedDevice(vendor), SimulatedDevice(vendor, pdi=b"\x01" * 8)]


@pytest.fixture(scope="module")
def endorsements(devices):
    return NvidiaEndorsements(devices[0].rims)


async def check(nvml, endorsements, roots, now_unix_s=NOW):
    source = NvmlGpus(timeout_s=10, load=lambda: nvml, driver_gpus=Path("/nonexistent"))
    return await check_gpus(
        source,
        endorsements,
        now_unix_s=now_unix_s,
        random=lambda size: NONCE[:size],
        simulated=roots,
    )


async def test_genuine_gpus_pass_and_are_counted(devices, endorsements, roots):
    """Every GPU of the driver is asked with our nonce; those that are ready stay as they are."""
    nvml = FakeNvml(devices)
    states = await check(nvml, endorsements, roots)
    assert [state.index for state in states] == [0, 1]
    assert nvml.calls.count("nvmlDeviceGetConfComputeGpuAttestationReport") == 2
    assert "nvmlSystemSetConfComputeGpusReadyState" not in nvml.calls


async def test_gpus_are_made_ready_only_after_they_passed(devices, endorsements, roots):
    """The driver gives no work to GPUs before that."""
    nvml = FakeNvml(devices, ready=0)
    await check(nvml, endorsements, roots)
    assert nvml.ready == 1
    nvml = FakeNvml(devices, ready=0)
    with pytest.raises(GpuRejected):
        await check(nvml, NvidiaEndorsements(), roots)
    assert nvml.ready == 0


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"cc": 0, "environment": 0}, "GPU 0, 1 has confidential computing off; set CC mode on"),
        ({"devtools": 1}, "GPU 0, 1 has DevTools mode on"),
        ({"multi_gpu": 1, "cc": 0}, "protected PCIe (PPCIE) mode"),
        ({"environment": 1}, "not in the production environment"),
        ({"protected_kib": 0}, "no protected memory"),
    ],
)
async def test_a_wrong_mode_is_refused_before_anything_is_asked(devices, endorsements, roots, lie, said):
    """Each reason is one that a person can act on."""
    nvml = FakeNvml(devices, **lie)
    with pytest.raises(GpuRejected) as caught:
        await check(nvml, endorsements, roots)
    assert said in str(caught.value)
    assert caught.value.code == "gpu_rejected"
    assert isinstance(caught.value, ConfideError)
    assert "nvmlDeviceGetConfComputeGpuAttestationReport" not in nvml.calls


async def test_the_real_vendors_roots_refuse_simulated_gpus(devices, endorsements, roots):
    """Simulated roots count only where they are given."""
    with pytest.raises(GpuRejected, match="root_pin"):
        await check(FakeNvml(devices), endorsements, None)


async def test_a_missing_manifest_is_named(devices, roots):
    """The reason says what to fetch."""
    with pytest.raises(GpuRejected, match=r"NV_GPU_DRIVER_GH100_550\.90\.07"):
        await check(FakeNvml(devices), NvidiaEndorsements(), roots)


async def test_expired_certificates_are_refused(devices, endorsements, roots):
    """At another time the same evidence does not pass."""
    with pytest.raises(GpuRejected, match="validity"):
        await check(FakeNvml(devices), endorsements, roots, now_unix_s=NOW + 400 * 86_400)


async def test_a_changed_report_is_refused(devices, endorsements, roots):
    """One bit of a measurement, and the signature is wrong."""

    def bend(evidence):
        data = bytearray(evidence.report)
        data[60] ^= 1
        return replace(evidence, report=bytes(data))

    with pytest.raises(GpuRejected, match="report_sig"):
        await check(FakeNvml(devices, bend=bend), endorsements, roots)


async def test_one_gpu_in_the_place_of_two_is_refused(devices, endorsements, roots):
    """Two handles to one device are one device."""
    with pytest.raises(GpuRejected, match="duplicate_device: gpu1 is gpu0"):
        await check(FakeNvml([devices[0], devices[0]]), endorsements, roots)


@pytest.mark.parametrize("lie", [{"driver": "550.90.08"}, {"vbios": "96.00.9F.00.02"}])
async def test_the_driver_must_say_what_the_gpu_signed(devices, endorsements, roots, lie):
    """A version that differs from the signed one is another driver's, or another GPU's."""
    with pytest.raises(GpuRejected, match="its signed report"):
        await check(FakeNvml(devices, **lie), endorsements, roots)


async def test_a_gpu_without_evidence_is_refused(devices, endorsements, roots):
    """A source that leaves one out does not pass."""

    class Lazy(NvmlGpus):
        async def evidence(self, nonce):
            return (await super().evidence(nonce))[:1]

    source = Lazy(timeout_s=5, load=lambda: FakeNvml(devices), driver_gpus=Path("/nonexistent"))
    with pytest.raises(GpuRejected, match="1 of 2 GPUs gave evidence"):
        await check_gpus(source, endorsements, now_unix_s=NOW, random=lambda size: NONCE, simulated=roots)


async def test_a_gpu_that_cannot_be_asked_is_unavailable(devices, endorsements, roots):
    """A fault of the device is not a verdict."""
    nvml = FakeNvml(devices, errors={"nvmlDeviceGetConfComputeGpuCertificate": 10})
    with pytest.raises(DeviceUnavailable, match="no answer in time"):
        await check(nvml, endorsements, roots)


def test_a_machine_without_gpus_is_refused():
    """Somebody asked for GPUs to be judged."""
    assert mode_faults(()) == ["the driver shows no GPU"]
