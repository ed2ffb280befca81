"""`confide verify eventlog`: exit status, JSON, what is said of the quote, and files of the wrong kind."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confide.cli.verify import verify

from tests.shared import shared_path

DSTACK = "dstack_quote_report_json__20260305"
CCEL = "go_tdx_guest_ccel_cos_113_tdx_quote_dat__20250626"
LOGS = {DSTACK: "getquote.json", CCEL: "ccel_data.dat"}


def folder(name: str) -> Path:
    return shared_path("evidence", "tdx", name)


def run(log: Path, quote: Path, *more: str | Path | int) -> Result:
    return CliRunner().invoke(verify, ["eventlog", *map(str, (log, "--quote", quote, *more))])


def judged(name: str) -> tuple[str | Path | int, ...]:
    expected = json.loads((folder(name) / "expected.json").read_text())
    return "--collateral", folder(name) / "collateral.json", "--at", expected["now"]


def tree(result: Result) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(result.stdout)
    return said


@pytest.mark.parametrize("name", LOGS)
def test_a_log_that_fits_exits_0_and_says_that_the_quote_was_not_judged(name: str) -> None:
    """Without collateral nobody vouches for the quote: the last lines say so."""
    result = run(folder(name) / LOGS[name], folder(name) / "quote.bin")
    assert result.exit_code == 0
    note, verdict = result.stdout.splitlines()[-2:]
    assert verdict.startswith("authentic, NOT appraised")
    assert note.startswith("not shown: whose quote it is")


@pytest.mark.parametrize("name", LOGS)
def test_with_collateral_the_quote_is_judged_too(name: str) -> None:
    """The checks of the quote come first, and the JSON has the events."""
    at = folder(name)
    result = run(at / LOGS[name], at / "quote.bin", *judged(name))
    assert result.exit_code == 0
    assert "whose quote it is" not in result.stdout
    said = tree(run(at / LOGS[name], at / "quote.bin", *judged(name), "--json"))
    assert (said["verdict"], said["claims"]["event_log"]["quote_judged"]) == ("authentic", True)
    assert said["claims"]["cpu0"]
    assert said["claims"]["events"]


def test_collateral_out_of_its_time_is_refused() -> None:
    """The log fits, and the quote is refused at today's clock."""
    at = folder(DSTACK)
    result = run(
        at / "getquote.json", at / "quote.bin", "--collateral", at / "collateral.json", "--at", 1_900_000_000
    )
    assert result.exit_code == 1
    assert "log_quote_unjudged" in result.stdout.splitlines()[-1]


def test_the_quote_of_another_machine_is_refused() -> None:
    """Each register that differs is named."""
    result = run(folder(DSTACK) / "getquote.json", folder(CCEL) / "quote.bin", "--json")
    assert result.exit_code == 1
    failed = {check["id"] for check in tree(result)["checks"] if check["outcome"] == "FAIL"}
    assert {"log_quote_mismatch", "rtmr0_replay_mismatch", "rtmr3_replay_mismatch"} <= failed
    assert tree(result)["claims"] == {}


def test_an_event_list_alone_is_judged(tmp_path: Path) -> None:
    """The list out of dstack's answer, as a list and as an object with it."""
    listed = json.loads(json.loads((folder(DSTACK) / "getquote.json").read_text())["event_log"])
    for form in (listed, {"event_log": listed}):
        (tmp_path / "log.json").write_text(json.dumps(form))
        assert run(tmp_path / "log.json", folder(DSTACK) / "quote.bin").exit_code == 0
    (tmp_path / "log.json").write_text(json.dumps(listed[:-1]))
    assert run(tmp_path / "log.json", folder(DSTACK) / "quote.bin").exit_code == 1


@pytest.mark.parametrize("name", LOGS)
def test_every_file_in_the_place_of_every_other_is_one_line_and_exit_2(name: str) -> None:
    """What was expected is said of the file that is wrong."""
    at = folder(name)
    log, quote, collateral = at / LOGS[name], at / "quote.bin", at / "collateral.json"
    for args, wrong in (
        ((quote, quote), quote),
        ((collateral, quote), collateral),
        ((log, log), log),
        ((log, collateral), collateral),
        ((log, quote, "--collateral", quote), quote),
        ((log, quote, "--collateral", log), log),
        ((at / "expected.json", quote), at / "expected.json"),
    ):
        result = run(*args)
        assert result.exit_code == 2, args
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert str(wrong) in result.stderr


def test_a_large_file_is_refused_by_its_size(tmp_path: Path) -> None:
    """Before it is read."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    at = folder(DSTACK)
    for args in ((tmp_path / "large", at / "quote.bin"), (at / "getquote.json", tmp_path / "large")):
        result = run(*args)
        assert result.exit_code == 2
        assert "1073741824 bytes" in result.stderr
