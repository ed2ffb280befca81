"""A SIMULATED machine: one CPU with its TEE, GPUs, and the vendors' hierarchies above them, made anew in memory."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from confide_attestation.evidence import CpuKind, Endorsements, TdxEndorsements
from confide_attestation.nvidia.certificates import spki_sha256
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.nvidia.spdm import Opaque
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.simulated.nvidia import LIFETIME_S, SimulatedDevice, SimulatedVendor
from confide_attestation.snp.abi import Product

MEASUREMENT_BYTES: Final = 48
MAX_GPUS: Final = 8
VBIOS: Final = "96.00.9F.00.01"
PROTECTED_MEMORY_KIB: Final = 80 << 20
# What boots after the measured firmware; nothing extends RTMR3.
RTMRS: Final = (
    hashlib.sha384(b"simulated rtmr0").digest(),
    hashlib.sha384(b"simulated rtmr1").digest(),
    hashlib.sha384(b"simulated rtmr2").digest(),
    bytes(MEASUREMENT_BYTES),
)
# FEATURE_FLAG of a report: one GPU passed through, or several.
SINGLE, MULTI = b"\0\0", b"\1\0"
NONE: Final = "none"
Tree = dict[str, Any]


@dataclass(frozen=True)
class SimulatedMachine:
    """Answers what the hardware of one machine answers. A test replaces a part to make it lie."""

    now_unix_s: int
    cpu: SimulatedAmd | SimulatedIntel
    gpus: tuple[SimulatedDevice, ...] = ()

    @classmethod
    def make(
        cls,
        now_unix_s: int,
        *,
        kind: CpuKind = CpuKind.SEV_SNP,
        measurement: bytes | None = None,
        product: str = Product.GENOA,
        gpus: int = 0,
    ) -> "SimulatedMachine":
        """Make keys for everything. `measurement` is SEV-SNP's launch measurement (zeros) or TDX's MRTD."""
        cpu: SimulatedAmd | SimulatedIntel
        if kind is CpuKind.SEV_SNP:
            chip_id = secrets.token_bytes(8 if product == Product.TURIN else 64)
            image = measurement or bytes(MEASUREMENT_BYTES)
            cpu = SimulatedAmd.make(now_unix_s, product=product, measurement=image, chip_id=chip_id)
        else:
            image = measurement or SimulatedIntel.mr_td
            cpu = SimulatedIntel.make(now_unix_s, mr_td=image, ppid=secrets.token_bytes(16))
        vendor = SimulatedVendor(now_unix_s)
        return cls(now_unix_s, cpu, tuple(SimulatedDevice(vendor, pdi=secrets.token_bytes(8)) for _ in range(gpus)))

    @property
    def kind(self) -> CpuKind:
        return CpuKind.SEV_SNP if isinstance(self.cpu, SimulatedAmd) else CpuKind.TDX

    def quote(self, report_data: bytes) -> Tree:
        """Have the CPU sign 64 bytes."""
        if isinstance(self.cpu, SimulatedAmd):
            report = self.cpu.sign_report(report_data)
        else:
            rtmr0, rtmr1, rtmr2, rtmr3 = RTMRS
            report = self.cpu.sign_quote(report_data, rtmr0=rtmr0, rtmr1=rtmr1, rtmr2=rtmr2, rtmr3=rtmr3)
        return {"kind": self.kind.value, "report": report}

    def gpu_reports(self, nonce: bytes) -> Tree:
        """Have each GPU sign 32 bytes."""
        mode = SINGLE if len(self.gpus) == 1 else MULTI
        return {
            "gpus": [
                {
                    "architecture": gpu.arch.value,
                    "report": gpu.report(nonce, opaque={Opaque.FEATURE_FLAG: mode}),
                    "certificate_chain": gpu.chain,
                }
                for gpu in self.gpus
            ]
        }

    def gpu_states(self) -> Tree:
        """Say what NVML says of each GPU: confidential computing in production, on and without developer tools."""
        return {
            "gpus": [
                {
                    "index": index,
                    "uuid": f"GPU-SIMULATED-{gpu.pdi.hex()}",
                    "architecture": gpu.arch.value,
                    "driver_version": gpu.driver,
                    "vbios_version": VBIOS,
                    "environment": 2,
                    "cc_on": True,
                    "devtools_on": False,
                    "multi_gpu": 0,
                    "ready": True,
                    "protected_memory_kib": PROTECTED_MEMORY_KIB,
                }
                for index, gpu in enumerate(self.gpus)
            ]
        }

    @cached_property
    def endorsements(self) -> Endorsements:
        """What the vendors publish of this machine."""
        if isinstance(self.cpu, SimulatedAmd):
            return Endorsements(snp=self.cpu.endorsements, nvidia=self._nvidia())
        return Endorsements(tdx=TdxEndorsements(self.cpu.collateral()), nvidia=self._nvidia())

    @property
    def certificates(self) -> Mapping[str, bytes]:
        """Name the public certificates by their files: DER, or PEM of a GPU's chain."""
        if isinstance(self.cpu, SimulatedAmd):
            files = {"vek.der": self.cpu.vek, "ask.der": self.cpu.ask, "ark.der": self.cpu.ark}
        else:
            files = {"pck.der": self.cpu.pck, "pck_ca.der": self.cpu.ca, "root.der": self.cpu.root}
        return files | {f"gpu{index}.pem": gpu.chain for index, gpu in enumerate(self.gpus)}

    def announce(self) -> Tree:
        """Say everything that a policy for this machine needs: roots as SHA-256 or "none", and reference values."""
        cpu = self.cpu
        said: Tree = {
            "platform": self.kind.value,
            "amd_ark_sha256": cpu.ark_sha256.hex() if isinstance(cpu, SimulatedAmd) else NONE,
            "intel_root_sha256": NONE if isinstance(cpu, SimulatedAmd) else hashlib.sha256(cpu.root).hexdigest(),
            "nvidia_device_root_spki_sha256": NONE,
            "nvidia_rim_root_spki_sha256": NONE,
            "gpus": len(self.gpus),
        }
        if isinstance(cpu, SimulatedAmd):
            said["measurement"] = cpu.measurement.hex()
        else:
            said |= {"mr_td": cpu.mr_td.hex(), "rtmrs": [value.hex() for value in RTMRS]}
        if self.gpus:
            first = self.gpus[0]
            said |= {
                "nvidia_device_root_spki_sha256": spki_sha256(first.vendor.root).hex(),
                "nvidia_rim_root_spki_sha256": spki_sha256(first.vendor.rim_chain[-1]).hex(),
                "driver": first.driver,
                "firmware": VBIOS,
            }
        return said

    def _nvidia(self) -> NvidiaEndorsements | None:
        """Answer for every certificate once, for as long as the certificates hold."""
        if not self.gpus:
            return None
        vendor, window = self.gpus[0].vendor, (self.now_unix_s - 60, self.now_unix_s + LIFETIME_S - 60)
        authorities = (("ica", vendor.ica), ("identity", vendor.identity), ("root", vendor.root))
        links = [(gpu.certificates[1], vendor.ica, "ica") for gpu in self.gpus]
        links += [(of, by, name) for (_, of), (name, by) in pairwise(authorities)]
        signers = ("rim_l3", "rim_ca", "rim_root")
        links += [(of, by, name) for (of, by), name in zip(pairwise(vendor.rim_chain), signers, strict=True)]
        answers = tuple(vendor.answer(of, by, vendor.keys[name], window=window) for of, by, name in links)
        return NvidiaEndorsements(self.gpus[0].rims, answers)
