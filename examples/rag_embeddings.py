"""Search by embeddings, then an answer from what was found: documents, question and answer stay sealed."""

import os

from confide import OpenAI

DOCUMENTS = [
    "The night train to Vienna leaves from platform 9 at 22:40.",
    "Refunds are paid within fourteen days of the return.",
    "The library opens at ten and closes at six, on Sundays at two.",
]
client = OpenAI(
    base_url=os.environ["CONFIDE_URL"],
    api_key=os.environ["CONFIDE_API_KEY"],
    policy="policy.toml",
    allow_simulated=True,
)
question = "When does the train to Vienna leave?"
answer = client.embeddings.create(model="all-minilm-l6-v2", input=[*DOCUMENTS, question])
*documents, asked = [each.embedding for each in answer.data]
scores = [sum(a * b for a, b in zip(document, asked, strict=True)) for document in documents]
found = DOCUMENTS[scores.index(max(scores))]
print("found:", found)
prompt = f"Context: {found}\nQuestion: {question}\nAnswer in one sentence."
messages = [{"role": "user", "content": prompt}]
said = client.chat.completions.create(
    model="smollm2-135m-instruct", messages=messages, temperature=0, max_tokens=40
)
print(said.choices[0].message.content)
