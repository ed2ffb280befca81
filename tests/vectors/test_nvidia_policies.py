"""Real GPUs and switches under policies of their own values: accepted with their nonce, refused by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confide_attestation.nvidia.evidence import DeviceEvidence, NvidiaEndorsements, parse_evidence
from confide_attestation.nvidia.ocsp import read_answer
from confide_attestation.nvidia.verify import verify_nvidia
from confide_attestation.policy import load_policy
from confide_attestation.result import AttestationResult, Outcome, Verdict

from tests.shared import shared_path
from tests.vectors.test_nvidia_evidence import HOPPER, LATER, MISSING, SAMPLES, TESTDATA, expected, golden, read

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy/policies/example.toml"
GPU = """\
[gpu]
gpus = {gpus}
switches = {switches}
architectures = ["{arch}"]
modes = ["{mode}"]
min_driver = "{driver}"
firmware = {firmware}
ueids = {ueids}
fwid = "required"
revocation = {revocation}
"""
UNASKED = '{ waived = "no answers were recorded for this time" }'
ANY = '{ waived = "any will do in this test" }'


def judge(
    devices: Sequence[DeviceEvidence],
    rims: Sequence[bytes],
    *edits: tuple[str, str],
    now: int,
    answers: Sequence[bytes] | None = None,
    **values: Any,
) -> AttestationResult:
    """Judge by the nonce that the reports have, under a policy with these values and edits."""
    table = GPU.format(
        **{
            "gpus": 1, "switches": 0, "arch": "HOPPER", "mode": "SPT", "driver": "550.90.07", "firmware": ANY,
            "ueids": ANY, "revocation": UNASKED, **values,
        }
    )  # fmt: skip
    text = EXAMPLE.read_text().replace('gpu = "none" ', "# ").replace("[session]\n", f"{table}\n[session]\n")
    for old, new in edits:
        assert old in text, f"the policy has no {old}"
        text = text.replace(old, new)
    ocsp = None if answers is None else tuple(map(read_answer, answers))
    return verify_nvidia(
        devices,
        NvidiaEndorsements(tuple(rims), ocsp),
        now_unix_s=now,
        nonce=devices[0].report[4:36],
        policy=load_policy(text.encode(), "policy.toml"),
    )


def failed(result: AttestationResult) -> list[str]:
    return [check.id for check in result.failed]


def hopper(*edits: tuple[str, str], **values: Any) -> AttestationResult:
    devices, rims = golden(HOPPER)
    return judge(devices, rims, *edits, now=int(expected(HOPPER)["now"]), **values)


def test_the_golden_gpu_is_accepted() -> None:
    """A Hopper of driver 550.90.07, which names no mode: it is in the only one left."""
    result = hopper(firmware='["96.00.9F.00.01"]')
    assert (failed(result), result.verdict, result.keyset) == ([], Verdict.ACCEPTED, None)
    skipped = [check for check in result.checks if check.outcome is Outcome.SKIP]
    assert all(check.detail.startswith("waived by the policy: ") for check in skipped)
    ueid = str(result.claims["gpu0"]["ueid"])
    assert hopper(ueids=f'["{ueid}"]').verdict is Verdict.ACCEPTED


@pytest.mark.parametrize(
    ("values", "reasons"),
    [
        ({"gpus": 2}, ["gpu_count"]),
        ({"arch": "BLACKWELL"}, ["gpu_arch_denied"]),
        ({"mode": "MPT"}, ["gpu_mode_denied"]),
        ({"driver": "550.90.12"}, ["min_driver"]),
        ({"driver": "550.100"}, ["min_driver"]),
        ({"firmware": '["96.00.9F.00.04"]'}, ["gpu_firmware"]),
        ({"ueids": '["1"]'}, ["ueid_not_allowed"]),
        (
            {"revocation": '{ max_age_s = 86400, rim_hold = "refused" }'},
            ["device_chain_ocsp", "rim_ocsp", "ocsp_age"],
        ),
    ],
)
def test_each_demand_counts(values: dict[str, Any], reasons: list[str]) -> None:
    """The same GPU, and one thing more is demanded."""
    result = hopper(**values)
    assert (failed(result), result.verdict) == (reasons, Verdict.REFUSED)


def test_recorded_answers_are_judged_by_their_age() -> None:
    """The device's were given in August 2025, the manifests' in October: too old by then, or not yet given."""
    devices, rims = golden(HOPPER)
    folder = shared_path("evidence", "nvidia", HOPPER, "ocsp")
    answers = [file.read_bytes() for file in sorted(folder.iterdir())]
    rule = '{ max_age_s = %d, rim_hold = "refused" }'
    october = judge(devices, rims, now=1_761_350_000, answers=answers, revocation=rule % 86_400)
    assert failed(october) == ["device_chain_ocsp_expired", "ocsp_age"]
    august = judge(devices, rims, now=1_755_770_000, answers=answers, revocation=rule % 86_400)
    assert failed(august) == ["rim_ocsp_expired"]


def test_the_machine_of_eight_and_four_lacks_its_manifests_alone() -> None:
    """Counts, mode, wiring and versions of a real PPCIE machine hold; without a switch they do not."""
    gpus, switches = (parse_evidence(read("ppcie", f"{kind}_evidence.json"), None) for kind in ("gpu", "switch"))
    machine: dict[str, Any] = {"gpus": 8, "switches": 4, "mode": "PPCIE"}
    assert failed(judge([*gpus, *switches], (), now=LATER, **machine)) == MISSING
    fewer = failed(judge([*gpus, *switches[1:]], (), now=LATER, **machine))
    assert fewer == [*MISSING, "topology", "switch_count"]
    assert "topology" in failed(judge([*gpus], (), now=LATER, **machine))
    assert "gpu_mode_denied" in failed(judge([gpus[0]], (), now=LATER))


@pytest.mark.parametrize(
    ("file", "chain", "arch", "mode"),
    [
        (f"{TESTDATA}/hopperAttestationReport.txt", f"{TESTDATA}/hopperCertChain.txt", "HOPPER", "SPT"),
        (f"{SAMPLES}/gpu/hopperAttestationReport.txt", f"{SAMPLES}/gpu/hopperCertChain.txt", "HOPPER", "SPT"),
        (f"{TESTDATA}/evidence_hopper_590_12.json", None, "HOPPER", None),
        (
            f"{SAMPLES}/gpu/blackwellAttestationReport.txt",
            f"{SAMPLES}/gpu/blackwellCertChain.txt",
            "BLACKWELL",
            None,
        ),
    ],
)
def test_modes_of_real_reports(file: str, chain: str | None, arch: str, mode: str | None) -> None:
    """Driver 580's flag; a Hopper of 535 that has none; protected PCIe; a Blackwell of 575 that names no mode."""
    devices = parse_evidence(read(file), None if chain is None else read(chain))
    for asked in ("SPT", "MPT"):
        denied = "gpu_mode_denied" in failed(judge(devices, (), now=LATER, mode=asked, arch=arch, driver="535.1"))
        assert denied == (asked != mode)
