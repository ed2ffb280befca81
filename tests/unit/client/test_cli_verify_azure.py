"""`confide verify azure`: exit status, JSON, nonce, both kinds of hardware, and files of the wrong kind."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confide.cli.verify import verify

from tests.shared import shared_path
from tests.vectors.test_azure_policies import policy_text

FILES = {
    "hcl": "hcl_report.bin",
    "--tpm-quote": "tpm_quote.msg",
    "--tpm-signature": "tpm_quote.sig",
    "--pcrs": "pcrs_sha256.json",
}
SNP_FILES = {"--vek": "vcek.der", "--ask": "ask.der", "--ark": "ark.der"}
TDX_FILES = {"--td-quote": "td_quote.bin", "--collateral": "collateral.json"}


def arguments(name: str, **changes: Path | str | None) -> list[str]:
    """Every option of one folder's evidence; `changes` replaces or, with None, leaves out."""
    at = shared_path("evidence", "azure", name)
    expected = json.loads((at / "expected.json").read_text())
    files = FILES | (SNP_FILES if expected["tee"] == "snp" else TDX_FILES)
    values: dict[str, Any] = {option: at / file for option, file in files.items()}
    values |= {"--nonce": expected["tpm_nonce"], "--at": expected["now"]}
    values |= {
        option if option == "hcl" else "--" + option.replace("_", "-"): value for option, value in changes.items()
    }
    first = values.pop("hcl")
    return [str(first), *(str(each) for item in values.items() if item[1] is not None for each in item)]


def run(args: list[str]) -> Result:
    return CliRunner().invoke(verify, ["azure", *args])


def tree(args: list[str]) -> tuple[int, dict[str, Any]]:
    result = run([*args, "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("name", ["snp_milan_live", "tdx_live"])
def test_authentic_machine(name: str) -> None:
    """Exit 0; the text says that nothing was appraised, the JSON shows machine and PCRs."""
    result = run(arguments(name))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("authentic, NOT appraised")
    status, said = tree(arguments(name))
    assert (status, said["verdict"], said["appraised"], said["simulated"]) == (0, "authentic", False, False)
    assert said["claims"]["vtpm"]["console_enabled"] is True
    assert len(said["claims"]["pcrs"]) == 24
    outcomes = {check["id"]: check["outcome"] for check in said["checks"]}
    assert (outcomes["tpm_nonce"], outcomes["secure_boot"]) == ("PASS", "SKIP")


def test_refused_machine_exits_1_and_names_the_check() -> None:
    """Real but bad evidence, for its one reason."""
    result = run(arguments("tdx_sept_ve_off"))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "refused: sept_ve_disable"


@pytest.mark.parametrize("name", ["snp_milan_live", "tdx_live"])
def test_a_policy_judges_the_machine(name: str, tmp_path: Path) -> None:
    """Accepted by the values that it has; refused by name with another, and without a nonce."""
    policy = tmp_path / "policy.toml"
    policy.write_text(policy_text(name))
    status, said = tree([*arguments(name), "--policy", str(policy)])
    assert (status, said["verdict"], said["appraised"]) == (0, "accepted", True)
    status, said = tree([*arguments(name, nonce=None), "--policy", str(policy)])
    assert (status, said["verdict"]) == (1, "refused")
    pcr4 = said["claims"]["pcrs"]["pcr4"]
    policy.write_text(policy_text(name).replace(pcr4, "ab" * 32))
    result = run([*arguments(name), "--policy", str(policy)])
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "refused: pcr_values"


def test_without_a_nonce_the_transcript_says_what_was_not_judged() -> None:
    """Freshness is SKIP, in words."""
    result = run(arguments("snp_milan_live", nonce=None))
    assert result.exit_code == 0
    assert "SKIP tpm_nonce — no nonce was given: freshness was NOT judged" in result.stdout


def test_another_nonce_exits_1() -> None:
    """And an upper-case or spaced one is the same nonce."""
    assert run(arguments("snp_milan_live", nonce="00")).exit_code == 1
    nonce = arguments("snp_milan_live")[arguments("snp_milan_live").index("--nonce") + 1]
    assert run(arguments("snp_milan_live", nonce=nonce.upper())).exit_code == 0


@pytest.mark.parametrize("nonce", ["", "xyz", "0", "00" * 65])
def test_a_nonce_that_is_none_exits_2(nonce: str) -> None:
    """One line says what is expected."""
    result = run(arguments("snp_milan_live", nonce=nonce))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "--nonce" in result.stderr


def test_packaged_chain_will_do() -> None:
    """AMD's ASK and ARK may be left out."""
    assert run(arguments("snp_milan_live", ask=None, ark=None)).exit_code == 0


@pytest.mark.parametrize("changes", [{"vek": None}, {"vek": None, "ask": None, "ark": None}])
def test_missing_endorsements_exit_2_and_say_where_they_lie(changes: dict[str, str | None]) -> None:
    """One line: in the machine itself, at AMD's by the report's own chip and TCB; at Azure's for a TDX machine."""
    result = run(arguments("snp_milan_live", **changes))
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    for part in (
        "metadata/THIM/amd/certification",
        "kdsintf.amd.com/vcek/v1/Milan/",
        "confide endorsements import",
    ):
        assert part in result.stderr
    result = run(arguments("tdx_live", collateral=None))
    assert (result.exit_code, "tcb?fmspc=" in result.stderr) == (2, True)
    result = run(arguments("tdx_live", collateral=None, td_quote=None))
    assert (result.exit_code, "acc/tdquote" in result.stderr) == (2, True)


@pytest.mark.parametrize("changes", [{"td_quote": "x"}, {"collateral": "x"}])
def test_mixed_endorsements_exit_2(changes: dict[str, str | None]) -> None:
    """What vouches for AMD's hardware does not stand beside what vouches for Intel's."""
    result = run(arguments("snp_milan_live", **changes))
    assert (result.exit_code, "mixed" in result.stderr) == (2, True)


def test_every_file_in_the_place_of_every_other_is_one_line_and_exit_2() -> None:
    """What was expected and found is said of the file that is wrong."""
    for name, own in (("snp_milan_live", SNP_FILES), ("tdx_live", TDX_FILES)):
        at = shared_path("evidence", "azure", name)
        places = {
            "hcl": "hcl_report.bin",
            **{place: file for place, file in (FILES | own).items() if place != "hcl"},
        }
        for place, right in places.items():
            for file in {*places.values()} - {right}:
                if place in SNP_FILES and file in SNP_FILES.values():
                    continue  # a certificate for a certificate is judged, and refused
                changed = {place.removeprefix("--").replace("-", "_"): at / file}
                result = run(arguments(name, **changed))
                assert result.exit_code == 2, (place, file, result.stdout)
                assert len(result.stderr.splitlines()) == 1, (place, file, result.stderr)
                assert str(at / file) in result.stderr


def test_a_large_file_is_refused_by_its_size(tmp_path: Path) -> None:
    """Before it is read."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 30)
    for place in ("hcl", "tpm_quote", "tpm_signature", "pcrs", "vek"):
        result = run(arguments("snp_milan_live", **{place: large}))
        assert result.exit_code == 2
        assert "1073741824 bytes" in result.stderr
    assert run(arguments("snp_milan_live", hcl=tmp_path / "absent")).exit_code == 2
