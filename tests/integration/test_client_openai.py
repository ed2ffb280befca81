"""openai 3.x against the real stack: sync, async, streamed, through both ways in."""

import json
from typing import Any

import confide
import httpx
import httpx2
import openai
import pytest
from confide.transport import AsyncTransport, Transport, transports
from confide_attestation.errors import AppraisalRejected
from confide_protocol import labels
from confide_protocol.errors import RelayRefused

from tests.fakes.stack import ANSWER, QUESTION, Stack, ask


@pytest.fixture(scope="module")
def client(stack: Stack) -> confide.OpenAI:
    return stack.openai()


def text(stream: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_an_answer_and_its_receipt(client: confide.OpenAI) -> None:
    """A real model answers in English; the receipt speaks of this very exchange."""
    answer = ask(client)
    assert ANSWER in answer.choices[0].message.content
    assert client.last_receipt is not None
    claims = client.last_receipt.claims
    assert (claims.outcome, claims.status, claims.shape) == ("complete", 200, labels.SHAPE_BUCKETED)
    assert claims.simulated
    assert claims.message_count == 1
    assert client.attestation is not None
    assert client.attestation.simulated


def test_a_stream_says_the_same(client: confide.OpenAI) -> None:
    """Streamed and plain, greedy answers are equal."""
    assert text(ask(client, stream=True)) == ask(client).choices[0].message.content


def test_usage_comes_with_the_stream(client: confide.OpenAI) -> None:
    """stream_options.include_usage works as with openai."""
    *_, last = ask(client, stream=True, stream_options={"include_usage": True})
    assert last.usage is not None
    assert last.usage.completion_tokens > 0


def test_models_and_text_completions(client: confide.OpenAI) -> None:
    """The other endpoints pass too, a GET without a body among them."""
    (model,) = client.models.list().data
    done = client.completions.create(model=model.id, prompt="Once upon a time", max_tokens=8, temperature=0)
    assert done.choices[0].text


def test_raw_responses_carry_the_receipt(client: confide.OpenAI) -> None:
    """with_raw_response shows the exchange, receipt included."""
    raw = client.chat.completions.with_raw_response.create(
        model="smollm2-135m-instruct", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
    )
    assert raw.http_response.extensions["confide"].receipt.claims.status == 200


def test_the_enclaves_errors_are_openais(client: confide.OpenAI) -> None:
    """A sealed refusal becomes openai's own exception."""
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-none", messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(openai.BadRequestError):
        ask(client, temperature=9)


@pytest.mark.anyio
async def test_the_async_client(stack: Stack) -> None:
    """AsyncOpenAI: plain and streamed."""
    async with confide.AsyncOpenAI(**stack.options()) as client:
        answer = await ask(client)
        said = [chunk async for chunk in await ask(client, stream=True)]
        assert text(said) == answer.choices[0].message.content
        assert client.last_receipt is not None


@pytest.mark.parametrize("module", [httpx2, httpx])
def test_unmodified_openai_over_the_transport(stack: Stack, module: Any) -> None:
    """openai's own client with a sealing HTTP client of either library."""
    transport = transports(module)[0](stack.url, relay=stack.relay())
    with module.Client(transport=transport) as http:
        client = openai.OpenAI(base_url=stack.url + "/v1", api_key=stack.ground.api_key, http_client=http)
        assert ANSWER in ask(client).choices[0].message.content
        assert ANSWER in text(ask(client, stream=True))


@pytest.mark.anyio
async def test_unmodified_async_openai_over_the_transport(stack: Stack) -> None:
    """openai's own async client with a sealing HTTP client."""
    async with httpx2.AsyncClient(transport=AsyncTransport(stack.url, relay=stack.relay())) as http:
        client = openai.AsyncOpenAI(base_url=stack.url + "/v1", api_key=stack.ground.api_key, http_client=http)
        assert ANSWER in (await ask(client)).choices[0].message.content


def test_a_policy_that_does_not_match(stack: Stack) -> None:
    """Another manifest, another level, another version: AppraisalRejected that names the check."""
    text = stack.ground.policy_file.read_text()
    manifest = stack.relay().ready().manifest.digest.hex()
    for old, new, check in (
        (manifest, "00" * 32, "manifest"),
        ("vmpl = [0]", "vmpl = [1]", "vmpl"),
        ("min_guest_svn = 0", "min_guest_svn = 1", "min_guest_svn"),
    ):
        assert old in text
        stricter = stack.ground.write("stricter.toml", text.replace(old, new))
        with pytest.raises(AppraisalRejected) as caught:
            ask(stack.openai(policy=stricter))
        assert check in [each.id for each in caught.value.result.failed]
    with pytest.raises(AppraisalRejected):
        ask(stack.openai(allow_simulated=False))


def test_a_wrong_key_is_refused(stack: Stack) -> None:
    """An unknown API key is RelayRefused with the gateway's status."""
    with pytest.raises(RelayRefused) as caught:
        ask(stack.openai(api_key="confide-wrong"))
    assert caught.value.status == 401


def test_an_inner_http_client_of_httpx2(stack: Stack) -> None:
    """The transport alone serves any HTTP use, without openai."""
    with httpx2.Client(transport=Transport(stack.url, relay=stack.relay())) as http:
        assert http.get(stack.url + "/v1/models").json()["data"][0]["id"] == stack.model


def test_structured_output(client: confide.OpenAI) -> None:
    """A schema through openai's own helper, a pattern through the extra body."""
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "population": {"type": "integer", "maximum": 99}},
        "required": ["city", "population"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    answer = ask(client, response_format=wanted, max_tokens=64)
    assert json.loads(answer.choices[0].message.content)["city"] in ("Paris", "Rome")
    pattern = {"response_format": {"type": "regex", "pattern": "(Paris|Rome)!"}}
    assert ask(client, extra_body=pattern).choices[0].message.content in ("Paris!", "Rome!")
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}})
    assert caught.value.param == "response_format"


TOOL = {
    "type": "function",
    "function": {
        "name": "capital_of",
        "description": "Look up a country's capital.",
        "parameters": {
            "type": "object",
            "properties": {"country": {"type": "string", "maxLength": 20}},
            "required": ["country"],
            "additionalProperties": False,
        },
    },
}


def test_tools_are_called_and_answered(client: confide.OpenAI) -> None:
    """A whole round: the call, whole and streamed alike, then the answer to its result; the receipts hold."""
    asked = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 64}
    answer = ask(client, **asked)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "capital_of"
    assert "country" in json.loads(call.function.arguments)
    assert answer.choices[0].finish_reason == "tool_calls"
    deltas = [chunk.choices[0].delta for chunk in ask(client, **asked, stream=True) if chunk.choices]
    parts = [part.function for delta in deltas for part in delta.tool_calls or []]
    assert "".join(part.arguments or "" for part in parts) == call.function.arguments
    assert client.last_receipt is not None
    assert client.last_receipt.claims.sampling["constrained"] == 1
    messages = [
        {"role": "user", "content": QUESTION},
        answer.choices[0].message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "Paris"},
    ]
    assert ask(client, tools=[TOOL], tool_choice="none", messages=messages).choices[0].message.content


def test_several_answers_with_log_probabilities(client: confide.OpenAI) -> None:
    """Three choices in one stream and in one body; every parameter stands in the receipt."""
    asked = {"n": 3, "temperature": 1.2, "seed": 7, "logprobs": True, "top_logprobs": 2, "frequency_penalty": 0.5}
    answer = ask(client, **asked)
    said: dict[int, str] = {}
    for chunk in ask(client, **asked, stream=True):
        for choice in chunk.choices:
            said[choice.index] = said.get(choice.index, "") + (choice.delta.content or "")
    assert said == {choice.index: choice.message.content for choice in answer.choices}
    assert len(set(said.values())) == 3
    assert all(len(choice.logprobs.content[0].top_logprobs) == 2 for choice in answer.choices)
    assert client.last_receipt is not None
    claims = client.last_receipt.claims
    assert (claims.message_count, claims.seed) == (3, 7)
    assert (claims.sampling["n"], claims.sampling["frequency_penalty"]) == (3, "0.5")
    best = client.completions.create(model=answer.model, prompt="The", best_of=3, max_tokens=4)
    assert len(best.choices) == 1


def test_responses(client: confide.OpenAI) -> None:
    """openai's Responses: whole, streamed through its helper, with a tool; nothing is stored."""
    asked = {"model": "smollm2-135m-instruct", "input": QUESTION, "temperature": 0, "max_output_tokens": 16}
    answer = client.responses.create(**asked)
    assert ANSWER in answer.output_text
    assert client.last_receipt is not None
    assert client.last_receipt.claims.message_count == 1
    with client.responses.stream(**asked) as stream:
        streamed = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == streamed == answer.output_text
    assert client.last_receipt.claims.message_count == 1
    function = {"type": "function", "strict": True, **TOOL["function"]}
    called = client.responses.create(**{**asked, "max_output_tokens": 64}, tools=[function], tool_choice="required")
    assert called.output[0].type == "function_call"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**asked, previous_response_id=answer.id)
    assert caught.value.param == "previous_response_id"


def test_no_embeddings_without_a_model_for_them(client: confide.OpenAI) -> None:
    """A clear 404 in openai's form."""
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="any", input="text")
