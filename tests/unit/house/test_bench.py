"""The harness of `make bench`: what a row means, what is written, what a broken measurement does."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.bench import Row, __main__, absent, client, ours, versus
from tests.bench.subjects import Script, running
from tests.bench.timing import interleaved_us
from tests.bench.turns import in_turns_us, starting


def test_a_ratio_above_one_means_that_ours_is_better() -> None:
    """Rates are ours/peer, times peer/ours, and against direct it is always ours/direct."""
    assert versus("a", 10.0, "requests/s", "httpx", 5.0).ratio == 2.0
    assert versus("a", 10.0, "us", "httpx", 5.0).ratio == 0.5
    assert versus("a", 10.0, "us", "direct", 5.0).ratio == 2.0
    assert versus("a", 10.0, "requests/s", "direct", 20.0).ratio == 0.5


def test_rows_have_fixed_keys() -> None:
    """A reason stands only where a peer could not be measured."""
    keys = ["name", "value", "unit", "against", "ratio"]
    assert list(ours("a", 1.0, "us").as_json()) == keys
    assert absent("a", "us", "hpke_http", "no wheel").as_json() == {
        "name": "a",
        "value": None,
        "unit": "us",
        "against": "hpke_http",
        "ratio": None,
        "reason": "no wheel",
    }


def test_the_table_shows_the_peers_own_figure() -> None:
    """It is worked out from the ratio, in each of its senses."""
    rows = [
        versus("rate", 10.0, "requests/s", "httpx", 5.0),
        versus("time", 10.0, "us", "direct", 4.0),
        absent("gone", "us", "hpke_http", "no wheel"),
    ]
    assert [__main__.theirs(row) for row in rows] == [5.0, 4.0, None]
    lines = __main__.table(rows).splitlines()
    assert len(lines) == 4
    assert lines[-1].endswith("no wheel")


def test_the_harness_finds_its_modules() -> None:
    """Every module with rows() takes part, and helpers do not."""
    names = __main__.modules()
    assert {"crypto", "sealed_http"} <= set(names)
    assert not {"timing", "subjects", "sealed_server"} & set(names)


def test_a_broken_measurement_does_not_take_the_others_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file holds what was measured, the exit status says that something was not."""

    def broken(quick: bool) -> list[Row]:
        raise RuntimeError("no")

    parts = {
        "good": SimpleNamespace(
            rows=lambda quick: [ours("a", 1.0, "us")], peer_rows=lambda quick: [ours("p", 1, "us")]
        ),
        "bad": SimpleNamespace(rows=broken),
    }
    monkeypatch.setattr(__main__, "modules", lambda: list(parts))
    monkeypatch.setattr(__main__.importlib, "import_module", lambda name: parts[name.rpartition(".")[2]])
    output = tmp_path / "build" / "bench.json"
    assert __main__.main(["--no-peers", "--quick", "--output", str(output)]) == 1
    assert [row["name"] for row in json.loads(output.read_text())] == ["a"]
    shown = capsys.readouterr()
    assert "bad.rows" in shown.err
    assert "machine: " in shown.out
    assert __main__.main(["--only", "good", "--output", str(output)]) == 0
    assert [row["name"] for row in json.loads(output.read_text())] == ["a", "p"]


def test_an_unknown_measurement_is_refused_by_name() -> None:
    """--only with a name that is none ends with exit status 2."""
    with pytest.raises(SystemExit) as fault:
        __main__.main(["--only", "nothing"])
    assert fault.value.code == 2


def test_works_are_timed_in_turns() -> None:
    """Each round meets every work, so that other load on the machine meets all alike."""
    seen: list[str] = []
    interleaved_us({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=2, calls=1)
    assert seen == ["a", "b"] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads the servers' CPU clocks from /proc")
@pytest.mark.parametrize("variant", ["sealed", "bucketed", "sealing", "plain", "plain_app"])
def test_every_subject_still_runs(variant: str) -> None:
    """Each of our own servers starts, and answers one request and one stream of its driver."""
    script = Script(variant, (sys.executable, "-m", "tests.bench.sealed_server", variant))
    with running([script]) as (subjects, reasons):
        assert reasons == {}
        assert subjects[variant].cpu_us("request", 1) >= 0
        assert subjects[variant].cpu_us("stream", 1) >= 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory from /proc")
def test_our_client_still_runs(tmp_path: Path) -> None:
    """A request, a burst and a paced stream, in clear and sealed, against the server with live evidence."""
    with client.our_server(tmp_path) as ready:
        family = client.Client("ours", client.OURS, {**ready, "shape": "bucketed"})
        with family.ready_for_pairs() as process:
            for kind in client.COUNTS:
                samples = family.pairs(process, kind, 1)
                assert {name: len(taken) for name, taken in samples.items()} == {"plain": 1, "sealed": 1}
        assert set(family.once("first")) == {"plain", "import", "sealed"}
        assert family.once("memory", "sealed") > 10_000_000


def test_a_row_may_say_what_was_judged() -> None:
    """The name of the evidence stands in the file and at the end of the table's line."""
    row = replace(ours("a", 1.0, "ms"), evidence="snp/simulated")
    assert row.as_json()["evidence"] == "snp/simulated"
    assert __main__.table([row]).splitlines()[-1].endswith("snp/simulated")


def test_a_peer_takes_its_turns(tmp_path: Path) -> None:
    """It works as often as it is told, and one that breaks is named and left out from then on."""
    script = tmp_path / "peer.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(PEERS)!r})\n" + PEER)
    with starting(Script("good", (sys.executable, str(script))), tmp_path) as peer:
        broken: dict[str, str] = {}
        taken = in_turns_us({"ours": lambda: None}, {"good": peer}, rounds=2, calls=3, broken=broken)
        assert (set(taken), broken) == ({"ours", "good"}, {})
        taken = in_turns_us({"ours": lambda: None}, {"good": peer}, rounds=1, calls=100, broken=broken)
        assert (set(taken), set(broken)) == ({"ours"}, {"good"})


PEERS = Path(__main__.__file__).parent / "peers"
PEER = """\
from turns import take_turns
count = 0
def work():
    global count
    count += 1
    print("noise")
    assert count < 20
take_turns(work)
"""
