"""`confide verify tdx`: exit status, JSON, times, and files of the wrong kind."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confide.cli.verify import verify
from confide_attestation.simulated.intel import SimulatedIntel

from tests.shared import shared_path

AT = "1772707803"
NAMES = "go_tdx_guest_quote_v5_sample_dat__20260305", "automata_quotev4_hex__20250626"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(verify, ["tdx", *map(str, args)])


def tree(*args: str | Path) -> tuple[int, dict[str, Any]]:
    result = run(*args, "--json")
    return result.exit_code, json.loads(result.stdout)


def folder(name: str) -> tuple[Path, ...]:
    at = shared_path("evidence", "tdx", name)
    return at / "quote.bin", Path("--collateral"), at / "collateral.json"


def genuine() -> tuple[Path | str, ...]:
    return (*folder(NAMES[0]), "--at", AT)


def test_authentic_quote_exits_0() -> None:
    """The text says that nothing was appraised, and the JSON too."""
    result = run(*genuine())
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("authentic, NOT appraised")
    status, said = tree(*genuine())
    assert (status, said["verdict"], said["appraised"], said["simulated"]) == (0, "authentic", False, False)
    assert said["claims"]["cpu0"]["tcb_status"] == "UpToDate"
    assert all(set(check) == {"id", "outcome", "detail"} for check in said["checks"])


def test_out_of_date_exits_1_and_says_what_to_update() -> None:
    """A status other than UpToDate is a refusal where there is no policy."""
    status, said = tree(*folder(NAMES[1]), "--at", "1750975922")
    (check,) = (check for check in said["checks"] if check["outcome"] == "FAIL")
    assert (status, said["verdict"], check["id"]) == (1, "refused", "tcb_status_denied")
    assert "1 short" in check["detail"]


def test_the_clock_counts_where_no_time_is_given() -> None:
    """Documents of March 2026 have ended."""
    result = run(*folder(NAMES[0]))
    assert result.exit_code == 1
    assert "tcb_info_expired" in result.stdout.splitlines()[-1]


def test_simulated_hardware_has_no_way_in(tmp_path: Path) -> None:
    """A root of one's own making does not help, and no option takes one."""
    intel = SimulatedIntel.make(int(AT))
    (tmp_path / "quote").write_bytes(intel.sign_quote(bytes(64)))
    (tmp_path / "collateral").write_bytes(intel.collateral())
    status, said = tree(tmp_path / "quote", "--collateral", tmp_path / "collateral", "--at", AT)
    assert (status, said["claims"]) == (1, {})
    assert "root_untrusted" in {check["id"] for check in said["checks"] if check["outcome"] == "FAIL"}


def test_missing_collateral_is_said_with_its_addresses() -> None:
    """Exit 2, and where Intel has each document of this platform."""
    result = run(genuine()[0])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    for address in ("tcb?fmspc=90C06F000000", "qe/identity", "pckcrl?ca=platform", "IntelSGXRootCA.der"):
        assert address in result.stderr


def test_sampled_flips_never_exit_0(tmp_path: Path) -> None:
    """Forty bits through the command line; every byte is tried in tests/vectors."""
    quote, *rest = genuine()
    data = Path(quote).read_bytes()
    for bit in random.Random(2).sample(range(8 * len(data)), 40):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "quote").write_bytes(changed)
        assert run(tmp_path / "quote", *rest).exit_code in (1, 2)


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_file_of_another_kind_exits_2_with_one_line(tmp_path: Path, json_flag: list[str]) -> None:
    """Swapped, empty, huge, absent, cut and hexadecimal files are named in one line."""
    quote, _, collateral = folder(NAMES[0])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "hex").write_bytes(quote.read_bytes().hex().encode())
    (tmp_path / "cut").write_bytes(quote.read_bytes()[:4000])
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 30)
    snp = shared_path("evidence", "snp", "genoa_v3_vcek_ms")
    for given, documents, named in (
        (collateral, collateral, collateral),
        (quote, quote, quote),
        (tmp_path / "empty", collateral, "empty"),
        (tmp_path / "hex", collateral, "hexadecimal text"),
        (tmp_path / "cut", collateral, "cut"),
        (tmp_path / "huge", collateral, "huge"),
        (quote, tmp_path / "huge", "huge"),
        (quote, tmp_path / "empty", "empty"),
        (tmp_path / "none", collateral, "none"),
        (snp / "report.bin", collateral, "report.bin"),
        (snp / "vek.der", collateral, "DER"),
        (quote, snp / "vek.der", "vek.der"),
        (quote, snp / "expected.json", "QuoteCollateralV3"),
    ):
        result = run(given, "--collateral", documents, "--at", AT, *json_flag)
        assert result.exit_code == 2, named
        assert str(named) in result.stderr
        assert len(result.stderr.splitlines()) == 1
        if json_flag and result.stdout:
            assert json.loads(result.stdout)["verdict"] == "unreadable"
