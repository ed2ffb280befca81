"""Judge simulated evidence by what was fetched, with the verifiers that everybody uses."""

import hashlib

from confide_attestation.evidence import SnpEndorsements, TdxEndorsements
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.nvidia.verify import verify_nvidia
from confide_attestation.policy import SimulatedRoots
from confide_attestation.result import Outcome, Verdict
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.simulated.nvidia import SimulatedDevice
from confide_attestation.snp.judge import judge_snp
from confide_attestation.tdx.judge import judge_tdx

from tests.unit.attestation.endorsements.conftest import NOW

NONCE = b"\x4e" * 32
RIM_IDS = ["NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001"]


def roots(*, amd: str = "none", intel: str = "none") -> SimulatedRoots:
    return SimulatedRoots(
        amd_ark_sha256=amd,
        intel_root_sha256=intel,
        nvidia_device_root_spki_sha256="none",
        nvidia_rim_root_spki_sha256="none",
    )


def snp_holds(chip: SimulatedAmd, report: bytes, given: SnpEndorsements) -> bool:
    """Say whether all holds, revocation included."""
    part = judge_snp(report, given, None, roots(amd=chip.ark_sha256.hex()), now_unix_s=NOW)
    outcomes = {check.id: check.outcome for check in part.checks}
    return part.holds and outcomes["ask_revoked"] is Outcome.PASS


def tdx_holds(intel: SimulatedIntel, quote: bytes, given: TdxEndorsements) -> bool:
    root = hashlib.sha256(intel.root).hexdigest()
    return judge_tdx(quote, given, None, roots(intel=root), now_unix_s=NOW).holds


def nvidia_holds(device: SimulatedDevice, given: NvidiaEndorsements) -> bool:
    """Say whether all holds, revocation included."""
    result = verify_nvidia([device.evidence(NONCE)], given, now_unix_s=NOW, nonce=NONCE, roots=device.vendor.roots)
    outcomes = {check.id: check.outcome for check in result.checks}
    revocation = {outcomes["device_chain_revoked"], outcomes["rim_revoked"]}
    return result.verdict is Verdict.AUTHENTIC and revocation == {Outcome.PASS}
