"""Real NVIDIA evidence gets its known verdicts at its pinned times, and not one bit of it can be changed."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from confide_attestation.nvidia.certificates import load_certificate, spki_sha256, split_pem
from confide_attestation.nvidia.chain import nvidia_roots
from confide_attestation.nvidia.evidence import DeviceEvidence, NvidiaEndorsements, parse_evidence
from confide_attestation.nvidia.ids import NvidiaCheck
from confide_attestation.nvidia.ocsp import read_answer
from confide_attestation.nvidia.rim import judge_rim
from confide_attestation.nvidia.verify import verify_nvidia
from confide_attestation.result import AttestationResult, Outcome, Verdict
from confide_attestation.roots import nvidia

from tests.shared import ROOT, shared_path

FOLDER = ROOT / "evidence" / "nvidia"
TESTDATA = "attestation-sdk/nv-attestation-sdk-cpp/unit-tests/testdata"
SAMPLES = f"{TESTDATA}/sample_attestation_data"
HOPPER, SWITCH = "hopper_550.90.07", "switch_96.10.55.00.01"
MISSING = ["driver_rim_missing", "firmware_rim_missing"]
MALFORMED = sorted(path.name for path in (FOLDER / "malformed_rims").glob("*.xml"))
RIM_ROOT = nvidia_roots().rim_spki_sha256
LATER = 1_780_000_000


def read(*parts: str) -> bytes:
    data: bytes = shared_path("evidence", "nvidia", *"/".join(parts).split("/")).read_bytes()
    return data


def expected(name: str) -> dict[str, str | int]:
    found: dict[str, str | int] = json.loads(read(name, "expected.json"))
    return found


def judge(
    devices: Sequence[DeviceEvidence], rims: Sequence[bytes] = (), now: int = LATER, nonce: bytes | None = None
) -> AttestationResult:
    """Judge by the nonce that the first report itself has, unless another is given."""
    endorsements = NvidiaEndorsements(tuple(rims))
    return verify_nvidia(devices, endorsements, now_unix_s=now, nonce=nonce or devices[0].report[4:36])


def golden(name: str) -> tuple[tuple[DeviceEvidence, ...], list[bytes]]:
    rims = sorted(shared_path("evidence", "nvidia", name).glob("*_rim.xml"))
    return parse_evidence(read(name, "report.bin"), read(name, "chain.pem")), [rim.read_bytes() for rim in rims]


def failed(result: AttestationResult) -> list[str]:
    return [check.id for check in result.failed]


@pytest.mark.parametrize("name", [HOPPER, SWITCH])
def test_golden_evidence_is_authentic_offline(name: str) -> None:
    """All golden values match: 33 of 33 and 31 of 31."""
    devices, rims = golden(name)
    known = expected(name)
    result = judge(devices, rims, int(known["now"]), bytes.fromhex(str(known["nonce"])))
    assert failed(result) == []
    assert result.verdict is Verdict.AUTHENTIC
    detail = {check.id: check.detail for check in result.checks}["gpu_measurements"]
    assert detail.startswith(str(known["golden_values"]).replace("/", " of "))
    (claims,) = result.claims.values()
    assert (claims["measres"], claims["secboot"], claims["dbgstat"]) == ("success", True, "disabled")
    if name == HOPPER:
        assert claims["x-nvidia-gpu-driver-version"] == known["driver"]
        assert claims["x-nvidia-gpu-vbios-version"] == known["vbios"]
    else:
        assert claims["x-nvidia-switch-bios-version"] == known["bios"]


def test_claims_agree_with_nvidias_service() -> None:
    """What NVIDIA's own service said of the same GPU and switch, where both say something."""
    for name, file, token in (
        (HOPPER, "hopperClaimsv3_decoded.json", "GPU-0"),
        (SWITCH, "switch_decoded.json", "SWITCH-0"),
    ):
        devices, rims = golden(name)
        (ours,) = judge(devices, rims, int(expected(name)["now"])).claims.values()
        theirs = json.loads(read(SAMPLES, file))[token]
        shared = set(ours) & set(theirs) - {"oemid"}
        assert len(shared) > 12
        assert {key: ours[key] for key in shared} == {key: theirs[key] for key in shared}


@pytest.mark.parametrize("name", [HOPPER, SWITCH])
def test_manifests_expire(name: str) -> None:
    """A second before and after the window of the manifests' signers."""
    devices, rims = golden(name)
    for now in (1_700_000_000, 2_100_000_000):
        assert failed(judge(devices, rims, now)) == ["rim_validity"]


def test_recorded_ocsp_answers_count_in_their_own_window() -> None:
    """Devices' answers are of August 2025, manifests' of October: each batch fails at the other's time."""
    devices, rims = golden(HOPPER)
    files = sorted(shared_path("evidence", "nvidia", HOPPER, "ocsp").iterdir())
    answers = tuple(read_answer(file.read_bytes()) for file in files)
    assert len(answers) == 7
    nonce = devices[0].report[4:36]
    for now, device, rim in ((1_755_770_000, "PASS", "FAIL"), (1_761_350_000, "FAIL", "PASS")):
        result = verify_nvidia(devices, NvidiaEndorsements(tuple(rims), answers), now_unix_s=now, nonce=nonce)
        outcomes = {check.id: check.outcome.value for check in result.checks}
        assert (outcomes["device_chain_ocsp_expired"], outcomes["rim_ocsp_expired"]) == (device, rim)
        assert outcomes["device_chain_ocsp"] == outcomes["rim_ocsp"] == "PASS"
        assert outcomes["device_chain_revoked"] == outcomes["rim_revoked"] == "PASS"
    for left_out in range(7):
        fewer = NvidiaEndorsements(tuple(rims), answers[:left_out] + answers[left_out + 1 :])
        result = verify_nvidia(devices, fewer, now_unix_s=1_755_770_000, nonce=nonce)
        assert {"device_chain_ocsp", "rim_ocsp"} & set(failed(result))


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_manifest_is_refused_before_a_value_is_used(name: str) -> None:
    """Beside the good ones, or in the place of one."""
    devices, rims = golden(HOPPER)
    bad, now = read("malformed_rims", name), int(expected(HOPPER)["now"])
    judged = judge_rim(bad, RIM_ROOT)
    assert judged.rim is None
    assert set(judged.faults) == {NvidiaCheck.RIM_FORMAT}
    for given in ([*rims, bad], [rims[0], bad], [bad]):
        result = judge(devices, given, now)
        assert result.verdict is Verdict.REFUSED
        assert "rim_format" in failed(result)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("incorrect_signature_driver_rim.xml", "rim_sig"),
        ("incorrect_cert_chain_driver_rim.xml", "rim_root_pin"),
        ("NV_GPU_DRIVER_GH100_550.144.03.xml", None),
        ("sample_rims/NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml", "rim_sig"),
        ("sample_rims/NV_GPU_DRIVER_GH100_570.124.03_expired.xml", "rim_sig"),
        ("sample_rims/NV_GPU_VBIOS_1010_0200_882_96005E0001_measurement_mismatch.xml", None),
        ("sample_rims/NV_SWITCH_BIOS_5612_0002_890_9610550001_invalid_signature.xml", "rim_sig"),
        ("sample_rims/NV_SWITCH_BIOS_5612_0002_890_9610550001_measurement_mismatch.xml", "rim_sig"),
    ],
)
def test_sample_manifest_is_what_the_notes_say(name: str, fault: str | None) -> None:
    """Edited manifests and one under the debug root are refused; nothing of them is read."""
    judged = judge_rim(read(TESTDATA, name), RIM_ROOT)
    assert (judged.rim is None) == (fault is not None)
    assert fault is None or fault in judged.faults


def test_every_published_manifest_of_nvtrust_is_sound() -> None:
    """Their signatures hold; their signers have all expired."""
    files = sorted(shared_path("evidence", "nvidia", "nvtrust").glob("*.swidtag"))
    assert len(files) == 26
    for file in files:
        judged = judge_rim(file.read_bytes(), RIM_ROOT)
        assert judged.faults == {}, file.name
        assert judged.path is not None
        assert judged.path.not_after_unix_s < LATER


def test_manifest_of_another_version_is_named() -> None:
    """Sound, but for another driver or VBIOS."""
    devices, (driver, vbios) = golden(HOPPER)
    now = int(expected(HOPPER)["now"])
    other_driver = read(TESTDATA, "NV_GPU_DRIVER_GH100_550.144.03.xml")
    other_vbios = read("nvtrust", "1010_0200_882_96005E0003_PROD.swidtag")
    switch = read(SWITCH, "bios_rim.xml")
    for rims, check in (
        ([other_driver, vbios], "driver_rim_version"),
        ([driver, other_vbios], "firmware_rim_version"),
        ([driver, switch], "firmware_rim_missing"),
        ([vbios], "driver_rim_missing"),
    ):
        assert failed(judge(devices, rims, now)) == [check]
    assert failed(judge(devices, [other_vbios, vbios, other_driver, driver, switch], now)) == []


@pytest.mark.parametrize(
    ("file", "reasons"),
    [
        ("ppcie/gpu_evidence.json", MISSING),
        ("ppcie/switch_evidence.json", ["firmware_rim_missing"]),
        ("attestation-sdk/common-test-data/serialized_test_evidence/hopper_evidence.json", MISSING),
        ("attestation-sdk/common-test-data/serialized_test_evidence/hopper_evidence_cert_hold.json", MISSING),
        ("attestation-sdk/common-test-data/serialized_test_evidence/multi_gpu_hopper.json", MISSING),
        (
            "attestation-sdk/common-test-data/serialized_test_evidence/multi_switch_ls10.json",
            ["firmware_rim_missing", "duplicate_device"],
        ),
        (f"{TESTDATA}/evidence_hopper_590_12.json", MISSING),
    ],
)
def test_evidence_without_manifests_fails_for_that_alone(file: str, reasons: list[str]) -> None:
    """Signatures, chains and digests hold; the missing manifests are named. A switch told four times is seen."""
    result = judge(parse_evidence(read(file), None))
    assert failed(result) == reasons
    assert result.verdict is Verdict.REFUSED
    missing = next(check for check in result.failed if check.id == "firmware_rim_missing")
    assert "https://rim.attestation.nvidia.com/v1/rim/NV_" in missing.detail


@pytest.mark.parametrize(
    ("report", "chain", "reasons"),
    [
        (f"{TESTDATA}/hopperAttestationReport.txt", f"{TESTDATA}/hopperCertChain.txt", MISSING),
        (f"{SAMPLES}/gpu/blackwellAttestationReport.txt", f"{SAMPLES}/gpu/blackwellCertChain.txt", MISSING),
        (f"{SAMPLES}/gpu/hopperAttestationReport.txt", f"{SAMPLES}/gpu/hopperCertChain.txt", ["fwid", *MISSING]),
        (
            f"{SAMPLES}/gpu/hopperAttestationReportInvalidSignature.txt",
            f"{SAMPLES}/gpu/hopperCertChain.txt",
            ["fwid", "gpu_report_sig"],
        ),
        (
            f"{SAMPLES}/switch/switchAttestationReportInvalidSignature.txt",
            f"{SAMPLES}/switch/switchCertChain.txt",
            ["gpu_report_sig"],
        ),
    ],
)
def test_report_in_hex(report: str, chain: str, reasons: list[str]) -> None:
    """NVIDIA's samples as text; those that are broken are refused for it, and show no claim."""
    result = judge(parse_evidence(read(report), read(chain)))
    assert failed(result) == reasons
    assert bool(result.claims) == ("gpu_report_sig" not in reasons)


def test_eight_gpus_and_four_switches_name_one_another() -> None:
    """Wires are compared with what the certificates name, so no device of another machine can stand in."""
    gpus, switches = (parse_evidence(read("ppcie", f"{kind}_evidence.json"), None) for kind in ("gpu", "switch"))
    together = judge([*gpus, *switches])
    assert {check.id: check.outcome for check in together.checks}["topology"] is Outcome.PASS
    assert "duplicate_device" not in failed(together)
    for fewer in ([*gpus[1:], *switches], [*gpus, *switches[1:]]):
        assert "topology" in failed(judge(fewer))
    assert "duplicate_device" in failed(judge([*gpus[1:], gpus[1], *switches]))
    (stranger,) = golden(SWITCH)[0]
    assert "topology" in failed(judge([*gpus, *switches[1:], stranger]))


def test_parts_of_another_device_are_refused() -> None:
    """Chains and reports, swapped between real devices of one machine."""
    one, two, *_ = parse_evidence(read("ppcie", "gpu_evidence.json"), None)
    assert "gpu_report_sig" in failed(judge([DeviceEvidence(one.report, two.chain)]))
    (switch,) = golden(SWITCH)[0]
    assert "gpu_report_sig" in failed(judge([DeviceEvidence(switch.report, one.chain)]))
    assert failed(judge([one], nonce=b"\1" * 32))[0] == "gpu_nonce"
    for arch in ("BLACKWELL", "LS10", "", "hopper"):
        assert failed(judge([DeviceEvidence(one.report, one.chain, arch)]))[0] == "arch"
    assert failed(judge([DeviceEvidence(one.report, one.chain, None, "00" * 32)]))[0] == "gpu_nonce"


@pytest.mark.parametrize("name", [HOPPER, SWITCH])
def test_no_bit_of_a_report_can_be_flipped(name: str) -> None:
    """One bit of every byte, each in turn; every bit of the header and the signature."""
    (device,), rims = golden(name)
    now, nonce = int(expected(name)["now"]), device.report[4:36]
    size = len(device.report)
    bits = {8 * at + at % 8 for at in range(size)} | set(range(8 * 45)) | set(range(8 * (size - 96), 8 * size, 3))
    for bit in sorted(bits):
        changed = bytearray(device.report)
        changed[bit // 8] ^= 1 << bit % 8
        result = judge([DeviceEvidence(bytes(changed), device.chain)], rims, now, nonce)
        assert result.verdict is not Verdict.AUTHENTIC, bit
        assert result.claims == {}


def test_no_byte_of_a_manifest_or_chain_can_be_flipped() -> None:
    """Every 17th byte of a manifest, and of the chain; only space between tokens is without meaning."""
    (device,), (driver, vbios) = golden(HOPPER)
    now = int(expected(HOPPER)["now"])
    for at in range(0, len(vbios), 17):
        changed = vbios[:at] + bytes([vbios[at] ^ 1]) + vbios[at + 1 :]
        assert judge_rim(changed, RIM_ROOT).rim is None, at
    for at in range(0, len(device.chain), 7):
        changed = device.chain[:at] + bytes([device.chain[at] ^ 1]) + device.chain[at + 1 :]
        result = judge([DeviceEvidence(device.report, changed)], [driver, vbios], now)
        assert result.verdict is not Verdict.AUTHENTIC, at


def test_packaged_roots_are_those_of_the_folder() -> None:
    """The two packaged certificates have the pinned keys."""
    root: Path = shared_path("evidence", "nvidia", "roots")
    for file, text, pin in (
        ("verifier_device_root.pem", nvidia.DEVICE_ROOT_PEM, nvidia.DEVICE_ROOT_SPKI_SHA256),
        ("verifier_RIM_root.pem", nvidia.RIM_ROOT_PEM, nvidia.RIM_ROOT_SPKI_SHA256),
    ):
        (der,) = split_pem(text.encode())
        assert split_pem((root / file).read_bytes()) == (der,)
        assert spki_sha256(load_certificate(der)) == pin
