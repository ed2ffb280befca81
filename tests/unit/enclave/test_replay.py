"""Running a signed answer again: what is checked before, and what of the receipt must fit the request."""

import json
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from confide.replay import REPLAY_GROUP, check_rerun, compare
from confide.session import Receipt
from confide_enclave import replay as module
from confide_enclave.api.routes import PATH_COMPLETIONS
from confide_enclave.engine.card import EngineLimits
from confide_enclave.manifest import fingerprint
from confide_enclave.replay import replay
from confide_protocol.errors import ConfigError

from tests.conformance.crowd import Run, crowd
from tests.fakes import gguf as fake

LIMITS = EngineLimits(context_tokens=256, max_sequences=4, prefill_chunk_tokens=8, threads=1)


@cache
def weights(seed: int = 5) -> Path:
    path = Path(mkdtemp()) / "toy.gguf"
    path.write_bytes(fake.toy_llama(seed))
    return path


@cache
def run() -> Run:
    return crowd(weights(), "toy", LIMITS, 8, seed=1)


@cache
def one() -> Receipt:
    """Of a request that may name a seed, whichever answers came first."""
    found = [each for each in run().receipts if each.disclosure.path == PATH_COMPLETIONS]
    return min(found, key=lambda each: each.disclosure.request_body)


def judged(
    *,
    manifest: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
    request: dict[str, Any] | None = None,
    path: Path | None = None,
    **claims: Any,
) -> dict[str, str]:
    """Re-run an answer with something changed; return the outcome of each check."""
    receipt = one()
    stated = replace(run().manifest, **(manifest or {}))
    stated = replace(stated, engine={**stated.engine, **(engine or {})})
    # An answer names its manifest, so another manifest's enclave would have named that.
    old, new = (fingerprint(each).encode() for each in (run().manifest, stated))
    response = tuple(part.replace(old, new) for part in receipt.disclosure.response)
    said = replace(receipt.disclosure, response=response, **(request or {}))
    checks = check_rerun(
        replay, stated, replace(receipt.claims, **claims), said, weights=path or weights(), threads=2
    )
    return {check.id: check.outcome.value for check in checks}


PASSED = ["rerun_mode", "rerun_manifest", "rerun_release", "rerun_weights", "rerun_sampling", "rerun_counts"]


def test_a_signed_answer_comes_out_again() -> None:
    """Every check passes, with another batch and another number of threads; the entry point is this function."""
    assert judged() == dict.fromkeys([*PASSED, "rerun_answer", "rerun_transcript"], "PASS")
    (entry,) = entry_points(group=REPLAY_GROUP)
    assert entry.load() is replay


def left_open() -> dict[str, Any]:
    """The request without the parameters that an operator may have a default for."""
    body = json.loads(one().disclosure.request_body)
    left = {name: value for name, value in body.items() if name not in ("temperature", "top_p")}
    assert left != body
    return {"request_body": json.dumps(left).encode()}


def test_what_a_request_left_open_is_what_the_manifest_says() -> None:
    """The operator's defaults stand in the manifest; an answer that was drawn with others is found out."""
    used = {f"answer_{name}": one().claims.sampling[name] for name in ("temperature", "top_p")}
    checks = judged(request=left_open(), engine=used)
    assert checks["rerun_sampling"] == checks["rerun_answer"] == "PASS"
    assert judged(request=left_open(), engine=used | {"answer_temperature": "1.75"})["rerun_sampling"] == "FAIL"


def test_settings_that_decide_nothing_may_differ() -> None:
    """Batch, chunk and device are free in exact mode, and so is an encoder beside the model."""
    encoder = {f"embeddings{each}": "00" * 32 for each in ("", "_weights", "_tokenizer")}
    settings = {"max_sequences": 2, "prefill_chunk_tokens": 100, "device": "cuda", "public_prefixes": "x"}
    found = judged(engine=settings | encoder)
    assert found == dict.fromkeys([*PASSED, "rerun_answer"], "PASS") | {"rerun_transcript": "SKIP"}


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"engine": {"mode": "fast"}, "engine_mode": "fast"}, "rerun_mode"),
        ({"engine_mode": "fast"}, "rerun_mode"),
        ({"outcome": "aborted"}, "rerun_mode"),
        ({"outcome": "refused"}, "rerun_mode"),
        ({"engine": {"scheme": "w1a1"}}, "rerun_manifest"),
        ({"engine": {"context_tokens": 128}, "manifest": {"model": "other"}}, "rerun_manifest"),
        ({"engine": {"kind": "vllm"}}, "rerun_manifest"),
        ({"engine": {"dtype": "bfloat16"}}, "rerun_manifest"),
        ({"engine": {"unknown": 1}}, "rerun_manifest"),
        ({"engine": {"answer_top_p": "none"}}, "rerun_manifest"),
        ({"engine": {"answer_max_tokens": -1}}, "rerun_manifest"),
        ({"model": "other"}, "rerun_manifest"),
        ({"engine": {"source": "00" * 32}}, "rerun_weights"),
        ({"manifest": {"tokenizer_digest": bytes(32)}}, "rerun_weights"),
        ({"path": lambda: weights(6)}, "rerun_weights"),
    ],
)
def test_what_was_not_run_by_these_settings_is_not_run_again(change: dict[str, Any], failed: str) -> None:
    """Mode, settings and digests must be those of the manifest; else nothing runs."""
    if "path" in change:
        change = {"path": change["path"]()}
    found = judged(**change)
    assert found[failed] == "FAIL"
    assert found["rerun_answer"] == "SKIP"
    assert "rerun_sampling" not in found


def test_another_release_is_said_and_the_answer_decides() -> None:
    """The same bits out of another release are the same bits."""
    found = judged(manifest={"release": "0.0.1"})
    assert (found["rerun_release"], found["rerun_answer"]) == ("SKIP", "PASS")


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"seed": 12345}, "rerun_sampling"),
        ({"sampling": {}}, "rerun_sampling"),
        ({"completion_tokens": 1000}, "rerun_counts"),
        ({"prompt_tokens": 0}, "rerun_counts"),
        ({"shape": "other"}, "rerun_answer"),
        ({"request": {"request_body": b"{}"}}, "rerun_answer"),
        ({"request": {"path": "/v1/none"}}, "rerun_answer"),
    ],
)
def test_the_receipt_must_tell_the_truth_of_the_request(change: dict[str, Any], failed: str) -> None:
    """Sampling, seed, counts and shape are held against the request as the enclave's own code reads it."""
    if "seed" in change:  # of a request that names its seed; an enclave's own is whatever the receipt says
        change = change | {"request": {"request_body": _with_seed(one().disclosure.request_body)}}
    assert judged(**change)[failed] == "FAIL"


def _with_seed(body: bytes) -> bytes:
    return json.dumps({**json.loads(body), "seed": 7}).encode()


def test_another_models_answer_is_not_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the digests not compared, the answers still would be: other weights give other words."""
    monkeypatch.setattr(module, "_check_weights", lambda manifest, card: module._check_release(manifest))
    found = []
    for receipt in run().receipts:
        asked = receipt.disclosure
        request = asked.method, asked.path, asked.request_body
        _, answer = replay(run().manifest, receipt.claims, *request, weights(6))
        assert answer is not None
        found.append(compare(receipt.claims, asked, answer)[0].outcome.value)
    assert "FAIL" in found


def test_weights_exchanged_after_they_were_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded is compared too; other weights answer nothing."""
    load = module.TorchEngine.load
    monkeypatch.setattr(module.TorchEngine, "load", lambda path, *more: load(weights(6), *more))
    found = judged()
    assert found["rerun_weights"] == "FAIL"
    assert found.get("rerun_answer") != "PASS"


def test_weights_that_cannot_be_used_are_a_wrong_setting(tmp_path: Path) -> None:
    """No file, or no model in it: one line that names it."""
    (tmp_path / "noise.gguf").write_bytes(b"noise")
    for name in ("absent.gguf", "noise.gguf"):
        with pytest.raises(ConfigError, match=name):
            judged(path=tmp_path / name)
