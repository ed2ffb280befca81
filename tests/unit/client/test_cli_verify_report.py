"""`confide verify report`: forms, exit status, what is missing and where it lies, what is not shown."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confide.cli.verify import verify

from tests.fakes.provider import NONCE, NOW, Provider
from tests.shared import shared_path

DSTACK = "dstack_quote_report_json__20260305"


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider()


@pytest.fixture
def written(provider: Provider, tmp_path: Path) -> Path:
    """Write a simulated provider's reports, its collateral and manifests."""
    (tmp_path / "dstack.json").write_text(json.dumps(provider.dstack()))
    (tmp_path / "tinfoil.json").write_text(json.dumps(provider.tinfoil()))
    (tmp_path / "collateral.json").write_bytes(provider.intel.collateral())
    for number, rim in enumerate(provider.gpu.rims):
        (tmp_path / f"rim{number}.xml").write_bytes(rim)
    return tmp_path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(verify, ["report", *map(str, args)])


def real_report(tmp_path: Path, **fields: Any) -> tuple[Path, ...]:
    at = shared_path("evidence", "tdx", DSTACK)
    given = json.loads((at / "getquote.json").read_text())
    tree = {
        "intel_quote": given["quote"],
        "event_log": given["event_log"],
        "signing_address": "0x" + "12" * 20,
        **fields,
    }
    (tmp_path / "report.json").write_text(json.dumps(tree))
    now = json.loads((at / "expected.json").read_text())["now"]
    return tmp_path / "report.json", Path("--collateral"), at / "collateral.json", Path("--at"), Path(str(now))


def rims(at: Path) -> list[str | Path]:
    return [item for path in sorted(at.glob("rim*.xml")) for item in ("--rim", path)]


@pytest.mark.parametrize("name", ["dstack.json", "tinfoil.json"])
def test_simulated_hardware_has_no_way_in(written: Path, name: str) -> None:
    """A whole report under roots of one's own is refused by both vendors' roots."""
    options: list[str | Path] = [
        "--collateral",
        written / "collateral.json",
        "--nonce",
        NONCE.hex(),
        "--at",
        str(NOW),
        "--json",
    ]
    result = run(written / name, *rims(written), *options)
    said = json.loads(result.stdout)
    failed = {check["id"] for check in said["checks"] if check["outcome"] == "FAIL"}
    assert (result.exit_code, said["verdict"], said["simulated"]) == (1, "refused", False)
    assert {"root_untrusted", "device_root_pin"} <= failed
    assert "provider" not in said["claims"]


def test_real_quote_and_log_of_dstack_are_judged(tmp_path: Path) -> None:
    """The quote and the log hold; the address is not the one that the quote is bound to."""
    report, *options = real_report(tmp_path, request_nonce="00" * 32)
    result = run(report, *options, "--no-gpu")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "refused: provider_signing_address, provider_app_compose"
    assert "PASS provider_nonce_bound" in result.stdout
    assert "PASS quote_signature" in result.stdout
    without = run(report, *options)
    assert without.stdout.splitlines()[-1].endswith("provider_gpu_evidence, provider_app_compose")


def test_version_2_of_tinfoil_on_real_amd_hardware(tmp_path: Path) -> None:
    """What it does not show is said; the VCEK is the document's own, or the one given."""
    at = shared_path("evidence", "snp", "milan_v3_vcek_ms")
    body = base64.b64encode(gzip.compress((at / "report.bin").read_bytes())).decode()
    tree = {"format": "https://tinfoil.sh/predicate/sev-snp-guest/v2", "body": body}
    (tmp_path / "tinfoil.json").write_text(json.dumps(tree))
    options = ["--at", "1775437473"]
    missing = run(tmp_path / "tinfoil.json", *options)
    assert (missing.exit_code, len(missing.stderr.splitlines())) == (2, 1)
    assert "https://kdsintf.amd.com/vcek/v1/Milan/" in missing.stderr
    result = run(tmp_path / "tinfoil.json", "--vek", at / "vek.der", *options)
    assert result.exit_code in (0, 1)
    assert "PASS report_sig" in result.stdout
    (tmp_path / "tinfoil.json").write_text(
        json.dumps(tree | {"vcek": base64.b64encode((at / "vek.der").read_bytes()).decode()})
    )
    assert run(tmp_path / "tinfoil.json", *options).stdout == result.stdout
    asked = run(tmp_path / "tinfoil.json", *options, "--nonce", NONCE.hex())
    assert "provider_challenge" in asked.stdout.splitlines()[-1]


def test_missing_collateral_is_said_with_its_addresses(written: Path) -> None:
    """One line, exit 2."""
    result = run(written / "dstack.json")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "tcb?fmspc=" in result.stderr
    assert "confide endorsements import" in result.stderr


def test_several_reports_need_a_choice(provider: Provider, written: Path) -> None:
    """The names are listed; the chosen one is judged."""
    tree = {"gateway_attestation": provider.dstack(), "model_attestations": [provider.dstack(request_nonce=None)]}
    (written / "cloud.json").write_text(json.dumps(tree))
    options: list[str | Path] = ["--collateral", written / "collateral.json", "--at", str(NOW)]
    result = run(written / "cloud.json", *options)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "--which: gateway, model0" in result.stderr
    assert run(written / "cloud.json", *options, "--which", "model7").exit_code == 2
    assert run(written / "cloud.json", *options, "--which", "gateway").exit_code == 1


@pytest.mark.parametrize("option", [["--nonce", "00"], ["--nonce", "x" * 64], ["--tls-key", "00" * 20]])
def test_bad_options_exit_2(written: Path, option: list[str]) -> None:
    """One line names the option."""
    result = run(written / "dstack.json", *option)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert option[0] in result.stderr
