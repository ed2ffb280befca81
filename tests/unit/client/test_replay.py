"""What counts as the same answer: everything that is said, however it was cut; no ids, no times."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confide import replay
from confide.audit import transcribe
from confide.cli import main
from confide.replay import check_rerun, compare, find_replayer
from confide.session import Disclosure
from confide_attestation.result import Check, Outcome
from confide_protocol.errors import ConfigError
from confide_protocol.receipt import ReceiptClaims

from tests.fakes.peer import DONE, EVENTS, JSON
from tests.fakes.receipts import CLAIMS
from tests.unit.client.test_audit import one_exchange, outcomes


def event(tree: Any) -> bytes:
    return b"data: " + json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def streamed(
    *texts: str, id: str = "a", finish: str = "stop", tokens: int = 7, logprob: float = -0.5
) -> list[bytes]:
    """A chat stream in the enclave's form."""

    def chunk(**choice: Any) -> bytes:
        choices = [{"index": 0, "logprobs": None, "finish_reason": None, **choice}]
        return event({"id": id, "created": len(id), "model": "m", "choices": choices, "usage": None})

    parts = [
        chunk(delta={"content": text}, logprobs={"content": [{"token": c, "logprob": logprob} for c in text]})
        for text in texts
    ]
    usage = event({"id": id, "created": 1, "model": "m", "choices": [], "usage": {"total_tokens": tokens}})
    return [*parts, chunk(delta={}, finish_reason=finish), usage, DONE]


def whole(text: str, *, id: str = "a", **choice: Any) -> list[bytes]:
    choices = [{"index": 0, "message": {"content": text}, **choice}]
    return [json.dumps({"id": id, "choices": choices}, separators=(",", ":"), ensure_ascii=False).encode()]


def signed(response: list[bytes], content_type: str) -> tuple[ReceiptClaims, Disclosure]:
    said = Disclosure("POST", "/v1/chat/completions", b"{}", 200, content_type, tuple(response), b"\1" * 32)
    digests, _ = transcribe(said)
    return replace(CLAIMS, transcript_root=digests.root, response_commitment=digests.commitment), said


def judged(old: list[bytes], new: list[bytes], content_type: str = EVENTS, status: int = 200) -> dict[str, str]:
    claims, said = signed(old, content_type)
    checks = compare(claims, said, (status, content_type, tuple(new)))
    return {check.id: check.outcome.value for check in checks}


SAME = {"rerun_answer": "PASS", "rerun_transcript": "PASS"}
RECUT = {"rerun_answer": "PASS", "rerun_transcript": "SKIP"}
OTHER = {"rerun_answer": "FAIL"}


def test_ids_and_times_are_other_ones_each_time() -> None:
    """With the signed ids in place of the new ones, the signed transcript root comes out."""
    assert judged(streamed("Pa", "ris é"), streamed("Pa", "ris é", id="bcd")) == SAME
    assert judged(whole("Paris"), whole("Paris", id="b"), JSON) == SAME


def test_how_a_stream_is_cut_says_nothing() -> None:
    """Texts and log-probabilities are joined over the events of a choice."""
    assert judged(streamed("Pa", "ris"), streamed("P", "ari", "s", id="b")) == RECUT
    assert judged(streamed("Pa", "ris"), streamed("P", "aris", id="b")) == RECUT


@pytest.mark.parametrize(
    "change", [{"finish": "length"}, {"tokens": 8}, {"logprob": -0.25}], ids=lambda change: next(iter(change))
)
def test_what_is_said_beside_the_text_counts(change: dict[str, Any]) -> None:
    """Finish reasons, token counts and log-probabilities differ: not the same answer."""
    assert judged(streamed("Paris"), streamed("Paris", **change)) == OTHER


def test_other_answers_fail() -> None:
    """Other text, status, kind of body, number of choices, or no JSON at all."""
    claims, said = signed(streamed("Paris"), EVENTS)
    (check,) = compare(claims, said, (200, EVENTS, tuple(streamed("Pa", "rma"))))
    assert check.detail == "message 0 comes out otherwise from its byte 3 on"
    assert judged(streamed("Paris"), streamed("Paris"), status=201) == OTHER
    assert judged(whole("Paris"), whole("Paris", finish_reason="stop"), JSON) == OTHER
    assert judged(whole("Paris"), [b"{"], JSON) == OTHER
    assert judged(streamed("Paris"), [DONE]) == OTHER
    assert judged(streamed("Paris"), streamed("Paris")[:-1]) == OTHER
    assert judged(streamed("Paris"), [*streamed("Paris"), b": x\n\n"]) == OTHER
    assert judged([b"plain"], [b"plain"], "text/plain") == SAME
    assert judged([b"plain"], [b"plane"], "text/plain") == OTHER


def test_calls_and_many_choices_are_joined_by_their_numbers() -> None:
    """Choices may interleave; a call's arguments grow under the call's own index."""

    def call(index: int, text: str, id: str | None = None) -> dict[str, Any]:
        return {"index": index, "id": id, "function": {"arguments": text}}

    def part(choice: int, *calls: dict[str, Any]) -> bytes:
        return event({"choices": [{"index": choice, "delta": {"tool_calls": list(calls)}}]})

    old = [
        part(0, call(0, "{", "x")),
        part(0, call(0, "}")),
        part(1, call(0, "a", "y")),
        part(1, call(1, "b", "z")),
    ]
    new = [part(1, call(0, "a", "p")), part(0, call(0, "{}", "q")), part(1, call(1, "b", "r"))]
    swapped = [part(1, call(1, "a", "p")), part(0, call(0, "{}", "q")), part(1, call(0, "b", "r"))]
    assert judged(old, new) == RECUT
    assert judged(old, swapped) == OTHER


def test_typed_events_are_joined_by_their_place() -> None:
    """Events of /v1/responses: deltas grow for each type and place; sequence numbers are counted, not said."""

    def delta(text: str, number: int, place: int = 0) -> bytes:
        kind = "response.output_text.delta"
        tree = {"type": kind, "output_index": place, "item_id": "x", "delta": text, "sequence_number": number}
        return b"event: " + kind.encode() + b"\n" + event(tree)

    end = event({"type": "response.completed", "response": {"id": "x", "usage": {"total_tokens": 3}}})
    assert judged([delta("Pa", 1), delta("ris", 2), end], [delta("Paris", 1), end]) == RECUT
    assert judged([delta("Pa", 1), delta("ris", 2), end], [delta("Pa", 5), delta("ris", 6), end]) == SAME
    assert judged([delta("Paris", 1), end], [delta("Paris", 1, place=1), end]) == OTHER


@pytest.mark.parametrize(
    "odd", [[], [None], [{"index": []}], {"index": 1}, "x", 1, [[{"index": 0}]], [{"index": 0}, 1]]
)
def test_odd_objects_are_compared_all_the_same(odd: Any) -> None:
    """No form of an object breaks the comparison."""
    for name in ("delta", "type", "logprobs"):
        twice = [event({name: odd}), event({name: odd, "index": 1})]
        assert judged(twice, twice) == SAME
        assert judged(twice, [*twice, event({name: "more"})])["rerun_answer"] == "FAIL"


def test_the_replayer_is_asked_once_the_words_are_the_receipts() -> None:
    """Undisclosed words are refused by name; words that do not fit are not re-run."""
    kept = one_exchange()
    asked = []

    def rerun(*arguments: Any) -> list[Check]:
        asked.append(arguments)
        return [Check("rerun_answer", Outcome.PASS, "")]

    assert outcomes(kept, rerun=rerun)["rerun_answer"] == "PASS"
    assert len(asked) == 1
    assert asked[0][2] is kept.exchange
    found = outcomes(replace(kept, exchange=None), rerun=rerun)
    assert (found["rerun_answer"], found["holds"]) == ("FAIL", False)
    assert kept.exchange is not None
    changed = replace(kept, exchange=replace(kept.exchange, request_body=b"{}"))
    assert outcomes(changed, rerun=rerun)["rerun_answer"] == "SKIP"
    assert len(asked) == 1


def test_what_did_not_run_is_said() -> None:
    """Checks that failed before the run leave the answer as SKIP; a refusal's own verdict stands alone."""
    claims, said = signed(streamed("Paris"), EVENTS)
    for given in ((Check("rerun_weights", Outcome.FAIL, ""),), (Check("rerun_answer", Outcome.FAIL, "refused"),)):
        found = check_rerun(lambda *_, given=given, **__: (given, None), None, claims, said, weights=Path("w"))
        assert found[0] == given[0]
        assert [(c.id, c.outcome.value) for c in found[1:]] == (
            [("rerun_answer", "SKIP")] if len(found) > 1 else []
        )


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch, or without the enclave's package, the remedy is one line."""
    monkeypatch.setitem(sys.modules, "confide_enclave.replay", None)
    with pytest.raises(
        ConfigError, match=r"confide_enclave.replay: is missing; run: pip install 'confide\[enclave\]'"
    ):
        find_replayer()
    monkeypatch.setattr(replay, "entry_points", lambda group: ())
    with pytest.raises(ConfigError, match="the enclave package: is missing"):
        find_replayer()


def test_the_command_takes_rerun_and_weights_together(tmp_path: Path) -> None:
    """One without the other is a wrong setting, exit 2."""
    kept = tmp_path / "kept"
    kept.write_bytes(one_exchange().encoded)
    for options in (["--rerun"], ["--weights", "x"]):
        result = CliRunner().invoke(main, ["audit", str(kept), "--allow-simulated", *options])
        assert result.exit_code == 2
        assert "--weights" in result.stderr
