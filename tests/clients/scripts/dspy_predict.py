"""DSPy: a bare call, and a signature that is predicted in JSON of a given shape."""

import dspy
from way import BASE_URL, KEY, MODEL, QUESTION

asked = {"temperature": 0.0, "max_tokens": 64, "cache": False, "num_retries": 0}
lm = dspy.LM(f"openai/{MODEL}", api_base=BASE_URL, api_key=KEY, **asked)
assert "Paris" in str(lm(QUESTION)[0])
schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
shape = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "schema": {**schema, "additionalProperties": False}},
}
dspy.configure(lm=lm, adapter=dspy.JSONAdapter())
found = dspy.Predict("question -> answer", response_format=shape)(question=QUESTION)
assert found.answer
