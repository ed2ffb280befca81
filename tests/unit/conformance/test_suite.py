"""The mutation suite itself: whole coverage, a slice that our verifiers pass, and verifiers that fail it."""

import json
import shutil
import sys
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

from tests.conformance import Case, Field, Judged, Mutation, bundles, checks, simulated, uncovered
from tests.conformance.__main__ import main
from tests.conformance.command import arguments, fits
from tests.conformance.mutate import flips, mutations
from tests.conformance.score import percent, score
from tests.shared import shared_path

EVERY = 400
SNP = "confide verify snp {report} --vek {vek} [--ask {ask}] [--ark {ark}] [--crl {crl}] --at {now} --json"


@cache
def cases() -> tuple[Case, ...]:
    return (*simulated.cases(), *bundles.cases())


def case_of(kind: str) -> Case:
    return next(each for each in cases() if each.kind == kind)


def test_every_byte_belongs_to_one_field() -> None:
    """No byte of simulated evidence is undeclared, or declared twice."""
    for case in cases():
        for role, data in case.files.items():
            assert uncovered(case.layouts[role], len(data)) == [], (case.name, role)


def test_an_undeclared_byte_is_seen() -> None:
    """A gap, an overlap, a short end, a field without checks or reason."""
    good = (Field("a", 0, 4, checks("x")), Field("b", 4, 8, dont_care="why"))
    assert uncovered(good, 8) == []
    assert uncovered(good[1:], 8) == [(0, 4)]
    assert uncovered(good, 9) == [(8, 9)]
    assert uncovered((good[0], replace(good[1], start=3)), 8) == [(3, 4)]
    assert uncovered((good[0], replace(good[1], dont_care="")), 8) == [(4, 8)]


@pytest.mark.parametrize("kind", ["snp", "tdx", "nvidia", "azure", "eventlog", "nras", "bundle"])
def test_a_slice_of_the_suite_is_refused_by_name(kind: str) -> None:
    """Every 400th mutation of one case of each kind; `make conformance` judges all."""
    case = case_of(kind)
    others = [each for each in cases() if each.kind == kind and each is not case]
    found = score(case, islice(mutations(case, others, full=False), 0, None, EVERY))
    assert found.sound
    assert found.holes == {}
    assert found.made == found.good > 0


def test_a_lax_verifier_scores_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that accepts everything is refused nothing, and the suite fails."""
    true = shutil.which("true")
    assert true
    lax = ["--kind", "snp", "--every", "200", "--command", f"{true} {{report}} {{vek}} {{root}}"]
    output = tmp_path / "scores.json"
    assert main([*lax, "--output", str(output)]) == 1
    assert {each["case"].split("/")[0] for each in json.loads(output.read_text())} == {"snp"}
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert ", 0 refused, 0 with the named reason: 0.0 %" in last


def test_a_refusal_for_another_reason_is_a_hole() -> None:
    """Refusing everything is no verifier: the evidence itself has to be accepted, and reasons have to fit."""
    case = case_of("snp")
    few = list(islice(mutations(case, [], full=False), 3))
    strict = score(case, few, lambda files, now, nonce: Judged(True, frozenset({"report_size"})))
    assert (strict.sound, strict.good) == (False, 0)
    blind = score(case, few, lambda files, now, nonce: Judged(files != case.files, frozenset({"crl_age"})))
    assert (blind.sound, sum(blind.refused.values()), blind.good) == (True, 3, 0)


def test_what_was_not_signed_may_not_be_believed() -> None:
    """A byte that may be changed may not change what is claimed."""
    case = case_of("tdx")
    given = {"quote": case.files["quote"] + b"\0"}
    told = Mutation("flip", "padding", given, dont_care="padding")

    def gullible(files: dict[str, bytes], now: int, nonce: bytes) -> Judged:
        return Judged(False, frozenset(), {"cpu0": {"size": len(files["quote"])}})

    assert sum(score(case, [told], gullible).holes.values()) == 1  # type: ignore[arg-type]


def test_flips_are_the_same_in_every_run() -> None:
    """Small fields bit by bit, long ones by one bit a byte; `full` is all; letters of hex keep their case."""
    data = bytes(20) + b"aF" * 10
    layout = (
        Field("small", 0, 8, checks("x")),
        Field("long", 8, 20, checks("x")),
        Field("hex", 20, 40, checks("x"), hex_text=True),
    )
    chosen = [bit for _, bit in flips(data, layout, full=False)]
    assert chosen == [bit for _, bit in flips(data, layout, full=False)]
    assert chosen[:64] == list(range(64))
    assert len(chosen) == 64 + 12 + 20
    whole = {bit for _, bit in flips(data, layout, full=True)}
    assert len(whole) == 8 * 40 - 20
    assert not any(bit % 8 == 5 for bit in whole if bit >= 160)


def test_commands_are_filled_in() -> None:
    """A group in brackets goes with its file; a file that is absent elsewhere is an empty one."""
    words, paths = {"now": "7"}, {"empty": "/e", "report": "/r", "vek": "/v"}
    filled = arguments("judge {report} [--crl {crl}] [--vek {vek}] --ask {ask} --at {now}", words, paths)
    assert filled == ["judge", "/r", "--vek", "/v", "--ask", "/e", "--at", "7"]
    assert not fits("judge {report} {vek}", case_of("snp"))
    assert fits("judge {report} {vek} {root}", case_of("snp"))
    assert not fits("judge {report} {root}", case_of("tdx"))


def test_our_own_command_line_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """The suite asks `confide verify snp` as it would ask another verifier."""
    shared_path("evidence", "snp", "turin_v5_vcek_ms")
    command = SNP.replace("confide", str(Path(sys.executable).with_name("confide")), 1)
    given = ["--case", "turin_v5_vcek_ms", "--every", "900", "--json", "--command", command]
    assert main(given) == 0, capsys.readouterr().out
    assert "100.0 %" in capsys.readouterr().out


def test_a_percentage_is_never_rounded_up() -> None:
    """One hole in a million is not 100 %."""
    assert percent(999_999, 1_000_000) == "99.9 %"
    assert percent(10, 10) == "100.0 %"
    assert percent(0, 0) == "-"
