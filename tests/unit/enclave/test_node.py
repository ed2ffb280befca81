"""The machine before the keys: which attester, and the enclave's own check of its GPUs, end to end in process."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confide_attestation.evidence import CpuKind, Endorsements, encode_endorsements
from confide_attestation.nvidia.evidence import NvidiaEndorsements, parse_evidence
from confide_attestation.nvidia.spdm import parse_spdm
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor
from confide_attestation.snp.abi import parse_report
from confide_attestation.tdx.abi import parse_quote
from confide_enclave.cli import enclave
from confide_enclave.collect.attesters import HardwareAttester
from confide_enclave.collect.gpu_check import GpuRejected
from confide_enclave.collect.nvml import NvmlGpus
from confide_enclave.endorsements import Shelf
from confide_enclave.errors import DeviceUnavailable
from confide_enclave.node import check_machine, open_machine
from confide_enclave.settings import EnclaveSettings
from confide_enclave.simulated import SimulatedAttester
from confide_protocol.errors import LocalStateError
from confide_sim.device import DeviceServer
from confide_sim.machine import SimulatedMachine

from tests.unit.enclave.support import NOW

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Machine(SimulatedMachine):
    """A machine whose driver says something of its own."""

    said: tuple[tuple[str, Any], ...] = ()

    def gpu_states(self) -> dict[str, Any]:
        return {"gpus": [{**state, **dict(self.said)} for state in super().gpu_states()["gpus"]]}


@dataclass(frozen=True)
class Patched(SimulatedDevice):
    """A GPU with one measurement that NVIDIA never published."""

    def report(self, nonce: bytes, **fields: Any) -> bytes:
        return super().report(nonce, measured={30: b"\xbd" * 48}, **fields)


@pytest.fixture(scope="module")
def genuine() -> SimulatedMachine:
    return SimulatedMachine.make(int(NOW), gpus=2)


@contextmanager
def serving(
    folder: Path, machine: SimulatedMachine, announced: dict[str, Any] | None = None
) -> Iterator[EnclaveSettings]:
    """Serve a machine; its settings trust its own roots, or those of the machine that was announced."""
    server = DeviceServer(folder / "d", machine)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    said = announced or machine.announce()
    roots = {name: said[name] for name in ("nvidia_device_root_spki_sha256", "nvidia_rim_root_spki_sha256")}
    try:
        yield EnclaveSettings.model_validate(
            {
                "gateway_secret_file": "x",
                "platform": f"simulated-{machine.kind}",
                "device_socket": str(folder / "d"),
                "gpus": True,
                "simulated": roots,
            }
        )
    finally:
        server.shutdown()
        server.server_close()


async def check(settings: EnclaveSettings, endorsements: Endorsements, **options: Any) -> None:
    shelf = Shelf()
    shelf.take(endorsements)
    attester, gpus = open_machine(settings)
    await check_machine(settings, attester, gpus, shelf, **{"clock": lambda: NOW, "random": os.urandom, **options})


@pytest.mark.parametrize("kind", [CpuKind.SEV_SNP, CpuKind.TDX])
async def test_a_genuine_machine_passes(tmp_path, kind):
    """Both platforms, several GPUs, with what the vendors say from the file that confide-sim writes."""
    machine = SimulatedMachine.make(int(NOW), kind=kind, gpus=3)
    (tmp_path / "e").write_bytes(encode_endorsements(machine.endorsements))
    with serving(tmp_path, machine) as settings:
        await check(settings, Shelf(tmp_path / "e").current)


async def test_a_machine_without_gpus_needs_no_manifest(tmp_path, genuine):
    """Only the CPU is asked."""
    with serving(tmp_path, replace(genuine, gpus=()), genuine.announce()) as settings:
        await check(settings.model_copy(update={"gpus": False, "simulated": None}), Endorsements())


def lying(genuine: SimulatedMachine, **said: Any) -> SimulatedMachine:
    return Machine(genuine.now_unix_s, genuine.cpu, genuine.gpus, tuple(said.items()))


REFUSED = {
    "confidential computing off": (lambda m: lying(m, cc_on=False), "confidential computing off"),
    "developer tools on": (lambda m: lying(m, devtools_on=True), "DevTools"),
    "another driver": (lambda m: lying(m, driver_version="550.90.08"), "550.90.08"),
    "a patched GPU": (
        lambda m: replace(m, gpus=(m.gpus[0], Patched(m.gpus[0].vendor, pdi=b"\2" * 8))),
        "gpu_measurements",
    ),
    "the same GPU twice": (lambda m: replace(m, gpus=(m.gpus[0], m.gpus[0])), "duplicate_device"),
    "no GPU": (lambda m: replace(m, gpus=()), "no GPU"),
}


@pytest.mark.parametrize("lie", REFUSED)
async def test_a_gpu_that_does_not_pass_is_named(tmp_path, genuine, lie):
    """The driver's word and the GPUs' evidence must both be good, and agree."""
    make, reason = REFUSED[lie]
    with (
        serving(tmp_path, make(genuine), genuine.announce()) as settings,
        pytest.raises(GpuRejected, match=reason),
    ):
        await check(settings, genuine.endorsements)


async def test_foreign_roots_and_absent_manifests_are_refused(tmp_path, genuine):
    """Neither NVIDIA's roots nor other simulated ones vouch for these GPUs; without manifests nothing is known."""
    foreign = SimulatedMachine(genuine.now_unix_s, genuine.cpu, (SimulatedDevice(SimulatedVendor(int(NOW))),))
    with serving(tmp_path, genuine) as settings:
        other = {name: foreign.announce()[name] for name in settings.simulated.model_dump()}
        for roots, reason in ((other, "device_root_pin"), (None, "device_root_pin")):
            wrong = settings.model_copy(update={"simulated": roots and type(settings.simulated)(**roots)})
            with pytest.raises(GpuRejected, match=reason):
                await check(wrong, genuine.endorsements)
        with pytest.raises(GpuRejected, match="driver_rim_missing"):
            await check(settings, Endorsements())
        bare = Endorsements(nvidia=NvidiaEndorsements(genuine.endorsements.nvidia.rims, ()))
        with pytest.raises(GpuRejected, match="ocsp"):
            await check(settings, bare)


async def test_an_unasked_device_and_a_failed_generator_make_no_keys(tmp_path, genuine):
    """A CPU that gives no quote is found at the start; zeros are no nonce."""
    with serving(tmp_path, genuine) as settings, pytest.raises(LocalStateError):
        await check(settings, genuine.endorsements, random=bytes)
    with pytest.raises(DeviceUnavailable):
        await check(settings, genuine.endorsements)


@pytest.mark.parametrize("kind", [CpuKind.SEV_SNP, CpuKind.TDX])
def test_evidence_is_written_where_endorsements_are_fetched_for_it(tmp_path, kind):
    """The report or quote as it is, and GPUs in the form of NVIDIA's tools; nothing is judged."""
    with serving(tmp_path, SimulatedMachine.make(int(NOW), kind=kind, gpus=2)) as settings:
        roots = "".join(f'{name} = "{value}"\n' for name, value in settings.simulated.model_dump().items())
        (tmp_path / "enclave.toml").write_text(
            f'gateway_secret_file = "x"\nplatform = "simulated-{kind}"\ndevice_socket = "d"\ngpus = true\n'
            f"[simulated]\n{roots}"
        )
        arguments = ["--config", str(tmp_path / "enclave.toml"), "--collect"]
        done = CliRunner().invoke(enclave, [*arguments, str(tmp_path / "out")])
        refused = CliRunner().invoke(enclave, [*arguments, str(tmp_path / "enclave.toml" / "out")])
    cpu = "report.bin" if kind is CpuKind.SEV_SNP else "quote.bin"
    assert json.loads(done.stdout) == {"written": [str(tmp_path / "out" / name) for name in (cpu, "gpus.json")]}
    (parse_report if kind is CpuKind.SEV_SNP else parse_quote)((tmp_path / "out" / cpu).read_bytes())
    found = parse_evidence((tmp_path / "out/gpus.json").read_bytes(), None)
    assert [parse_spdm(each.report).nonce.hex() for each in found] == [each.claimed_nonce for each in found]
    assert (refused.exit_code, "--collect" in refused.stderr) == (2, True)


def test_each_platform_has_its_attester(tmp_path):
    """Real ones by their names, with devices where the settings say; simulated ones by their socket."""
    for platform in ("sev-snp", "tdx", "azure-sev-snp", "azure-tdx", "dstack"):
        tree = {"gateway_secret_file": "x", "platform": platform, "gpus": True}
        attester, gpus = open_machine(EnclaveSettings.model_validate(tree))
        assert isinstance(attester, HardwareAttester)
        assert isinstance(gpus, NvmlGpus)
        assert (attester.platform, attester.simulated) == (platform, False)
    tree |= {"platform": "dstack", "gpus": False, "devices": {"dstack_socket": str(tmp_path / "d")}}
    attester, gpus = open_machine(EnclaveSettings.model_validate(tree))
    assert (attester.device.path, gpus) == (str(tmp_path / "d"), None)
    tree = {"gateway_secret_file": "x", "platform": "simulated-tdx", "device_socket": "d"}
    attester, gpus = open_machine(EnclaveSettings.model_validate(tree))
    assert isinstance(attester, SimulatedAttester)
    assert (attester.platform, attester.simulated, gpus) == ("simulated-tdx", True, None)
