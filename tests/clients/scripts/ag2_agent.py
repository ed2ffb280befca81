"""AG2: an agent that is asked, streams, calls a tool and answers in a type; over chat completions and Responses."""

import asyncio

import httpx2
from ag2 import Agent
from ag2.config import OpenAIConfig, OpenAIResponsesConfig
from pydantic import BaseModel
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport


class Place(BaseModel):
    city: str


async def main() -> None:
    for kind in (OpenAIConfig, OpenAIResponsesConfig):
        own = (
            {"http_client": httpx2.AsyncClient(transport=transport(asynchronous=True), timeout=120)}
            if DIRECT
            else {}
        )
        limit = {"max_tokens": 48} if kind is OpenAIConfig else {"max_output_tokens": 48}
        for streaming in (False, True):
            config = kind(
                model=MODEL, base_url=BASE_URL, api_key=KEY, temperature=0.0, streaming=streaming, max_retries=0,
                **limit, **own,
            )  # fmt: skip
            reply = await Agent("brief", "Be brief.", config=config).ask(QUESTION)
            assert "Paris" in reply.body
            again = await reply.ask("And of Italy?")
            assert again.body
        typed = await Agent("typed", config=config, response_schema=Place).ask(QUESTION)
        assert typed.body


asyncio.run(main())
