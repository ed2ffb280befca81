"""Embeddings: through an embedder where there is one."""

import base64
import json
import struct

import pytest
from confide_enclave.engine import Embedded, ModelCard
from confide_enclave.errors import Refusal
from openai.types import CreateEmbeddingResponse

from tests.fakes.engine import CARD, ScriptedEngine
from tests.unit.enclave.api.asking import ask

pytestmark = pytest.mark.anyio

PATH = "/v1/embeddings"


class Lengths:
    """A vector that tells a text's length."""

    card = ModelCard("lengths", CARD.weights_digest, CARD.tokenizer_digest, 512, {})

    async def embed(self, texts):
        return Embedded([[float(len(text)), 0.5] for text in texts], [len(text.split()) for text in texts])


async def embed(**changes):
    return await ask(ScriptedEngine(), PATH, {"model": "lengths", "input": "a b", **changes}, embedder=Lengths())


async def test_vectors_come_in_order_with_their_usage() -> None:
    """For one text or many; there is no message, and the tokens are counted."""
    answer, (body,) = await embed(input=["a b", "c"])
    parsed = CreateEmbeddingResponse.model_validate(json.loads(body), strict=True)
    assert [each.embedding for each in parsed.data] == [[3.0, 0.5], [1.0, 0.5]]
    assert (parsed.usage.prompt_tokens, answer.record.prompt_tokens, answer.record.messages) == (3, 3, [])


async def test_base64_is_float32() -> None:
    """What OpenAI's client asks for by itself."""
    _, (body,) = await embed(encoding_format="base64")
    data = base64.b64decode(json.loads(body)["data"][0]["embedding"])
    assert struct.unpack("<2f", data) == (3.0, 0.5)


async def test_both_models_are_listed() -> None:
    """Each serves its own endpoints."""
    _, (body,) = await ask(ScriptedEngine(), "/v1/models", method="GET", embedder=Lengths())
    assert [model["id"] for model in json.loads(body)["data"]] == ["scripted", "lengths"]
    with pytest.raises(Refusal):
        await embed(model="scripted")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"dimensions": 2}, "dimensions"),
        ({"input": []}, "input"),
        ({"input": [[1, 2]]}, "input[0]"),
        ({"input": ""}, "input[0]"),
    ],
)
async def test_what_is_not_done_is_refused(changes: dict, param: str) -> None:
    """By name."""
    with pytest.raises(Refusal) as caught:
        await embed(**changes)
    assert caught.value.param == param


async def test_without_an_embedder_there_are_none() -> None:
    """A clear 404."""
    with pytest.raises(Refusal) as caught:
        await ask(ScriptedEngine(), PATH, {"model": "scripted", "input": "x"})
    assert (caught.value.status, caught.value.name) == (404, "model_not_found")
