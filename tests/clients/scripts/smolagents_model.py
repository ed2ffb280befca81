"""smolagents: a model with stop strings and streaming, and one step of an agent that calls tools."""

import httpx2
from smolagents import OpenAIModel, tool
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport

own = {"http_client": httpx2.Client(transport=transport(), timeout=120)} if DIRECT else {}
model = OpenAIModel(
    MODEL, api_base=BASE_URL, api_key=KEY, client_kwargs={"max_retries": 0, **own}, temperature=0, max_tokens=64
)
asked = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
said = model.generate(asked, stop_sequences=["\n\n"]).content
assert "Paris" in said
assert "".join(delta.content or "" for delta in model.generate_stream(asked)) == said


@tool
def capital_of(country: str) -> str:
    """Look a capital up.

    Args:
        country: its name.
    """
    return "Paris"


called = model.generate(asked, tools_to_call_from=[capital_of])
assert called.tool_calls[0].function.name == "capital_of"
