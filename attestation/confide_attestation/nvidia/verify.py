"""Judge the evidence of NVIDIA GPUs and switches by itself.

The argument: (1) five certificates from a pinned root key to the key of the device's firmware; (2) a report that
this key signed over our nonce; (3) manifests that NVIDIA signed, read only once their signatures hold; (4) each
golden value was measured; (5) the devices together are distinct and wired as they say; (6) a policy's demands.
What this cannot show: that confidential computing is on and its developer mode off, and that a device is attached
to a certain machine. Both must come from the CPU's evidence.
"""

from collections.abc import Sequence

from confide_attestation.alone import judge_alone
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.chain import NvidiaRoots
from confide_attestation.nvidia.evidence import DeviceEvidence, NvidiaEndorsements
from confide_attestation.nvidia.judge_set import judge_devices, roots_of
from confide_attestation.nvidia.spdm import NONCE_BYTES
from confide_attestation.policy import AppraisalPolicy
from confide_attestation.result import AttestationResult


def verify_nvidia(
    devices: Sequence[DeviceEvidence],
    endorsements: NvidiaEndorsements,
    *,
    now_unix_s: int,
    nonce: bytes,
    policy: AppraisalPolicy | None = None,
    allow_simulated: bool = False,
    roots: NvidiaRoots | None = None,
) -> AttestationResult:
    """Judge devices that were asked with the same 32-byte `nonce`: authenticity, and with a policy its demands.

    Without a policy NVIDIA's packaged roots count, or `roots`, and the verdict is AUTHENTIC at best. UNREADABLE
    means that an input is not a file of its kind. Never yields a keyset.
    Does not check: without a policy, revocation where no answers are given and completeness of the set.
    Raises: EvidenceMalformed if there is no device, or the nonce is not 32 bytes; PolicyError if the policy demands
    no GPUs.
    """
    if not devices or len(nonce) != NONCE_BYTES:
        raise EvidenceMalformed(f"judging needs a device and a nonce of {NONCE_BYTES} bytes")
    demands = None if policy is None else policy.gpus
    trusted = roots if policy is None and roots is not None else roots_of(None if policy is None else policy.roots)
    part = judge_devices(devices, endorsements, demands, trusted, now_unix_s=now_unix_s, nonce=nonce)
    return judge_alone(
        part, policy, now_unix_s=now_unix_s, simulated=trusted.simulated, allow_simulated=allow_simulated
    )
