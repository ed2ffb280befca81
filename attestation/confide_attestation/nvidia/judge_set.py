"""Judge a machine's GPUs and switches: each device, then all together, then against a policy."""

from collections.abc import Sequence
from enum import StrEnum

from confide_attestation.checks.ledger import Ledger
from confide_attestation.evidence import GpuEvidence
from confide_attestation.nvidia.chain import NvidiaRoots, nvidia_roots, simulated_roots
from confide_attestation.nvidia.evidence import REPORT_HEAD, DeviceEvidence, NvidiaEndorsements
from confide_attestation.nvidia.ids import (
    COUNT_CHECKS,
    DEVICE_CHECKS,
    DEVICE_POLICY_CHECKS,
    GPU_ONLY,
    OCSP_CHECKS,
    SET_CHECKS,
    NvidiaCheck,
)
from confide_attestation.nvidia.judge import JudgedDevice, judge_device
from confide_attestation.nvidia.policy import GpuPolicy
from confide_attestation.nvidia.rim import looks_like_rim
from confide_attestation.nvidia.topology import NO_DEVICE, Member, check_set
from confide_attestation.nvidia.validate import check_counts
from confide_attestation.part import Part
from confide_attestation.policy import SimulatedRoots
from confide_attestation.result import Check, Outcome, readable

_NOT_APPRAISED = tuple(
    Check(check.value, Outcome.SKIP, "no policy was given: NOT appraised")
    for check in (*COUNT_CHECKS, *DEVICE_POLICY_CHECKS)
)


def judge_gpus(
    gpus: Sequence[GpuEvidence],
    endorsements: NvidiaEndorsements | None,
    policy: GpuPolicy | None,
    simulated: SimulatedRoots | None,
    *,
    now_unix_s: int,
    nonce: bytes | None,
) -> Part:
    """Judge devices that were asked with `nonce`, None if it is not known; never raises, whatever the bytes.

    `simulated` are the only roots trusted if given, else NVIDIA's packaged ones.
    """
    devices = [DeviceEvidence(gpu.report, gpu.certificate_chain, gpu.architecture) for gpu in gpus]
    given = endorsements or NvidiaEndorsements()
    return judge_devices(devices, given, policy, roots_of(simulated), now_unix_s=now_unix_s, nonce=nonce)


def judge_devices(
    devices: Sequence[DeviceEvidence],
    endorsements: NvidiaEndorsements,
    policy: GpuPolicy | None,
    roots: NvidiaRoots,
    *,
    now_unix_s: int,
    nonce: bytes | None,
) -> Part:
    """Judge devices, by `policy` if there is one. Each check speaks for all devices.

    Without a policy revocation counts only where answers are given, and GPUs may stand without their switches.
    """
    judged = [
        judge_device(each, endorsements, roots, policy, now_unix_s=now_unix_s, nonce=nonce) for each in devices
    ]
    names, together = _names(judged), Ledger()
    members = [
        Member(name, each.ueid, each.pdi, each.chip_key, each.fields)
        for name, each in zip(names, judged, strict=True)
        if each.fields is not None
    ]
    check_set(together, members, len(devices), whole=policy is not None)
    scope: tuple[NvidiaCheck, ...] = DEVICE_CHECKS
    of_set, ends = SET_CHECKS, [each.not_after_unix_s for each in judged if each.not_after_unix_s is not None]
    if policy is not None:
        check_counts(together, policy, [each.is_switch for each in judged])
        scope, of_set = DEVICE_CHECKS + DEVICE_POLICY_CHECKS, SET_CHECKS + COUNT_CHECKS
        unjudged: tuple[NvidiaCheck, ...] = ()
    else:
        unjudged = OCSP_CHECKS if endorsements.ocsp is None else ()
        if not together.failed((NvidiaCheck.TOPOLOGY,)):
            unjudged += (NvidiaCheck.TOPOLOGY,)
    holds = (
        bool(devices)
        and together.holds(c for c in of_set if c not in unjudged)
        and all(each.ledger.holds(c for c in _applicable(each, scope) if c not in unjudged) for each in judged)
    )
    own = [(name, _applicable(each, scope), each.ledger) for name, each in zip(names, judged, strict=True)]
    checks = (*_merge(own, DEVICE_CHECKS), *together.close(of_set))
    return Part(
        checks=checks + (_NOT_APPRAISED if policy is None else tuple(_merge(own, DEVICE_POLICY_CHECKS))),
        holds=holds,
        claims={name: each.claims for name, each in zip(names, judged, strict=True) if each.claims is not None},
        not_after_unix_s=min(ends, default=None),
        readable=all(each.report.startswith(REPORT_HEAD) for each in devices)
        and all(map(looks_like_rim, endorsements.rims))
        and not any(each.ledger.failed((NvidiaCheck.CHAIN_FORMAT,)) for each in judged),
    )


def roots_of(simulated: SimulatedRoots | None) -> NvidiaRoots:
    """Return the keys that are trusted: the packaged ones, or those that a policy of simulated hardware pins."""
    if simulated is None:
        return nvidia_roots()
    pins = (simulated.nvidia_device_root_spki_sha256, simulated.nvidia_rim_root_spki_sha256)
    # No key has the empty digest: nothing of NVIDIA's is trusted.
    return simulated_roots(*(b"" if pin == "none" else bytes.fromhex(pin) for pin in pins))


def _applicable(device: JudgedDevice, scope: Sequence[NvidiaCheck]) -> Sequence[NvidiaCheck]:
    return [c for c in scope if not (device.is_switch and c in GPU_ONLY)]


def _names(judged: Sequence[JudgedDevice]) -> list[str]:
    """Count GPUs and switches apart, in the order of the evidence: gpu0, gpu1, switch0."""
    counts = {"gpu": 0, "switch": 0}
    names = []
    for each in judged:
        kind = "switch" if each.is_switch else "gpu"
        names.append(f"{kind}{counts[kind]}")
        counts[kind] += 1
    return names


def _merge(judged: Sequence[tuple[str, Sequence[StrEnum], Ledger]], scope: Sequence[NvidiaCheck]) -> list[Check]:
    """Make one check of all devices' checks of the same id: the worst outcome counts, and says whose it is."""
    by_device = [(name, {each.id: each for each in ledger.close(own)}) for name, own, ledger in judged]
    if len(by_device) == 1:
        only = by_device[0][1]
        return [only.get(c.value) or _not_applicable(c) for c in scope]
    merged = []
    for check_id in scope:
        found = [(name, checks[check_id.value]) for name, checks in by_device if check_id.value in checks]
        if not found:
            merged.append(
                _not_applicable(check_id) if by_device else Check(check_id.value, Outcome.SKIP, NO_DEVICE)
            )
            continue
        outcomes = {each.outcome for _, each in found}
        worst = next(o for o in (Outcome.FAIL, Outcome.SKIP, Outcome.PASS) if o in outcomes)
        details: dict[str, list[str]] = {}
        for name, each in found:
            if each.outcome is worst:
                details.setdefault(each.detail, []).append(name)
        whole = len(details) == 1 and len(next(iter(details.values()))) == len(found)
        detail = "; ".join(text if whole else f"{_span(of)}: {text}" for text, of in details.items())
        merged.append(Check(check_id.value, worst, readable(detail)))
    return merged


def _span(names: Sequence[str]) -> str:
    """Shorten gpu0, gpu1, gpu2 to gpu0 to gpu2."""
    numbers = [int(name.lstrip("gpuswitch")) for name in names]
    consecutive = len(names) > 2 and numbers == list(range(numbers[0], numbers[0] + len(names)))
    return f"{names[0]} to {names[-1]}" if consecutive else ", ".join(names)


def _not_applicable(check_id: NvidiaCheck) -> Check:
    return Check(check_id.value, Outcome.SKIP, "a switch has nothing of the kind")
