"""openai's own clients: chat, stream, tools, structured output, Responses, embeddings, models; sync and async."""

import asyncio
import importlib
import json

import openai
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport

http = importlib.import_module("httpx2" if int(openai.__version__.partition(".")[0]) >= 3 else "httpx")
own = {"http_client": http.Client(transport=transport(), timeout=120)} if DIRECT else {}
client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, **own)
asked = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 16}
plain = client.chat.completions.create(**asked).choices[0].message.content
assert "Paris" in plain
chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == plain
assert chunks[-1].usage.completion_tokens > 0
assert client.models.list().data[0].id == MODEL
assert client.models.retrieve(MODEL).id == MODEL
done = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=8, logprobs=1)
assert done.choices[0].logprobs.tokens
schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
schema["additionalProperties"] = False
wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
said = client.chat.completions.create(**{**asked, "max_tokens": 32}, response_format=wanted)
assert json.loads(said.choices[0].message.content)["city"] == "Paris"
tool = {"type": "function", "function": {"name": "place", "parameters": schema}}
said = client.chat.completions.create(**{**asked, "max_tokens": 48}, tools=[tool], tool_choice="required")
assert said.choices[0].message.tool_calls[0].function.name == "place"
with client.chat.completions.stream(**{**asked, "max_tokens": 48}, tools=[tool], tool_choice="required") as stream:
    final = stream.get_final_completion()
assert json.loads(final.choices[0].message.tool_calls[0].function.arguments)["city"]
answer = client.responses.create(model=MODEL, input=QUESTION, temperature=0, max_output_tokens=16)
assert "Paris" in answer.output_text
with client.responses.stream(model=MODEL, input=QUESTION, temperature=0, max_output_tokens=16) as stream:
    assert stream.get_final_response().output_text == answer.output_text
assert len(client.embeddings.create(model="all-minilm-l6-v2", input=["a", "b"]).data) == 2
code = None
try:
    client.chat.completions.create(model="none", messages=asked["messages"])
except openai.NotFoundError as fault:
    code = fault.code
assert code == "model_not_found"


async def main() -> None:
    own = {}
    if DIRECT:
        own["http_client"] = http.AsyncClient(transport=transport(asynchronous=True), timeout=120)
    async with openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, **own) as client:
        stream = await client.chat.completions.create(**asked, stream=True)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(said) == plain


asyncio.run(main())
