"""Run by `.venv-openai2/bin/python`: openai 2.x over httpx, every way in. Arguments: url, key file, policy file."""

import asyncio
import sys
from pathlib import Path

import confide
import httpx
import openai
import pytest
from confide.policy_memory import PolicyMemory
from confide.relay import Relay
from confide.transport import transports
from confide_protocol.errors import RelayRefused

url, key, policy = sys.argv[1], Path(sys.argv[2]).read_text().strip(), sys.argv[3]
options = {"base_url": url, "api_key": key, "policy": policy, "allow_simulated": True, "memory": PolicyMemory(None)}
asked = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
    "max_tokens": 16,
    "temperature": 0,
}


def joined(chunks) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def sync() -> None:
    client = confide.OpenAI(**options)
    plain = client.chat.completions.create(**asked).choices[0].message.content
    assert "Paris" in plain
    assert joined(client.chat.completions.create(**asked, stream=True)) == plain
    assert client.last_receipt.claims.outcome == "complete"
    with pytest.raises(RelayRefused):
        confide.OpenAI(**{**options, "api_key": "confide-wrong"}).models.list()


async def asynchronous() -> None:
    async with confide.AsyncOpenAI(**options) as client:
        answer = await client.chat.completions.create(**asked)
        assert "Paris" in answer.choices[0].message.content
        stream = await client.chat.completions.create(**asked, stream=True)
        assert "Paris" in joined([chunk async for chunk in stream])


async def unmodified() -> None:
    transport, async_transport = transports(httpx)
    relay = Relay(url, policy, allow_simulated=True, memory=PolicyMemory(None))
    with httpx.Client(transport=transport(url, relay=relay)) as http:
        client = openai.OpenAI(base_url=url + "/v1", api_key=key, http_client=http)
        assert "Paris" in client.chat.completions.create(**asked).choices[0].message.content
        assert "Paris" in joined(client.chat.completions.create(**asked, stream=True))
    async with httpx.AsyncClient(transport=async_transport(url, relay=relay)) as http:
        client = openai.AsyncOpenAI(base_url=url + "/v1", api_key=key, http_client=http)
        assert "Paris" in (await client.chat.completions.create(**asked)).choices[0].message.content
        stream = await client.chat.completions.create(**asked, stream=True)
        assert "Paris" in joined([chunk async for chunk in stream])


assert openai.__version__.startswith("2.")
sync()
asyncio.run(asynchronous())
asyncio.run(unmodified())
print("well", openai.__version__)
