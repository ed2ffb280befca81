"""A slice of the replay suite, and that it counts what does not come out again."""

from pathlib import Path

from confide_enclave.engine.card import EngineLimits

from tests.conformance import replay
from tests.conformance.crowd import crowd
from tests.conformance.replay import Tally
from tests.fakes import gguf


def test_a_slice_of_a_crowd_comes_out_again() -> None:
    """Every setting's share of 24 answers; `make conformance` runs a thousand."""
    tally = replay.replay_toy(24, elsewhere=False)
    assert tally.holes == {}
    assert tally.same == tally.answers >= 24
    assert 0 < tally.streamed < tally.answers
    assert 0 < tally.sampled < tally.answers


def test_an_answer_of_other_weights_is_a_hole(tmp_path: Path) -> None:
    """Signed by one model and run again on another: counted, and the line says less than all."""
    toy, other = tmp_path / "toy.gguf", tmp_path / "other.gguf"
    toy.write_bytes(gguf.toy_llama(5))
    other.write_bytes(gguf.toy_llama(6))
    run, tally = crowd(toy, "toy", EngineLimits(context_tokens=256), 4, seed=2), Tally()
    for receipt, checks in zip(run.receipts, replay.rerun_all(other, "toy", run, 1), strict=True):
        tally.count(receipt, checks)
    assert tally.same < tally.answers
    assert sum(tally.holes.values()) >= tally.answers - tally.same
    assert "100.0 %" not in tally.line("other weights", 0)
