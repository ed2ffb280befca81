"""litellm: completion, stream, tools."""

import httpx
import litellm
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport

if DIRECT:
    litellm.client_session = httpx.Client(transport=transport(), timeout=120)
asked = {
    "model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": KEY, "temperature": 0, "max_tokens": 48,
    "messages": [{"role": "user", "content": QUESTION}], "num_retries": 0,
}  # fmt: skip
plain = litellm.completion(**asked).choices[0].message.content
assert "Paris" in plain
assert "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True)) == plain
schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
tool = {"type": "function", "function": {"name": "place", "parameters": schema}}
called = litellm.completion(**asked, tools=[tool], tool_choice="required")
assert called.choices[0].message.tool_calls[0].function.name == "place"
