"""Semantic Kernel: a chat service, whole and streamed, and a prompt function."""

import asyncio

import httpx2
from openai import AsyncOpenAI
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.contents import ChatHistory
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport


async def main() -> None:
    own = {"http_client": httpx2.AsyncClient(transport=transport(asynchronous=True), timeout=120)} if DIRECT else {}
    client = AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, **own)
    service = OpenAIChatCompletion(ai_model_id=MODEL, async_client=client, service_id="sealed")
    settings = OpenAIChatPromptExecutionSettings(temperature=0.0, max_tokens=48)
    history = ChatHistory(system_message="Be brief.")
    history.add_user_message(QUESTION)
    said = (await service.get_chat_message_content(history, settings)).content
    assert "Paris" in said
    parts = [str(part) async for part in service.get_streaming_chat_message_content(history, settings)]
    assert "".join(parts) == said
    kernel = Kernel()
    kernel.add_service(service)
    assert str(await kernel.invoke_prompt("What is the capital of Italy?"))


asyncio.run(main())
