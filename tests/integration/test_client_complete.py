"""Every call of OpenAI's SDK that an enclave can answer, by every way the SDK has to make it; the rest by name."""

import threading
from collections.abc import Callable
from typing import Any

import confide
import openai
import pytest
from confide_protocol.errors import ConfideError
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from tests.fakes.stack import ANSWER, QUESTION, Stack, ask

MODEL = "smollm2-135m-instruct"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
CHAT: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 16}
SAID: dict[str, Any] = {"model": MODEL, "input": QUESTION, "temperature": 0, "max_output_tokens": 16}


class Place(BaseModel):
    """Where something is."""

    city: str


@pytest.fixture(scope="module")
def client(stack: Stack) -> confide.OpenAI:
    return stack.openai()


@pytest.fixture(scope="module")
def plain(client: confide.OpenAI) -> str:
    content = client.chat.completions.create(**CHAT).choices[0].message.content
    assert content is not None
    assert ANSWER in content
    return content


def test_parsed_answers(client: confide.OpenAI) -> None:
    """A class in, an object out: chats, streams and responses, and a tool's arguments."""
    wanted = {**CHAT, "max_tokens": 32}
    parsed = client.chat.completions.parse(**wanted, response_format=Place).choices[0].message.parsed
    assert parsed is not None
    assert parsed.city
    with client.chat.completions.stream(**wanted, response_format=Place) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == parsed
    assert {"chunk", "content.delta", "content.done"} <= kinds
    response = client.responses.parse(**{**SAID, "max_output_tokens": 32}, text_format=Place)
    assert response.output_parsed is not None
    tool = openai.pydantic_function_tool(Place)
    called = client.chat.completions.parse(**{**CHAT, "max_tokens": 64}, tools=[tool], tool_choice="required")
    (call,) = called.choices[0].message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, Place)


def test_streams_of_every_kind(client: confide.OpenAI, plain: str) -> None:
    """Helpers' events, plain iteration, a stream that is left early: all of one text."""
    with client.chat.completions.stream(**CHAT) as stream:
        assert "".join(event.delta for event in stream if event.type == "content.delta") == plain
    with client.responses.stream(**SAID) as said:
        deltas = "".join(event.delta for event in said if event.type == "response.output_text.delta")
        assert said.get_final_response().output_text == deltas == plain
    for create, asked in ((client.chat.completions.create, CHAT), (client.responses.create, SAID)):
        with create(**asked, stream=True) as left:
            next(iter(left))
    text = client.completions.create(model=MODEL, prompt="Once", max_tokens=4, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in text if chunk.choices)


def test_raw_and_streaming_responses(client: confide.OpenAI, plain: str) -> None:
    """Heads, lines and parsed objects; the receipt of this very answer once it was read."""
    raw = client.chat.completions.with_raw_response.create(**CHAT)
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == plain
    assert raw.http_response.extensions["confide"].receipt.claims.outcome == "complete"
    with client.chat.completions.with_streaming_response.create(**CHAT) as response:
        assert response.status_code == 200
        parsed = response.parse()
        assert isinstance(parsed, ChatCompletion)
        assert parsed.choices[0].message.content == plain
    with client.chat.completions.with_streaming_response.create(**CHAT, stream=True) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert client.models.with_raw_response.list().parse().data[0].id == MODEL


def test_models(client: confide.OpenAI) -> None:
    """Listed, paged through, and one by name."""
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4o")
    assert (caught.value.code, MODEL in caught.value.message) == ("model_not_found", True)


def test_what_clients_add_by_themselves(client: confide.OpenAI, plain: str) -> None:
    """Accepted where it asks for nothing that would be left undone."""
    asked: Any = {
        **CHAT,
        "messages": [{"role": "developer", "content": "Be brief.", "name": "app"}, *MESSAGES],
        "store": False, "metadata": {"run": "1"}, "user": "u", "service_tier": "auto", "parallel_tool_calls": True,
        "safety_identifier": "s", "prompt_cache_key": "k", "verbosity": "medium", "modalities": ["text"],
    }  # fmt: skip
    assert client.chat.completions.create(**asked).choices[0].message.content
    parts = [{"type": "text", "text": QUESTION[:10]}, {"type": "text", "text": QUESTION[10:]}]
    inputs: Any = [{"role": "user", "content": parts}]
    assert client.chat.completions.create(**{**CHAT, "messages": inputs}).choices[0].message.content == plain


PICTURE: list[Any] = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
NOTHING = "nothing at this path"
NOT_STORED = "Nothing is stored"
REFUSED: dict[str, tuple[Callable[[confide.OpenAI], Any], str]] = {
    "stored": (lambda client: client.chat.completions.create(**CHAT, store=True), "store"),
    "an image": (lambda client: client.chat.completions.create(model=MODEL, messages=PICTURE), "text alone"),
    "continued": (lambda client: client.responses.create(**SAID, previous_response_id="resp_1"), "is stored here"),
    "in the background": (lambda client: client.responses.create(**SAID, background=True), "background"),
    "a built-in tool": (lambda client: client.responses.create(**SAID, tools=[{"type": "web_search"}]), "tools"),
    "fetched": (lambda client: client.responses.retrieve("resp_1"), NOT_STORED),
    "deleted": (lambda client: client.responses.delete("resp_1"), NOT_STORED),
    "cancelled": (lambda client: client.responses.cancel("resp_1"), NOT_STORED),
    "its input": (lambda client: client.responses.input_items.list("resp_1").data, NOT_STORED),
    "a stored chat": (lambda client: client.chat.completions.retrieve("chatcmpl-1"), NOT_STORED),
    "files": (lambda client: client.files.list().data, NOTHING),
    "an upload": (lambda client: client.files.create(file=b"x", purpose="batch"), NOTHING),
    "speech": (lambda client: client.audio.speech.create(model="m", voice="alloy", input="x"), NOTHING),
    "moderation": (lambda client: client.moderations.create(input="x"), NOTHING),
    "images": (lambda client: client.images.generate(prompt="x", model="m"), NOTHING),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_done_is_refused_by_name(client: confide.OpenAI, name: str) -> None:
    """OpenAI's own errors, sealed and with a receipt, that say why."""
    call, words = REFUSED[name]
    with pytest.raises(openai.APIStatusError) as caught:
        call(client)
    assert caught.value.status_code in (400, 404)
    assert words in caught.value.message
    assert client.last_receipt is not None
    assert client.last_receipt.claims.outcome == "refused"


def test_copies_and_timeouts(client: confide.OpenAI, plain: str) -> None:
    """Copies share what was verified; a timeout is openai's own error, and the client lives on."""
    hurried = client.with_options(timeout=0.05, max_retries=2)
    with pytest.raises((openai.APITimeoutError, ConfideError)):
        hurried.chat.completions.create(**{**CHAT, "max_tokens": 512})
    for copy in (client.copy(timeout=30), client.with_options(max_retries=5), client):
        assert copy.chat.completions.create(**CHAT).choices[0].message.content == plain
    assert client.chat.completions.create(**CHAT, timeout=60, extra_headers={"x-own": "1"}).choices
    assert client.copy().attestation is not None


def test_one_client_in_many_threads(client: confide.OpenAI, plain: str) -> None:
    """One object, six threads, one answer."""
    answers: list[str | None] = []

    def run() -> None:
        answers.append(client.chat.completions.create(**CHAT).choices[0].message.content)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [plain] * 6


@pytest.mark.anyio
async def test_the_async_client_too(stack: Stack, plain: str) -> None:
    """The same helpers, awaited."""
    async with confide.AsyncOpenAI(**stack.options()) as client:
        assert [model.id async for model in client.models.list()] == [MODEL]
        async with client.chat.completions.stream(**CHAT) as stream:
            said = [event.delta async for event in stream if event.type == "content.delta"]
        assert "".join(said) == plain
        parsed = await client.chat.completions.parse(**{**CHAT, "max_tokens": 32}, response_format=Place)
        assert parsed.choices[0].message.parsed
        async with client.responses.stream(**SAID) as response:
            assert (await response.get_final_response()).output_text == plain
        async with client.chat.completions.with_streaming_response.create(**CHAT, stream=True) as raw:
            lines = [line async for line in raw.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        with pytest.raises(openai.NotFoundError, match="Nothing is stored"):
            await client.responses.retrieve("resp_1")
        with pytest.raises((openai.APITimeoutError, ConfideError)):
            await client.with_options(timeout=0.05).chat.completions.create(**{**CHAT, "max_tokens": 512})
        assert ANSWER in (await ask(client)).choices[0].message.content
