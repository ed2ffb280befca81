"""Judge the evidence of NVIDIA GPUs and switches: authenticity, and their measurements against NVIDIA's own values.

The argument: (1) five certificates from a pinned root key to the key of the device's firmware; (2) a report that
this key signed over our nonce; (3) manifests that NVIDIA signed, read only once their signatures hold; (4) each
golden value was measured; (5) the devices together are distinct and wired as they say.
What this cannot show: that confidential computing is on and its developer mode off, and that a device is attached
to a certain machine. Both must come from the CPU's evidence.
"""

from collections.abc import Sequence
from enum import StrEnum

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.chain import NvidiaRoots, nvidia_roots
from confide_attestation.nvidia.evidence import REPORT_HEAD, DeviceEvidence, NvidiaEndorsements
from confide_attestation.nvidia.ids import DEVICE_CHECKS, GPU_ONLY, OCSP_CHECKS, SET_CHECKS, NvidiaCheck
from confide_attestation.nvidia.judge import JudgedDevice, judge_device
from confide_attestation.nvidia.rim import looks_like_rim
from confide_attestation.nvidia.spdm import NONCE_BYTES
from confide_attestation.nvidia.topology import Member, check_set
from confide_attestation.result import AttestationResult, Check, Outcome, Verdict


def verify_nvidia(
    devices: Sequence[DeviceEvidence],
    endorsements: NvidiaEndorsements,
    *,
    now_unix_s: int,
    nonce: bytes,
    roots: NvidiaRoots | None = None,
    require_fwid: bool = True,
) -> AttestationResult:
    """Judge devices that were asked with the same 32-byte `nonce`; AUTHENTIC if every check holds.

    Each check speaks for all devices. UNREADABLE means that an input is not a file of its kind. `require_fwid`
    refuses reports of drivers before 550, which do not repeat their firmware's digest.
    Does not check: revocation where no answers are given, completeness of the set, any policy.
    Raises: EvidenceMalformed if there is no device, or the nonce is not 32 bytes.
    """
    if not devices or len(nonce) != NONCE_BYTES:
        raise EvidenceMalformed(f"judging needs a device and a nonce of {NONCE_BYTES} bytes")
    trusted = nvidia_roots() if roots is None else roots
    judged = [
        judge_device(each, endorsements, trusted, now_unix_s=now_unix_s, nonce=nonce, require_fwid=require_fwid)
        for each in devices
    ]
    names = _names(judged)
    together = Ledger()
    members = [
        Member(name, each.ueid, each.pdi, each.fields)
        for name, each in zip(names, judged, strict=True)
        if each.fields is not None
    ]
    check_set(together, members, len(devices))
    checks = (
        *_merge([(name, _applicable(each), each.ledger) for name, each in zip(names, judged, strict=True)]),
        *together.close(SET_CHECKS),
    )
    unjudged = OCSP_CHECKS if endorsements.ocsp is None else ()
    both = {each.fields.is_switch for each in members} == {True, False}
    needed_together = [c for c in SET_CHECKS if c is not NvidiaCheck.TOPOLOGY or both]
    holds = together.passed(needed_together) and all(
        each.ledger.passed(c for c in _applicable(each) if c not in unjudged) for each in judged
    )
    readable = (
        all(each.report.startswith(REPORT_HEAD) for each in devices)
        and all(map(looks_like_rim, endorsements.rims))
        and not any(each.ledger.failed((NvidiaCheck.CHAIN_FORMAT,)) for each in judged)
    )
    return AttestationResult(
        verdict=Verdict.UNREADABLE if not readable else Verdict.AUTHENTIC if holds else Verdict.REFUSED,
        checks=checks,
        claims={name: each.claims for name, each in zip(names, judged, strict=True) if each.claims is not None},
        simulated=trusted.simulated,
        policy_id=None,
        policy_digest=None,
        judged_at_unix_s=now_unix_s,
    )


def _applicable(device: JudgedDevice) -> Sequence[NvidiaCheck]:
    return [c for c in DEVICE_CHECKS if not (device.is_switch and c in GPU_ONLY)]


def _names(judged: Sequence[JudgedDevice]) -> list[str]:
    """Count GPUs and switches apart, in the order of the evidence: gpu0, gpu1, switch0."""
    counts = {"gpu": 0, "switch": 0}
    names = []
    for each in judged:
        kind = "switch" if each.is_switch else "gpu"
        names.append(f"{kind}{counts[kind]}")
        counts[kind] += 1
    return names


def _merge(judged: Sequence[tuple[str, Sequence[StrEnum], Ledger]]) -> list[Check]:
    """Make one check of all devices' checks of the same id: the worst outcome counts, and says whose it is."""
    by_device = [(name, {each.id: each for each in ledger.close(scope)}) for name, scope, ledger in judged]
    if len(by_device) == 1:
        only = by_device[0][1]
        return [only.get(c.value) or _not_applicable(c) for c in DEVICE_CHECKS]
    merged = []
    for check_id in DEVICE_CHECKS:
        found = [(name, checks[check_id.value]) for name, checks in by_device if check_id.value in checks]
        if not found:
            merged.append(_not_applicable(check_id))
            continue
        outcomes = {each.outcome for _, each in found}
        worst = next(o for o in (Outcome.FAIL, Outcome.SKIP, Outcome.PASS) if o in outcomes)
        details: dict[str, list[str]] = {}
        for name, each in found:
            if each.outcome is worst:
                details.setdefault(each.detail, []).append(name)
        whole = len(details) == 1 and len(next(iter(details.values()))) == len(found)
        detail = "; ".join(text if whole else f"{_span(of)}: {text}" for text, of in details.items())
        merged.append(Check(check_id.value, worst, detail))
    return merged


def _span(names: Sequence[str]) -> str:
    """Shorten gpu0, gpu1, gpu2 to gpu0 to gpu2."""
    numbers = [int(name.lstrip("gpuswitch")) for name in names]
    consecutive = len(names) > 2 and numbers == list(range(numbers[0], numbers[0] + len(names)))
    return f"{names[0]} to {names[-1]}" if consecutive else ", ".join(names)


def _not_applicable(check_id: NvidiaCheck) -> Check:
    return Check(check_id.value, Outcome.SKIP, "a switch has nothing of the kind")
