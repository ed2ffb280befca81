"""Embeddings of the packaged encoder through the real stack: sealed, signed, and bit for bit its own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from confide_enclave.engine.directory import Directory
from confide_enclave.engine.encoder import BertEmbedder
from confide_enclave.engine.encoder_card import EncoderLimits, default_encoder, read_encoder_card
from confide_protocol.errors import ConfigError

from tests.fakes.stack import Stack, ask, running_stack

NAME = "all-minilm-l6-v2"
TEXTS = ["A cat sat on the mat.", "Eine Katze saß auf der Matte.", "The central bank raised its rates again."]


@pytest.fixture(scope="module")
def encoder() -> Path:
    try:
        return default_encoder()
    except ConfigError as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="module")
def embedding(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("embedding"), gpus=0, enclave_settings="[embeddings]\n") as running:
        yield running


@pytest.mark.anyio
async def test_vectors_are_the_encoders_own(embedding: Stack, encoder: Path) -> None:
    """As base64, which openai asks for by itself, and as numbers; alone and in a list; counted as it counts."""
    embedder = BertEmbedder(encoder, NAME, EncoderLimits())
    own = await embedder.embed(TEXTS)
    await embedder.close()
    with embedding.openai() as client:
        packed = client.embeddings.create(model=NAME, input=TEXTS)
        plain = client.embeddings.create(model=NAME, input=TEXTS, encoding_format="float")
        alone = client.embeddings.create(model=NAME, input=TEXTS[2])
    vectors = np.array(own.vectors, np.float32)
    for answer in (packed, plain):
        assert [each.index for each in answer.data] == [0, 1, 2]
        assert np.array_equal(np.array([each.embedding for each in answer.data], np.float32), vectors)
        assert answer.usage.prompt_tokens == sum(own.token_counts)
    assert np.array_equal(np.array(alone.data[0].embedding, np.float32), vectors[2])
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > likeness[0, 2]


def test_the_receipt_leads_to_the_encoder(embedding: Stack, encoder: Path) -> None:
    """The receipt commits to the manifest, which the policy pins, and which names the encoder and its digests."""
    card = read_encoder_card(Directory(encoder), NAME)
    with embedding.openai() as client:
        client.embeddings.create(model=NAME, input=TEXTS)
        assert client.last_receipt is not None
        claims = client.last_receipt.claims
    manifest = embedding.relay().ready().manifest
    assert (claims.outcome, claims.status, claims.completion_tokens) == ("complete", 200, 0)
    assert claims.manifest_digest == manifest.digest
    assert manifest.engine["embeddings"] == NAME
    assert manifest.engine["embeddings_weights"] == card.weights_digest.hex()
    assert manifest.engine["embeddings_tokenizer"] == card.tokenizer_digest.hex()


def test_both_models_are_listed_and_each_has_its_path(embedding: Stack) -> None:
    """The encoder does not chat, the decoder gives no vectors, and what is too much is refused, sealed."""
    with embedding.openai() as client:
        assert [model.id for model in client.models.list().data] == [embedding.model, NAME]
        assert ask(client).choices[0].message.content
        for wrong in (
            lambda: client.embeddings.create(model=embedding.model, input="text"),
            lambda: client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "Hi"}]),
        ):
            with pytest.raises(openai.NotFoundError) as fault:
                wrong()
            assert fault.value.code == "model_not_found"
        with pytest.raises(openai.APIStatusError) as long:
            client.embeddings.create(model=NAME, input="word " * 600)
        assert (long.value.status_code, long.value.code) == (413, "context_too_long")
