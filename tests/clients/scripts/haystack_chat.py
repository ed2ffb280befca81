"""Haystack: a chat generator in a pipeline, streamed, with a tool; embeddings of documents."""

import httpx2
from haystack import Document, Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.embedders import OpenAIDocumentEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool
from haystack.utils import Secret
from way import BASE_URL, DIRECT, KEY, MODEL, QUESTION, transport

own = {"http_client_kwargs": {"transport": transport(), "timeout": 120}} if DIRECT else {}
assert httpx2
place = {"api_key": Secret.from_token(KEY), "api_base_url": BASE_URL, "max_retries": 0, **own}
asked = {"temperature": 0, "max_tokens": 48}
parts = []
generator = OpenAIChatGenerator(model=MODEL, generation_kwargs=asked, **place)
pipeline = Pipeline()
pipeline.add_component("prompt", ChatPromptBuilder(template=[ChatMessage.from_user("{{question}}")]))
pipeline.add_component("model", generator)
pipeline.connect("prompt.prompt", "model.messages")
said = pipeline.run({"prompt": {"question": QUESTION}})["model"]["replies"][0].text
assert "Paris" in said
streaming = OpenAIChatGenerator(
    model=MODEL, generation_kwargs=asked, streaming_callback=lambda chunk: parts.append(chunk.content), **place
)
assert streaming.run([ChatMessage.from_user(QUESTION)])["replies"][0].text == said == "".join(parts)
schema = {"type": "object", "properties": {"country": {"type": "string"}}, "required": ["country"]}
tool = Tool("capital_of", "A country's capital.", schema, lambda country: "Paris")
calling = OpenAIChatGenerator(
    model=MODEL, generation_kwargs={**asked, "tool_choice": "required"}, tools=[tool], **place
)
assert calling.run([ChatMessage.from_user("What is the capital of France?")])["replies"][0].tool_calls
embedder = OpenAIDocumentEmbedder(model="all-minilm-l6-v2", progress_bar=False, **place)
(document,) = embedder.run([Document(content="a")])["documents"]
assert len(document.embedding) == 384
