"""openai 3.x against the real stack: sync, async, streamed, through both ways in."""

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

from tests.fakes.stack import ANSWER, Stack, ask


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
