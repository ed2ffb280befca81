"""CPU and GPUs in one decision: each demand of the policy bites by name, and no evidence fits another statement."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from confide_attestation.checks.ids import BINDING_CHECKS, POLICY_CHECKS
from confide_attestation.evidence import GpuEvidence
from confide_attestation.nvidia.device import Arch
from confide_attestation.nvidia.ids import NVIDIA_CHECKS
from confide_attestation.nvidia.ocsp import OcspAnswer
from confide_attestation.nvidia.spdm import Opaque
from confide_attestation.result import AttestationResult, Outcome, Verdict
from confide_attestation.simulated.nvidia import SimulatedDevice
from confide_attestation.snp.ids import SNP_CHECKS
from confide_protocol.statement import gpu_nonce
from cryptography import x509
from cryptography.x509 import ocsp

from tests.fakes.azure_scene import SNP, TDX, AzureScene
from tests.fakes.gpu_scene import (
    GpuScene,
    Patched,
    answers,
    appraise_with_gpu,
    ask,
    eight_and_four,
    gpu,
    other_gpu,
    other_vendor,
    rims,
    shared_answers,
    vendor,
)
from tests.fakes.scene import NOW, Scene
from tests.fakes.tdx_scene import DIRECT, DSTACK, GCP, TdxScene

Corruption = Callable[[GpuScene], object]
HELD = {"status": ocsp.OCSPCertStatus.REVOKED, "reason": x509.ReasonFlags.certificate_hold}
LEAVE = 'rim_hold = { accepted_because = "the known fault does not matter here" }'
ALL = [*POLICY_CHECKS, *SNP_CHECKS, *BINDING_CHECKS, *NVIDIA_CHECKS]


def failed(result: AttestationResult) -> list[str]:
    return [check.id for check in result.failed]


def outcomes(result: AttestationResult) -> dict[str, Outcome]:
    return {check.id: check.outcome for check in result.checks}


def edited(old: str, new: str) -> Corruption:
    return lambda scene: scene.edit_policy(old, new)


def patched(opaque: dict[int, bytes | None]) -> Corruption:
    return lambda scene: setattr(scene, "devices", ((gpu(), opaque),))


def asked(change: Callable[[Sequence[GpuEvidence]], Sequence[GpuEvidence]]) -> Corruption:
    return lambda scene: setattr(scene, "asked", change)


def shown(change: Callable[[Sequence[GpuEvidence]], Sequence[GpuEvidence]]) -> Corruption:
    return lambda scene: setattr(scene, "shown", change)


def rim_answer(**lie: Any) -> tuple[OcspAnswer, ...]:
    leaf, issuer, *_ = vendor().rim_chain
    return (*answers([gpu()]), vendor().answer(leaf, issuer, vendor().keys["rim_l3"], **lie))


def brom_answer(**lie: Any) -> tuple[OcspAnswer, ...]:
    brom, ica = gpu().certificates[1:3]
    return (*shared_answers(), vendor().answer(brom, ica, vendor().keys["ica"], **lie))


def foreign(_: Sequence[GpuEvidence]) -> Sequence[GpuEvidence]:
    """Evidence of another machine's GPU, asked with what its own owner asked."""
    return ask(((other_gpu(), {}),), b"\x11" * 32)


def old_answers(scene: GpuScene) -> None:
    """A second older than the policy accepts."""
    scene.edit_policy("max_age_s = 86400", "max_age_s = 60")
    scene.arguments["now_unix_s"] = NOW + 1


@pytest.mark.parametrize("devices", [((gpu(), {}),), eight_and_four()], ids=["one GPU", "eight and four"])
def test_cpu_and_gpus_are_accepted_together(devices: Sequence[Patched]) -> None:
    """Every check of every room is there once, in order; what is skipped was waived; each device has its claims."""
    result = GpuScene(devices=devices).appraise()
    assert (result.verdict, failed(result)) == (Verdict.ACCEPTED, [])
    assert [check.id for check in result.checks] == ALL
    skipped = [check for check in result.checks if check.outcome is Outcome.SKIP]
    assert all(check.detail.startswith("waived by the policy: ") for check in skipped)
    assert len(result.claims) == len(devices) + 2
    assert result.claims["gpu0"]["x-confide-gpu-mode"] == ("SPT" if len(devices) == 1 else "PPCIE")
    assert result.claims["gpu0"]["measres"] == "success"


@pytest.mark.parametrize(
    "scene",
    [AzureScene(SNP), AzureScene(TDX), TdxScene(DIRECT), TdxScene(GCP), TdxScene(DSTACK)],
    ids=[SNP, TDX, DIRECT, GCP, DSTACK],
)
def test_a_gpu_stands_beside_every_cpu(scene: AzureScene | TdxScene) -> None:
    """No id of one room collides with another's, and the whole is accepted; without the GPU it is not."""
    scene = deepcopy(scene)
    result = appraise_with_gpu(scene)
    assert (failed(result), result.verdict) == ([], Verdict.ACCEPTED)
    ids = [check.id for check in result.checks]
    assert len(ids) == len(set(ids))
    assert ids[-len(NVIDIA_CHECKS) :] == list(NVIDIA_CHECKS)
    assert {"cpu0", "gpu0", "keyset"} <= set(result.claims)
    assert {"gpu_evidence", "gpu_count"} <= set(failed(scene.appraise()))


CASES: dict[str, tuple[Corruption, set[str]]] = {
    "too few": (edited("gpus = 1", "gpus = 2"), {"gpu_count"}),
    "architecture": (edited('architectures = ["HOPPER"]', 'architectures = ["BLACKWELL"]'), {"gpu_arch_denied"}),
    "mode": (edited('modes = ["SPT"]', 'modes = ["MPT"]'), {"gpu_mode_denied"}),
    "flag": (patched({Opaque.FEATURE_FLAG: b"\1\0"}), {"gpu_mode_denied"}),
    "protected PCIe alone": (patched({Opaque.PROTECTED_PCIE_STATUS: b"\xaa"}), {"gpu_mode_denied", "topology"}),
    "flag of another size": (patched({Opaque.FEATURE_FLAG: b"\0"}), {"gpu_mode_denied", "mixed_mode"}),
    "flag of more bytes": (patched({Opaque.FEATURE_FLAG: bytes(4)}), {"gpu_mode_denied", "mixed_mode"}),
    "flag is empty": (patched({Opaque.FEATURE_FLAG: b""}), {"gpu_mode_denied", "mixed_mode"}),
    "flag and status": (
        patched({Opaque.FEATURE_FLAG: b"\0\0", Opaque.PROTECTED_PCIE_STATUS: b"\xaa"}),
        {"gpu_mode_denied", "mixed_mode"},
    ),
    "status and flag": (patched({Opaque.FEATURE_FLAG: b"\2\0"}), {"gpu_mode_denied", "mixed_mode"}),
    "unknown mode": (patched({Opaque.PROTECTED_PCIE_STATUS: b"\0"}), {"gpu_mode_denied", "mixed_mode"}),
    "old driver": (edited('min_driver = "550.90.07"', 'min_driver = "550.100"'), {"min_driver"}),
    "firmware": (edited('"96.00.9F.00.01", ', ""), {"gpu_firmware"}),
    "unknown device": (
        lambda scene: setattr(scene, "devices", ((other_gpu(), {}),)),
        {"ueid_not_allowed"},
    ),
    "no digest of firmware": (patched({Opaque.FWID: None}), {"fwid"}),
    "old answers": (old_answers, {"ocsp_age"}),
    "no answers": (lambda scene: scene.nvidia.update(ocsp=None), {"device_chain_ocsp", "rim_ocsp", "ocsp_age"}),
    "answers of another GPU": (
        lambda scene: scene.nvidia.update(ocsp=answers([other_gpu()])),
        {"device_chain_ocsp"},
    ),
    "late answers": (lambda scene: scene.arguments.update(now_unix_s=NOW + 90_000), set()),
    "manifest on hold": (lambda scene: scene.nvidia.update(ocsp=rim_answer(**HELD)), {"rim_revoked"}),
    "device on hold": (lambda scene: scene.nvidia.update(ocsp=brom_answer(**HELD)), {"device_chain_revoked"}),
    "no endorsements": (
        lambda scene: scene.nvidia.update(rims=(), ocsp=None),
        {"driver_rim_missing", "firmware_rim_missing", "device_chain_ocsp", "ocsp_age"},
    ),
    "manifest of another driver": (
        lambda scene: scene.nvidia.update(
            rims=(vendor().rim("550.54.14", gpu().golden((7,))), rims(Arch.HOPPER)[1])
        ),
        {"driver_rim_version"},
    ),
    "another root": (
        edited(vendor().roots.device_spki_sha256.hex(), other_vendor().roots.device_spki_sha256.hex()),
        {"device_root_pin"},
    ),
    "no root": (edited(f'"{vendor().roots.device_spki_sha256.hex()}"', '"none"'), {"device_root_pin"}),
    "no root of manifests": (
        edited(f'"{vendor().roots.rim_spki_sha256.hex()}"', '"none"'),
        {"rim_root_pin", "driver_rim_missing", "firmware_rim_missing"},
    ),
    "another nonce": (lambda scene: setattr(scene, "gpu_nonce", lambda nonce: b"\1" * 32), {"gpu_nonce"}),
    "nonce of another keyset": (
        lambda scene: setattr(scene, "gpu_nonce", lambda nonce: gpu_nonce(b"n" * 32, b"k" * 32)),
        {"gpu_nonce"},
    ),
    "foreign GPU": (asked(foreign), {"gpu_nonce", "ueid_not_allowed", "device_chain_ocsp"}),
    "spliced in": (shown(foreign), {"gpu_evidence", "gpu_nonce", "ueid_not_allowed", "device_chain_ocsp"}),
    "left out": (shown(lambda gpus: ()), {"gpu_evidence", "gpu_count"}),
    "twice, and both are named": (asked(lambda gpus: (*gpus, *gpus)), {"gpu_count", "duplicate_device"}),
    "one more than is named": (
        shown(lambda gpus: (*gpus, *gpus)),
        {"gpu_evidence", "gpu_count", "duplicate_device"},
    ),
    "statement names none": (
        lambda scene: scene.statement.update(gpu_evidence_digest=None),
        {"gpu_evidence"},
    ),
    "label": (
        shown(lambda gpus: [replace(each, architecture="BLACKWELL") for each in gpus]),
        {"arch"},
    ),
    "chain of another GPU": (
        shown(lambda gpus: [replace(gpus[0], certificate_chain=other_gpu().chain)]),
        {"gpu_evidence", "gpu_report_sig", "device_chain_ocsp"},
    ),
    "no report": (
        shown(lambda gpus: [replace(gpus[0], report=b"")]),
        {"gpu_evidence", "gpu_report_format"},
    ),
    "no statement": (
        lambda scene: scene.bundle.update(statement=b""),
        {"statement_format", "gpu_nonce"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_demand_bites_by_name(name: str) -> None:
    """One thing is wrong, the checks that are named for it fail, all checks are listed, and there is no keyset."""
    corrupt, reasons = CASES[name]
    scene = GpuScene()
    corrupt(scene)
    result = scene.appraise()
    assert (result.verdict, result.keyset) == (Verdict.REFUSED, None)
    assert [check.id for check in result.checks] == ALL
    if reasons:
        assert set(failed(result)) == reasons
    else:
        assert {"device_chain_ocsp_expired", "rim_ocsp_expired", "ocsp_age"} <= set(failed(result))


def swapped(gpus: Sequence[GpuEvidence]) -> Sequence[GpuEvidence]:
    return (gpus[1], gpus[0], *gpus[2:])


MACHINE: dict[str, tuple[Corruption, set[str]]] = {
    "another order": (shown(swapped), {"gpu_evidence"}),
    "a GPU is missing": (asked(lambda gpus: gpus[1:]), {"gpu_count", "topology"}),
    "a switch is missing": (asked(lambda gpus: gpus[:-1]), {"switch_count", "topology"}),
    "a GPU in the place of another": (
        asked(lambda gpus: (gpus[1], *gpus[1:])),
        {"duplicate_device", "topology"},
    ),
    "all switches are missing": (asked(lambda gpus: gpus[:8]), {"switch_count", "topology"}),
}


@pytest.mark.parametrize("name", MACHINE)
def test_a_machine_is_whole(name: str) -> None:
    """Eight GPUs and four switches, each once, in the order that the CPU's report names."""
    corrupt, reasons = MACHINE[name]
    scene = GpuScene(devices=eight_and_four())
    corrupt(scene)
    result = scene.appraise()
    assert (result.verdict, set(failed(result))) == (Verdict.REFUSED, reasons)


def test_the_order_is_the_statements_own() -> None:
    """Any order will do, as long as the statement names it."""
    scene = GpuScene(devices=eight_and_four(), asked=swapped)
    assert scene.appraise().verdict is Verdict.ACCEPTED


def test_a_hold_needs_leave_and_only_manifests_can_have_it() -> None:
    """With the policy's reason the check is waived and says why; the device's own chain is never let off."""
    scene = GpuScene(nvidia={"ocsp": rim_answer(**HELD)})
    scene.edit_policy('rim_hold = "refused"', LEAVE)
    result = scene.appraise()
    assert result.verdict is Verdict.ACCEPTED
    (waived,) = [check for check in result.checks if check.id == "rim_revoked"]
    assert waived.outcome is Outcome.SKIP
    assert "waived by the policy: on hold: HCC RIM L4 Signer: the known fault" in waived.detail
    for lie, reason in (
        (brom_answer(**HELD), "device_chain_revoked"),
        (rim_answer(status=ocsp.OCSPCertStatus.REVOKED), "rim_revoked"),
        (rim_answer(status=ocsp.OCSPCertStatus.UNKNOWN), "rim_revoked"),
    ):
        scene.nvidia = {"ocsp": lie}
        assert failed(scene.appraise()) == [reason]


def test_revocation_can_be_waived_but_answers_that_are_there_count() -> None:
    """Without answers the seven checks are SKIP with the reason; a revoked certificate is refused all the same."""
    scene = GpuScene(nvidia={"ocsp": None})
    scene.edit_policy('{ max_age_s = 86400, rim_hold = "refused" }', '{ waived = "this machine has no network" }')
    result = scene.appraise()
    assert result.verdict is Verdict.ACCEPTED
    waived = [check.id for check in result.checks if "this machine has no network" in check.detail]
    assert len(waived) == 7
    scene.nvidia = {"ocsp": brom_answer(status=ocsp.OCSPCertStatus.REVOKED)}
    assert failed(scene.appraise()) == ["device_chain_revoked"]


def test_an_absent_firmware_digest_can_be_waived_a_wrong_one_cannot() -> None:
    """Reports of old drivers have none."""
    scene = GpuScene(devices=((gpu(), {Opaque.FWID: None}),))
    scene.edit_policy('fwid = "required"', 'fwid = { waived = "the driver is older than 550" }')
    result = scene.appraise()
    assert (result.verdict, outcomes(result)["fwid"]) == (Verdict.ACCEPTED, Outcome.SKIP)
    scene.devices = ((gpu(), {Opaque.FWID: bytes(48)}),)
    assert failed(scene.appraise()) == ["fwid"]


def test_blackwell_must_name_its_mode() -> None:
    """Without a flag it could be in either of two modes; with one it is accepted."""
    device = SimulatedDevice(vendor(), arch=Arch.BLACKWELL)
    cases: tuple[tuple[dict[int, bytes | None], str, list[str]], ...] = (
        ({}, "SPT", ["gpu_mode_denied"]),
        ({Opaque.FEATURE_FLAG: b"\0\0"}, "SPT", []),
        ({Opaque.FEATURE_FLAG: b"\1\0"}, "MPT", []),
        ({Opaque.FEATURE_FLAG: b"\1\0"}, "SPT", ["gpu_mode_denied"]),
    )
    for opaque, mode, reasons in cases:
        scene = GpuScene(devices=((device, opaque),))
        scene.edit_policy('architectures = ["HOPPER"]', 'architectures = ["HOPPER", "BLACKWELL"]')
        scene.edit_policy('modes = ["SPT"]', f'modes = ["{mode}"]')
        assert failed(scene.appraise()) == reasons


def test_evidence_of_one_bundle_does_not_fit_another() -> None:
    """The GPUs answered another statement of the same enclave: neither digest nor nonce is this one's."""
    first, _, _ = GpuScene(keyset={"not_after_unix_s": NOW + 1800}).build()
    result = GpuScene(shown=lambda gpus: first.gpus).appraise()
    assert failed(result) == ["gpu_evidence", "gpu_nonce"]


def test_a_policy_that_demands_no_gpu_refuses_one() -> None:
    """Nothing is silently left unjudged."""
    gpus = ask(((gpu(), {}),), bytes(32))
    assert failed(Scene(bundle={"gpus": gpus}).appraise()) == ["gpu_evidence"]


def test_the_result_ends_with_the_first_of_all() -> None:
    """Answers by their own word, responder or the policy's age, a device's certificate, a manifest's signer."""

    def until(scene: GpuScene) -> int:
        result = scene.appraise()
        assert result.keyset is not None, failed(result)
        return result.keyset.valid_until_unix_s - NOW

    assert until(GpuScene()) == 600
    ends = (NOW - 60, NOW + 200)
    assert until(GpuScene(nvidia={"ocsp": brom_answer(window=ends)})) == 200
    assert until(GpuScene(nvidia={"ocsp": brom_answer(responder_window=ends)})) == 200
    leaf, issuer, *_ = vendor().rim_chain
    shared = [each for each in answers([gpu()]) if each is not shared_answers()[2]]
    signer = vendor().answer(leaf, issuer, vendor().keys["rim_l3"], window=ends)
    assert until(GpuScene(nvidia={"ocsp": (*shared, signer)})) == 200
    young = GpuScene()
    young.edit_policy("max_age_s = 86400", "max_age_s = 400")
    assert until(young) == 340
    short = vendor().issue("HCC RIM L4 Signer", "rim_l4", issuer, by="rim_l3", authority=False, window=ends)
    by_short = vendor().rim(gpu().driver, gpu().golden((7,)), chain=(short, *vendor().rim_chain[1:]))
    given = (*answers([gpu()]), vendor().answer(short, issuer, vendor().keys["rim_l3"]))
    assert until(GpuScene(nvidia={"rims": (by_short, rims(Arch.HOPPER)[1]), "ocsp": given})) == 200
