"""OpenAI's Agents SDK: a run with a tool that must be called, a stream, typed output; over both APIs."""

import asyncio

import httpx2
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport


class Place(BaseModel):
    city: str


asked = []


@function_tool
def capital_of(country: str) -> str:
    """Return a country's capital."""
    asked.append(country)
    return "Paris"


async def main() -> None:
    own = {"http_client": httpx2.AsyncClient(transport=transport(asynchronous=True), timeout=120)} if DIRECT else {}
    client = AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, **own)
    set_tracing_disabled(True)
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        brief = ModelSettings(temperature=0.0, max_tokens=48)
        plain = Agent(name="plain", instructions="Be brief.", model=kind(MODEL, client), model_settings=brief)
        assert "Paris" in (await Runner.run(plain, QUESTION)).final_output
        stream = Runner.run_streamed(plain, QUESTION)
        assert [event.type async for event in stream.stream_events()]
        assert "Paris" in stream.final_output
        typed = Agent(name="typed", model=kind(MODEL, client), model_settings=brief, output_type=Place)
        assert (await Runner.run(typed, QUESTION)).final_output.city
        must = ModelSettings(temperature=0.0, max_tokens=64, tool_choice="required")
        calls = Agent(name="calls", model=kind(MODEL, client), model_settings=must, tools=[capital_of])
        said = await Runner.run(calls, "What is the capital of France?", max_turns=4)
        assert said.final_output
    assert len(asked) >= 2


asyncio.run(main())
