"""LlamaIndex: complete, chat, stream, async."""

import asyncio

import httpx
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport

own = {}
if DIRECT:
    own["http_client"] = httpx.Client(transport=transport(), timeout=120)
    own["async_http_client"] = httpx.AsyncClient(transport=transport(asynchronous=True), timeout=120)
llm = OpenAILike(
    model=MODEL,
    api_base=BASE_URL,
    api_key=KEY,
    is_chat_model=True,
    temperature=0,
    max_tokens=16,
    max_retries=0,
    **own,
)
asked = [ChatMessage(role="user", content=QUESTION)]
plain = llm.chat(asked).message.content
assert "Paris" in plain
assert "".join(part.delta or "" for part in llm.stream_chat(asked)) == plain
assert "Paris" in llm.complete(QUESTION).text
assert asyncio.run(llm.achat(asked)).message.content == plain
