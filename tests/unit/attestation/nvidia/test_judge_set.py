"""The room's one entry: every check is listed and nothing raises, whatever is missing."""

import pytest
from confide_attestation.evidence import GpuEvidence
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.nvidia.ids import NVIDIA_CHECKS
from confide_attestation.nvidia.judge_set import judge_gpus, roots_of
from confide_attestation.nvidia.policy import GpuPolicy
from confide_attestation.part import Part
from confide_attestation.policy import SimulatedRoots
from confide_attestation.result import Outcome

from tests.fakes.gpu_scene import ask, gpu, rims, vendor
from tests.unit.attestation.nvidia.test_policy import GOOD, WAIVED

NONCE = b"\x4e" * 32
POLICY = GpuPolicy.model_validate({**GOOD, "ueids": WAIVED, "revocation": WAIVED})


def pins(device: str, rim: str) -> SimulatedRoots:
    return SimulatedRoots(
        amd_ark_sha256="none",
        intel_root_sha256="none",
        nvidia_device_root_spki_sha256=device,
        nvidia_rim_root_spki_sha256=rim,
    )


def own_pins() -> SimulatedRoots:
    roots = vendor().roots
    return pins(roots.device_spki_sha256.hex(), roots.rim_spki_sha256.hex())


def judge(
    gpus: tuple[GpuEvidence, ...],
    endorsements: NvidiaEndorsements | None,
    policy: GpuPolicy | None,
    *,
    nonce: bytes | None = NONCE,
    roots: SimulatedRoots | None = None,
) -> Part:
    part = judge_gpus(gpus, endorsements, policy, roots or own_pins(), now_unix_s=vendor().now_unix_s, nonce=nonce)
    assert [check.id for check in part.checks] == list(NVIDIA_CHECKS)
    return part


def failed(part: Part) -> list[str]:
    return [check.id for check in part.checks if check.outcome is Outcome.FAIL]


def manifests() -> NvidiaEndorsements:
    return NvidiaEndorsements(rims(gpu().arch))


def test_a_device_holds_with_a_policy_and_without() -> None:
    """It ends with its manifests' signer, and is shown."""
    for policy in (POLICY, None):
        part = judge(ask(((gpu(), {}),), NONCE), manifests(), policy)
        assert (part.holds, failed(part), list(part.claims), part.readable) == (True, [], ["gpu0"], True)
        assert part.not_after_unix_s == vendor().now_unix_s + 30 * 86_400


@pytest.mark.parametrize("policy", [POLICY, None], ids=["policy", "alone"])
def test_nothing_is_ever_accepted_for_want_of_evidence(policy: GpuPolicy | None) -> None:
    """No device, no nonce, no endorsements, no roots: every check is there, and it does not hold."""
    gpus = ask(((gpu(), {}),), NONCE)
    nobody = pins("none", "none")
    none = judge((), manifests(), policy)
    assert not none.holds
    assert failed(none) == (["gpu_count"] if policy else [])
    assert not judge((), None, policy, nonce=None).holds
    unasked = judge(gpus, manifests(), policy, nonce=None)
    assert (unasked.holds, failed(unasked)) == (False, ["gpu_nonce"])
    assert not judge(gpus, manifests(), policy, nonce=b"").holds
    bare = judge(gpus, None, policy)
    assert (bare.holds, failed(bare)) == (False, ["driver_rim_missing", "firmware_rim_missing"])
    untrusted = judge(gpus, manifests(), policy, roots=nobody)
    assert (untrusted.holds, dict(untrusted.claims)) == (False, {})
    assert {"device_root_pin", "rim_root_pin"} <= set(failed(untrusted))
    junk = judge((GpuEvidence("", b"", b""), GpuEvidence("HOPPER", b"\0" * 99, b"PEM")), None, policy)
    assert not junk.holds


def test_nothing_of_an_unsigned_report_meets_the_policy() -> None:
    """The policy's checks of a device are not reached before its signature holds."""
    (good,) = ask(((gpu(), {}),), NONCE)
    forged = GpuEvidence(good.architecture, good.report[:-1] + bytes([good.report[-1] ^ 1]), good.certificate_chain)
    outcomes = {check.id: check for check in judge((forged,), manifests(), POLICY).checks}
    assert outcomes["gpu_report_sig"].outcome is Outcome.FAIL
    for check_id in ("gpu_arch_denied", "gpu_mode_denied", "min_driver", "gpu_firmware", "ueid_not_allowed"):
        assert outcomes[check_id].outcome is Outcome.SKIP
        assert outcomes[check_id].detail == "not reached: an earlier check failed"


def test_roots_are_the_packaged_ones_or_the_pinned_ones_alone() -> None:
    """ "none" is the key of nobody."""
    assert roots_of(None).simulated is False
    assert roots_of(own_pins()) == vendor().roots
    nobody = roots_of(pins("none", "none"))
    assert (nobody.device_spki_sha256, nobody.rim_spki_sha256, nobody.simulated) == (b"", b"", True)
