"""A whole simulated attestation with GPUs beside the CPU, each part of which a test can make lie."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from confide_attestation.appraise import appraise
from confide_attestation.evidence import Endorsements, EvidenceBundle, GpuEvidence
from confide_attestation.nvidia.device import ENABLED, Arch
from confide_attestation.nvidia.digest import gpu_evidence_digest
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.nvidia.ocsp import OcspAnswer
from confide_attestation.nvidia.spdm import Opaque
from confide_attestation.policy import AppraisalPolicy
from confide_attestation.result import AttestationResult
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor
from confide_protocol.statement import gpu_nonce, parse_statement

from tests.fakes.azure_scene import AzureScene
from tests.fakes.scene import NONCE, NOW, Scene, bind
from tests.fakes.tdx_scene import TdxScene

PPCIE = b"\x02\0"
Patched = tuple[SimulatedDevice, Mapping[int, bytes | None]]
_NONE = 'gpu = "none"\n'
_ROOTS = (
    'nvidia_device_root_spki_sha256 = "none"\nnvidia_rim_root_spki_sha256 = "none"\n',
    'nvidia_device_root_spki_sha256 = "{device}"\nnvidia_rim_root_spki_sha256 = "{rim}"\n',
)
GPU = """\
[gpu]
gpus = {gpus}
switches = {switches}
architectures = ["HOPPER"]
modes = ["{mode}"]
min_driver = "550.90.07"
firmware = ["96.00.9F.00.01", "96.10.55.00.01"]
ueids = [{ueids}]
fwid = "required"
revocation = {{ max_age_s = 86400, rim_hold = "refused" }}
"""


@cache
def vendor() -> SimulatedVendor:
    return SimulatedVendor(NOW)


@cache
def other_vendor() -> SimulatedVendor:
    return SimulatedVendor(NOW)


@cache
def gpu() -> SimulatedDevice:
    return SimulatedDevice(vendor())


@cache
def other_gpu() -> SimulatedDevice:
    return SimulatedDevice(vendor(), pdi=b"\x55" * 8)


@cache
def eight_and_four() -> tuple[Patched, ...]:
    """Eight GPUs in protected-PCIe mode and four switches, which name one another."""
    gpus = [SimulatedDevice(vendor(), pdi=bytes([0xA0 + n]) * 8) for n in range(8)]
    switches = [SimulatedDevice(vendor(), arch=Arch.LS10, pdi=bytes([0xB0 + n]) * 8) for n in range(4)]
    to_switches = b"".join(each.pdi[::-1] for each in switches) + bytes(8)
    to_gpus = b"".join(each.pdi for each in gpus) + b"\xff" * 64
    protected = {Opaque.FEATURE_FLAG: PPCIE, Opaque.PROTECTED_PCIE_STATUS: ENABLED, Opaque.SWITCH_PDI: to_switches}
    wired: list[Patched] = [(each, protected) for each in gpus]
    wired += [(each, {Opaque.SWITCH_GPU_PDIS: to_gpus}) for each in switches]
    return tuple(wired)


@cache
def rims(arch: Arch) -> tuple[bytes, ...]:
    return SimulatedDevice(vendor(), arch=arch).rims


@cache
def shared_answers() -> tuple[OcspAnswer, ...]:
    return gpu().answers()[1:]


def answers(devices: Iterable[SimulatedDevice]) -> tuple[OcspAnswer, ...]:
    """Answer GOOD for every certificate of these devices and of the manifests."""
    ica, key = vendor().ica, vendor().keys["ica"]
    return (*(vendor().answer(each.certificates[1], ica, key) for each in devices), *shared_answers())


def ask(devices: Sequence[Patched], nonce: bytes) -> tuple[GpuEvidence, ...]:
    return tuple(
        GpuEvidence(device.arch.value, device.report(nonce, opaque=opaque), device.chain)
        for device, opaque in devices
    )


def policy_edits(devices: Sequence[Patched]) -> list[tuple[str, str]]:
    """Make of a policy without GPUs one that accepts these."""
    machine = [device for device, _ in devices]
    switches = sum(device.arch is Arch.LS10 for device in machine)
    roots = vendor().roots
    table = GPU.format(
        gpus=len(machine) - switches,
        switches=switches,
        mode="PPCIE" if switches else "SPT",
        ueids=", ".join(f'"{device.certificates[0].serial_number}"' for device in machine),
    )
    pins = _ROOTS[1].format(device=roots.device_spki_sha256.hex(), rim=roots.rim_spki_sha256.hex())
    return [(_NONE, ""), (_ROOTS[0], pins), ("[session]\n", f"{table}\n[session]\n")]


def endorse(devices: Sequence[Patched], **given: Any) -> NvidiaEndorsements:
    """Give every manifest and answer that these devices need, unless others are `given`."""
    machine = [device for device, _ in devices]
    manifests = tuple(rim for arch in dict.fromkeys(each.arch for each in machine) for rim in rims(arch))
    return NvidiaEndorsements(**{"rims": manifests, "ocsp": answers(machine), **given})


def appraise_with_gpu(scene: AzureScene | TdxScene) -> AttestationResult:
    """Judge a machine of another kind with one GPU that it asked itself."""
    devices: Sequence[Patched] = ((gpu(), {}),)
    scene.policy_edits[:0] = policy_edits(devices)
    statement = parse_statement(scene.build()[0].statement)
    gpus = ask(devices, gpu_nonce(statement.freshness, statement.keyset_digest))
    scene.statement["gpu_evidence_digest"] = gpu_evidence_digest(gpus)
    evidence, endorsements, policy = scene.build()
    return appraise(
        replace(evidence, gpus=gpus),
        replace(endorsements, nvidia=endorse(devices)),
        policy,
        now_unix_s=NOW,
        floor=1,
        nonce=NONCE,
        allow_simulated=True,
    )


@dataclass
class GpuScene(Scene):
    """An enclave with GPUs. `asked` changes what they answer before the statement names it, `shown` afterwards.

    The policy accepts what `devices` show at the start.
    """

    devices: Sequence[Patched] = field(default_factory=lambda: ((gpu(), {}),))
    gpu_nonce: Callable[[bytes], bytes] = lambda nonce: nonce
    asked: Callable[[Sequence[GpuEvidence]], Sequence[GpuEvidence]] = lambda gpus: gpus
    shown: Callable[[Sequence[GpuEvidence]], Sequence[GpuEvidence]] = lambda gpus: gpus
    nvidia: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policy_edits = [*policy_edits(self.devices), *self.policy_edits]

    def build(self) -> tuple[EvidenceBundle, Endorsements, AppraisalPolicy]:
        """Ask the GPUs with the nonce of this statement and keyset, then sign everything."""
        _, keyset, statement, _ = bind(
            "simulated-sev-snp", manifest=self.manifest, keyset=self.keyset, statement=self.statement
        )
        nonce = self.gpu_nonce(gpu_nonce(statement.freshness, keyset.digest))
        gpus = self.asked(ask(self.devices, nonce))
        scene = copy(self)
        scene.statement = {"gpu_evidence_digest": gpu_evidence_digest(gpus), **self.statement}
        evidence, endorsements, policy = super(GpuScene, scene).build()
        nvidia = endorse(self.devices, **self.nvidia)
        return replace(evidence, gpus=tuple(self.shown(gpus))), replace(endorsements, nvidia=nvidia), policy
