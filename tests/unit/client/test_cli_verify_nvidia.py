"""`confide verify nvidia` and `nras`: exit status, JSON, order of manifests, answers, files of the wrong kind."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confide.cli.verify import verify

from tests.fakes.gpu_scene import GpuScene, eight_and_four
from tests.fakes.nras import NONCE, NOW, Nras, device_claims
from tests.fakes.scene import NOW as SCENE_NOW
from tests.shared import shared_path

AT = "1735689600"


def run(*args: str | Path, command: str = "nvidia") -> Result:
    return CliRunner().invoke(verify, [command, *map(str, args)])


def tree(*args: str | Path, command: str = "nvidia") -> tuple[int, dict[str, Any]]:
    result = run(*args, "--json", command=command)
    return result.exit_code, json.loads(result.stdout)


def failed(said: dict[str, Any]) -> list[str]:
    return [check["id"] for check in said["checks"] if check["outcome"] == "FAIL"]


def at(*parts: str) -> Path:
    path: Path = shared_path("evidence", "nvidia", *parts)
    return path


def nonce(folder: str = "hopper_550.90.07") -> list[str]:
    return ["--nonce", json.loads(at(folder, "expected.json").read_text())["nonce"]]


def hopper() -> list[str | Path]:
    folder = at("hopper_550.90.07")
    return [folder / "report.bin", "--chain", folder / "chain.pem", *nonce()]


def rims(*names: str) -> list[str | Path]:
    return [part for name in names for part in ("--rim", at("hopper_550.90.07") / f"{name}_rim.xml")]


@pytest.mark.parametrize("order", [("driver", "vbios"), ("vbios", "driver")])
def test_golden_gpu_is_authentic_in_any_order_of_manifests(order: tuple[str, str]) -> None:
    """Exit 0, 33 of 33, and the text says that nothing was appraised."""
    result = run(*hopper(), *rims(*order), "--at", AT)
    assert result.exit_code == 0
    assert "33 of 33 golden values" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("authentic, NOT appraised")


def test_switch_and_json_output() -> None:
    """Claims by device; revocation SKIP without --ocsp."""
    folder = at("switch_96.10.55.00.01")
    status, said = tree(
        folder / "report.bin", "--chain", folder / "chain.pem", "--rim", folder / "bios_rim.xml",
        *nonce("switch_96.10.55.00.01"), "--at", "1790000000",
    )  # fmt: skip
    outcomes = {check["id"]: check["outcome"] for check in said["checks"]}
    assert (status, said["verdict"], said["appraised"]) == (0, "authentic", False)
    assert said["claims"]["switch0"]["measres"] == "success"
    assert outcomes["device_chain_revoked"] == outcomes["rim_revoked"] == "SKIP"


def test_expired_manifest_and_answers_out_of_window_exit_1() -> None:
    """Today's clock is after the manifests; each batch of answers counts on its own day alone."""
    assert failed(tree(*hopper(), *rims("driver", "vbios"))[1]) == ["rim_validity"]
    answers = ["--ocsp", at("hopper_550.90.07", "ocsp")]
    status, said = tree(*hopper(), *rims("driver", "vbios"), *answers, "--at", "1755770000")
    assert (status, failed(said)) == (1, ["rim_ocsp_expired"])
    status, said = tree(*hopper(), *rims("driver", "vbios"), *answers, "--at", "1761350000")
    assert (status, failed(said)) == (1, ["device_chain_ocsp_expired"])


def test_missing_manifest_exits_1_and_says_where_it_is() -> None:
    """The id and the address of what is missing."""
    result = run(*hopper(), *rims("driver"), "--at", AT)
    assert result.exit_code == 1
    assert "https://rim.attestation.nvidia.com/v1/rim/NV_GPU_VBIOS_1010_0200_882_96009F0001" in result.stdout


def test_json_of_several_devices_needs_no_chain() -> None:
    """NVIDIA's evidence list carries its chains; a switch told four times is refused for it."""
    file = at("attestation-sdk", "common-test-data", "serialized_test_evidence", "multi_switch_ls10.json")
    status, said = tree(file, *nonce(), "--at", "1790000000", "--rim", at("switch_96.10.55.00.01", "bios_rim.xml"))
    assert (status, failed(said)) == (1, ["duplicate_device"])
    assert set(said["claims"]) == {f"switch{n}" for n in range(4)}


def test_every_malformed_manifest_exits_1() -> None:
    """Beside the good ones."""
    for file in at("malformed_rims").glob("*.xml"):
        status, said = tree(*hopper(), *rims("driver", "vbios"), "--rim", file, "--at", AT)
        assert (status, said["verdict"]) == (1, "refused")
        assert "rim_format" in failed(said)


def test_file_of_another_kind_exits_2_with_one_line(tmp_path: Path) -> None:
    """Swapped, empty, huge and absent files are named in one line each."""
    folder = at("hopper_550.90.07")
    report, chain, driver = folder / "report.bin", folder / "chain.pem", folder / "driver_rim.xml"
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "answers").mkdir()
    (tmp_path / "none-yet").mkdir()
    (tmp_path / "answers" / "odd").write_bytes(driver.read_bytes()[:1000])
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 30)
    for args, named in (
        ((chain, "--chain", chain), chain),
        ((driver, "--chain", chain), driver),
        ((report, "--chain", report), report),
        ((report, "--chain", driver), driver),
        ((report,), report),
        ((report, "--chain", chain, "--rim", chain), chain),
        ((report, "--chain", chain, "--rim", report), report),
        ((report, "--chain", chain, "--rim", tmp_path / "huge"), "huge"),
        ((tmp_path / "huge", "--chain", chain), "huge"),
        ((tmp_path / "empty", "--chain", chain), "empty"),
        ((report, "--chain", tmp_path / "empty"), "empty"),
        ((tmp_path / "absent", "--chain", chain), "absent"),
        ((report, "--chain", chain, "--ocsp", tmp_path / "answers"), "odd"),
        ((report, "--chain", chain, "--ocsp", tmp_path / "none-yet"), "none-yet"),
    ):
        result = run(*args, *nonce())
        assert result.exit_code == 2
        assert str(named) in result.stderr
        assert len(result.stderr.splitlines()) == 1
    for bad in ("", "ab", "AB" * 32, "zz" * 32, "00" * 33):
        result = run(report, "--chain", chain, "--nonce", bad)
        assert result.exit_code == 2
        assert "64 hex digits" in result.stderr


def test_nras_tokens(tmp_path: Path) -> None:
    """Exit 0, 1 and 2; an answer for another nonce, of yesterday, or by another's key."""
    service = Nras()
    (tmp_path / "tokens").write_bytes(service.bundle({"GPU-0": device_claims()}))
    (tmp_path / "jwks").write_bytes(service.jwks)
    (tmp_path / "other").write_bytes(Nras().jwks)
    good = (tmp_path / "tokens", "--jwks", tmp_path / "jwks", "--nonce", NONCE.hex())
    status, said = tree(*good, "--at", str(NOW), command="nras")
    assert (status, said["verdict"], said["claims"]["gpu0"]["measres"]) == (0, "authentic", "success")
    assert failed(tree(*good, "--at", str(NOW + 86_400), command="nras")[1]) == ["nras_expired"]
    foreign = (tmp_path / "tokens", "--jwks", tmp_path / "other", "--nonce", NONCE.hex(), "--at", str(NOW))
    assert failed(tree(*foreign, command="nras")[1]) == ["nras_sig"]
    other = (tmp_path / "tokens", "--jwks", tmp_path / "jwks", "--nonce", "00" * 32, "--at", str(NOW))
    assert failed(tree(*other, command="nras")[1]) == ["nras_nonce"]
    swapped = run(tmp_path / "jwks", "--jwks", tmp_path / "tokens", "--nonce", NONCE.hex(), command="nras")
    assert swapped.exit_code == 2
    assert len(swapped.stderr.splitlines()) == 1


def test_help_teaches() -> None:
    """`--help` names every option."""
    for command, options in (("nvidia", ("--chain", "--rim", "--ocsp")), ("nras", ("--jwks",))):
        text = run("--help", command=command).stdout
        for option in (*options, "--nonce", "--at", "--json"):
            assert option in text


def simulated(folder: Path) -> tuple[list[str | Path], Path]:
    """Write the evidence of a machine of eight GPUs and four switches, and the policy that it meets."""
    scene = GpuScene(devices=eight_and_four())
    evidence, endorsements, _ = scene.build()
    assert endorsements.nvidia is not None
    assert endorsements.nvidia.ocsp is not None
    devices = [
        {
            "arch": gpu.architecture,
            "evidence": base64.b64encode(gpu.report).decode(),
            "certificate": base64.b64encode(gpu.certificate_chain).decode(),
        }
        for gpu in evidence.gpus
    ]
    (folder / "evidence.json").write_text(json.dumps(devices))
    (folder / "policy.toml").write_text(scene.policy_text(endorsements.snp, evidence.manifest))
    (folder / "ocsp").mkdir()
    for number, answer in enumerate(endorsements.nvidia.ocsp):
        (folder / "ocsp" / f"{number}.der").write_bytes(answer.der)
    args: list[str | Path] = [folder / "evidence.json", "--ocsp", folder / "ocsp", "--at", str(SCENE_NOW)]
    for number, rim in enumerate(endorsements.nvidia.rims):
        (folder / f"{number}.xml").write_bytes(rim)
        args += ["--rim", folder / f"{number}.xml"]
    return [*args, "--nonce", evidence.gpus[0].report[4:36].hex()], folder / "policy.toml"


def test_a_policy_judges_the_machine(tmp_path: Path) -> None:
    """Accepted with both switches for simulated hardware, else refused by name; a policy without GPUs exits 2."""
    args, policy = simulated(tmp_path)
    status, said = tree(*args, "--policy", policy, "--allow-simulated")
    assert (status, said["verdict"], said["appraised"], said["simulated"]) == (0, "accepted", True, True)
    assert len(said["claims"]) == 12
    status, said = tree(*args, "--policy", policy)
    assert (status, failed(said)) == (1, ["simulated"])
    text = policy.read_text()
    policy.write_text(text.replace('min_driver = "550.90.07"', 'min_driver = "580.0"'))
    status, said = tree(*args, "--policy", policy, "--allow-simulated")
    assert (status, failed(said)) == (1, ["min_driver"])
    table, fresh = text[text.index("[gpu]") : text.index("[session]")], 'freshness = "nonce"\n'
    policy.write_text(text.replace(table, "").replace(fresh, f'{fresh}gpu = "none"\n'))
    result = run(*args, "--policy", policy, "--allow-simulated")
    assert result.exit_code == 2
    assert "gpu: demands none" in result.stderr
