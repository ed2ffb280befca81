"""An agent: the model calls a function of yours, reads what it returned, and answers."""

import json
import os

from confide import OpenAI

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo"}
country = {"type": "string", "enum": list(CAPITALS)}
parameters = {
    "type": "object",
    "properties": {"country": country},
    "required": ["country"],
    "additionalProperties": False,
}
tools = [
    {
        "type": "function",
        "function": {"name": "capital_of", "description": "A country's capital.", "parameters": parameters},
    }
]
client = OpenAI(
    base_url=os.environ["CONFIDE_URL"],
    api_key=os.environ["CONFIDE_API_KEY"],
    policy="policy.toml",
    allow_simulated=True,
)
asked = {"model": "smollm2-135m-instruct", "temperature": 0, "max_tokens": 64, "tools": tools}
messages = [{"role": "user", "content": "What is the capital of Italy?"}]
said = client.chat.completions.create(**asked, messages=messages, tool_choice="required").choices[0].message
messages.append(said.to_dict())
for call in said.tool_calls:
    found = CAPITALS[json.loads(call.function.arguments)["country"]]
    messages.append({"role": "tool", "tool_call_id": call.id, "content": found})
    print("called", call.function.name, call.function.arguments, "->", found)
print(client.chat.completions.create(**asked, messages=messages, tool_choice="none").choices[0].message.content)
