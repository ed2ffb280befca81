"""Pydantic AI: an agent with a tool, typed output, a stream; over chat completions and over Responses."""

import asyncio

import httpx2
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport


class Place(BaseModel):
    city: str


def capital_of(country: str) -> str:
    """Return a country's capital."""
    return "Paris"


async def main() -> None:
    own = {"http_client": httpx2.AsyncClient(transport=transport(asynchronous=True), timeout=120)} if DIRECT else {}
    provider = OpenAIProvider(base_url=BASE_URL, api_key=KEY, **own)
    settings = {"temperature": 0.0, "max_tokens": 48}
    for kind in (OpenAIChatModel, OpenAIResponsesModel):
        model = kind(MODEL, provider=provider, settings=settings)
        assert "Paris" in (await Agent(model, instructions="Be brief.").run(QUESTION)).output
        assert (await Agent(model, output_type=Place, retries=3).run(QUESTION)).output.city
        async with Agent(model).run_stream(QUESTION) as stream:
            assert "Paris" in await stream.get_output()
        assert (await Agent(model, tools=[capital_of]).run("What is the capital of France?")).output


asyncio.run(main())
