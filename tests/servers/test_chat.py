"""The SDK's tests of the chat API against a real server, and what differs from the engine of our own."""

import json
from pathlib import Path

import confide
import openai
import pytest
from click.testing import CliRunner
from confide.audit import audit_file
from confide.cli import main

from tests.fakes.stack import ANSWER, QUESTION, ask
from tests.integration.test_client_openai import (
    test_a_policy_that_does_not_match,
    test_a_stream_says_the_same,
    test_a_wrong_key_is_refused,
    test_an_answer_and_its_receipt,
    test_an_inner_http_client_of_httpx2,
    test_models_and_text_completions,
    test_no_embeddings_without_a_model_for_them,
    test_raw_responses_carry_the_receipt,
    test_responses,
    test_the_async_client,
    test_the_enclaves_errors_are_openais,
    test_tools_are_called_and_answered,
    test_unmodified_async_openai_over_the_transport,
    test_unmodified_openai_over_the_transport,
    test_usage_comes_with_the_stream,
)
from tests.servers.model import NAME
from tests.servers.peers import Peer
from tests.servers.stack import RemoteStack

__all__ = [
    "test_a_policy_that_does_not_match",
    "test_a_stream_says_the_same",
    "test_a_wrong_key_is_refused",
    "test_an_answer_and_its_receipt",
    "test_an_inner_http_client_of_httpx2",
    "test_models_and_text_completions",
    "test_no_embeddings_without_a_model_for_them",
    "test_raw_responses_carry_the_receipt",
    "test_responses",
    "test_the_async_client",
    "test_the_enclaves_errors_are_openais",
    "test_tools_are_called_and_answered",
    "test_unmodified_async_openai_over_the_transport",
    "test_unmodified_openai_over_the_transport",
    "test_usage_comes_with_the_stream",
]
PLACE = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "old": {"type": "boolean"}},
    "required": ["city", "old"],
    "additionalProperties": False,
}


def test_structured_output(client: confide.OpenAI) -> None:
    """A schema, a pattern, any object; the whole answer, which our own automaton followed, and no more."""
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE, "strict": True}}
    answer = ask(client, response_format=wanted, max_tokens=64)
    assert json.loads(answer.choices[0].message.content)["city"] in ("Paris", "Rome")
    assert answer.choices[0].finish_reason == "stop"
    pattern = {"response_format": {"type": "regex", "pattern": "(Paris|Rome)!"}}
    assert ask(client, extra_body=pattern).choices[0].message.content in ("Paris!", "Rome!")
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}})
    assert caught.value.param == "response_format"


def test_log_probabilities_with_several_answers(client: confide.OpenAI) -> None:
    """Three choices with seeds of their own, best first; each parameter stands in the receipt."""
    asked = {"n": 3, "temperature": 1.2, "seed": 7, "logprobs": True, "top_logprobs": 2, "frequency_penalty": 0.5}
    answer = ask(client, **asked)
    assert len({choice.message.content for choice in answer.choices}) == 3
    for choice in answer.choices:
        told = choice.logprobs.content
        assert b"".join(bytes(each.bytes) for each in told).decode(errors="replace") == choice.message.content
        assert all(each.top_logprobs[0].logprob >= each.top_logprobs[1].logprob for each in told)
        assert all(each.logprob <= 0 for each in told)
    assert client.last_receipt is not None
    claims = client.last_receipt.claims
    assert (claims.message_count, claims.seed, claims.sampling["frequency_penalty"]) == (3, 7, "0.5")
    greedy = ask(client, logprobs=True, top_logprobs=1).choices[0].logprobs.content
    assert all(each.top_logprobs[0].token == each.token for each in greedy)


def test_a_seed_gives_the_same_answer_alone(client: confide.OpenAI) -> None:
    """And another seed another one; parameters of ours reach it."""
    warm = {"temperature": 1.3, "max_tokens": 24}
    said = [ask(client, **warm, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]
    banned = ask(client, logit_bias={"7042": -100}, extra_body={"top_k": 1, "repetition_penalty": 1.1})
    assert " Paris" not in banned.choices[0].message.content


def test_a_stop_string_and_a_limit(client: confide.OpenAI) -> None:
    """The one is not shown, the other says so."""
    stopped = ask(client, stop=[" is"]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == ("The capital of France", "stop")
    cut = ask(client, max_tokens=2)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 2)


def test_what_the_server_does_otherwise_is_refused_by_name(client: confide.OpenAI) -> None:
    """It counts log-probabilities after the grammar, which is not what they mean here."""
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE, "strict": True}}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, response_format=wanted, logprobs=True)
    assert caught.value.param == "logprobs"


def test_a_prompt_beyond_the_context(client: confide.OpenAI) -> None:
    """Refused by our own count, before the server sees it."""
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, messages=[{"role": "user", "content": "word " * 4_000}])
    assert (caught.value.status_code, caught.value.code) == (413, "context_too_long")


def test_the_receipt_says_which_engine_and_that_nobody_can_run_it_again(
    stack: RemoteStack, peer: Peer, weights: Path, tmp_path: Path
) -> None:
    """Mode fast, the manifest names server and version, and an auditor's re-run is refused by name."""
    with stack.openai() as client:
        assert ANSWER in ask(client, messages=[{"role": "user", "content": QUESTION}]).choices[0].message.content
        assert client.last_receipt is not None
        assert client.last_receipt.claims.engine_mode == "fast"
        assert client.last_receipt.claims.model == NAME
        kept = audit_file(client.last_receipt, stack.ground.policy_file.read_bytes(), disclose=True)
    engine = stack.relay().ready().manifest.engine
    assert (engine["kind"], engine["server"], engine["version"]) == ("openai", peer.name, peer.version)
    assert engine["tested"] is True
    file = tmp_path / "kept.confide"
    file.write_bytes(kept.encoded)
    audit = ["audit", str(file), "--allow-simulated"]
    assert CliRunner().invoke(main, audit).exit_code == 0
    result = CliRunner().invoke(main, [*audit, "--rerun", "--weights", str(weights)])
    assert result.exit_code == 1
    assert f"FAIL rerun_mode — not replayable: {peer.name} {peer.version} answered" in result.stdout
