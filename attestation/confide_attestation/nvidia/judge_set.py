"""Judge a machine's GPUs and switches for the composite appraisal."""

from collections.abc import Sequence

from confide_attestation.evidence import GpuEvidence
from confide_attestation.nvidia.evidence import DeviceEvidence, NvidiaEndorsements
from confide_attestation.nvidia.policy import GpuPolicy
from confide_attestation.nvidia.verify import verify_nvidia
from confide_attestation.part import Part
from confide_attestation.policy import SimulatedRoots


def judge_gpus(
    gpus: Sequence[GpuEvidence],
    endorsements: NvidiaEndorsements | None,
    policy: GpuPolicy | None,
    simulated: SimulatedRoots | None,
    *,
    now_unix_s: int,
    nonce: bytes | None,
) -> Part:
    """Judge devices that were asked with `nonce`; never raises, whatever the bytes."""
    if not gpus or nonce is None or simulated is not None:
        return Part((), holds=False)
    devices = [DeviceEvidence(gpu.report, gpu.certificate_chain, gpu.architecture) for gpu in gpus]
    result = verify_nvidia(devices, endorsements or NvidiaEndorsements(), now_unix_s=now_unix_s, nonce=nonce)
    return Part(result.checks, holds=False, claims=result.claims)
