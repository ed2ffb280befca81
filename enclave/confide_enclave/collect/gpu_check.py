"""The enclave's own appraisal of its GPUs, before it makes a key that a prompt could be sealed to.

A client judges the GPUs' evidence again, by its own policy. What only the enclave can say is that these are the
GPUs that its driver uses, and in which mode: the client believes it because the code that says so is measured.
"""

from collections.abc import Callable, Sequence
from typing import Final

from confide_attestation.evidence import GpuEvidence
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.nvidia.judge_set import judge_gpus
from confide_attestation.part import Part
from confide_attestation.policy import SimulatedRoots
from confide_attestation.result import Outcome
from confide_protocol.errors import ConfideError

from confide_enclave.collect.nvml import NONCE_BYTES, GpuSource, GpuState, mode_faults

_DRIVER_CLAIM: Final = "x-nvidia-gpu-driver-version"
_VBIOS_CLAIM: Final = "x-nvidia-gpu-vbios-version"


class GpuRejected(ConfideError):
    """A GPU did not pass the enclave's own appraisal: no keys are made. `reasons` has one line for each fault."""

    code = "gpu_rejected"
    http_status = 503
    reason = "a GPU of this machine did not pass the enclave's own appraisal"

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("no keys are made: " + "; ".join(reasons))
        self.reasons = tuple(reasons)


async def check_gpus(
    source: GpuSource,
    endorsements: NvidiaEndorsements | None,
    *,
    now_unix_s: int,
    random: Callable[[int], bytes],
    simulated: SimulatedRoots | None = None,
) -> tuple[GpuState, ...]:
    """Appraise every GPU of the driver with a nonce of our own, then let them take work.

    `endorsements` are untrusted; without OCSP answers revocation is left to the client. `simulated` are the
    roots of simulated devices. The time is the host's word, as any clock here.
    Raises: GpuRejected, DeviceUnavailable.
    """
    states = await source.states()
    if faults := mode_faults(states):
        raise GpuRejected(faults)
    nonce = random(NONCE_BYTES)
    evidence = await source.evidence(nonce)
    part = judge_gpus(evidence, endorsements, None, simulated, now_unix_s=now_unix_s, nonce=nonce)
    if faults := _faults(states, evidence, part):
        raise GpuRejected(faults)
    if not all(state.ready for state in states):
        await source.make_ready()
    return states


def _faults(states: Sequence[GpuState], evidence: Sequence[GpuEvidence], part: Part) -> list[str]:
    if len(evidence) != len(states):
        return [f"{len(evidence)} of {len(states)} GPUs gave evidence"]
    if not part.holds:
        failed = [f"{check.id}: {check.detail}" for check in part.checks if check.outcome is Outcome.FAIL]
        return failed or ["not every check of the GPUs' evidence could be made"]
    faults = []
    for state in states:
        claims = part.claims.get(f"gpu{state.index}", {})
        for claim, told in ((_DRIVER_CLAIM, state.driver_version), (_VBIOS_CLAIM, state.vbios_version)):
            if str(claims.get(claim)).upper() != told.upper():
                faults.append(f"GPU {state.index}: the driver says {told}, its signed report {claims.get(claim)}")
    return faults
