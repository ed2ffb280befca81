"""AutoGen: two agents that take turns, and one that calls a tool."""

import asyncio

import httpx2
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_ext.models.openai import OpenAIChatCompletionClient
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport


async def capital_of(country: str) -> str:
    """Return a country's capital."""
    return "Paris"


async def main() -> None:
    own = {"http_client": httpx2.AsyncClient(transport=transport(asynchronous=True), timeout=120)} if DIRECT else {}
    can = dict.fromkeys(("function_calling", "json_output", "structured_output"), True)
    client = OpenAIChatCompletionClient(
        model=MODEL,
        base_url=BASE_URL,
        api_key=KEY,
        model_info={**can, "vision": False, "family": "unknown"},
        temperature=0.0,
        max_tokens=48,
        max_retries=0,
        **own,
    )
    alone = AssistantAgent("alone", client, model_client_stream=True)
    assert "Paris" in (await alone.run(task=QUESTION)).messages[-1].content
    pair = [AssistantAgent(name, client, system_message="Be brief.") for name in ("first", "second")]
    team = RoundRobinGroupChat(pair, termination_condition=MaxMessageTermination(4))
    assert len((await team.run(task=QUESTION)).messages) == 4
    calling = AssistantAgent("calls", client, tools=[capital_of])
    assert (await calling.run(task="What is the capital of France? Use the tool.")).messages[-1].content


asyncio.run(main())
