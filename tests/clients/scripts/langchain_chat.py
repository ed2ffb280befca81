"""LangChain: invoke, stream, batch, async, tools, structured output, embeddings."""

import asyncio

import httpx2
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport

own = {}
if DIRECT:
    own["http_client"] = httpx2.Client(transport=transport(), timeout=120)
    own["http_async_client"] = httpx2.AsyncClient(transport=transport(asynchronous=True), timeout=120)
chat = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=KEY, temperature=0, max_tokens=48, max_retries=0, **own)
plain = chat.invoke(QUESTION).content
assert "Paris" in plain
assert "".join(chunk.content for chunk in chat.stream(QUESTION)) == plain
assert len(chat.batch(["Hi", "Hello"])) == 2
assert "Paris" in asyncio.run(chat.ainvoke(QUESTION)).content


class Place(BaseModel):
    city: str


assert chat.with_structured_output(Place).invoke(QUESTION).city


@tool
def capital_of(country: str) -> str:
    """Look a capital up."""
    return "Paris"


called = chat.bind_tools([capital_of], tool_choice="required").invoke("What is the capital of France?")
assert called.tool_calls[0]["name"] == "capital_of"
embeddings = OpenAIEmbeddings(
    model="all-minilm-l6-v2", base_url=BASE_URL, api_key=KEY, check_embedding_ctx_length=False, **own
)
assert len(embeddings.embed_query("a")) == 384
