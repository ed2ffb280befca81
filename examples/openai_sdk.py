"""OpenAI's SDK: one changed import, and a policy."""

import os

from confide import OpenAI  # instead of: from openai import OpenAI

client = OpenAI(
    base_url=os.environ["CONFIDE_URL"],
    api_key=os.environ["CONFIDE_API_KEY"],
    policy="policy.toml",
    allow_simulated=True,  # the playground; leave it out before a real gateway
)
model = client.models.list().data[0].id
asked = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
for chunk in client.chat.completions.create(model=model, messages=asked, temperature=0, max_tokens=32, stream=True):
    print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
print("\n" + client.attestation.summary)
print("receipt:", client.last_receipt.as_dict()["sealed_request_sha256"])
