"""instructor: an object out of an answer."""

import httpx2
import instructor
import openai
from pydantic import BaseModel
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport


class Place(BaseModel):
    city: str


own = {"http_client": httpx2.Client(transport=transport(), timeout=120)} if DIRECT else {}
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key=KEY, **own), mode=mode)
    messages = [{"role": "user", "content": QUESTION}]
    found = client.chat.completions.create(
        model=MODEL, response_model=Place, messages=messages, temperature=0, max_tokens=48, max_retries=0
    )
    assert found.city
