"""Embeddings: right by definition, the same in any company, bounded; the packaged encoder, where it is there."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from confide_enclave.engine import ModelCard, encoder
from confide_enclave.engine.directory import Directory
from confide_enclave.engine.encoder import BertEmbedder, WordPiece
from confide_enclave.engine.encoder_card import EncoderLimits, default_encoder, read_encoder_card
from confide_protocol.errors import CapacityExceeded, ConfigError, ContextTooLong, EngineError

from tests.fakes import encoder as fake
from tests.fakes.checkpoint import safetensors

pytestmark = pytest.mark.anyio
LIMITS = EncoderLimits(max_texts=4, max_tokens=20, max_waiting=2)
TEXTS = ["the cats sat", "cat", "", "sat the cat cats"]
IDS = [[2, 4, 5, 6, 7, 3], [2, 5, 3], [2, 3], [2, 7, 4, 5, 5, 6, 3]]


@pytest.fixture
async def embedder(tmp_path: Path) -> AsyncIterator[BertEmbedder]:
    embedder = BertEmbedder(fake.write(tmp_path / "toy"), "toy", LIMITS)
    yield embedder
    await embedder.close()


async def test_vectors(embedder: BertEmbedder) -> None:
    """Vectors and token counts are those of the definition, to rounding; each has length 1."""
    embedded = await embedder.embed(TEXTS)
    assert embedded.token_counts == [len(ids) for ids in IDS]
    for vector, ids in zip(embedded.vectors, IDS, strict=True):
        np.testing.assert_allclose(vector, fake.oracle(fake.tensors(), ids), atol=2e-6)


async def test_company_changes_nothing(embedder: BertEmbedder) -> None:
    """Alone, in a list, or beside other calls: the same bits."""
    alone = [(await embedder.embed([text])).vectors[0] for text in TEXTS]
    assert (await embedder.embed(TEXTS)).vectors == alone
    together = await asyncio.gather(*(embedder.embed([text]) for text in TEXTS[:3]))
    assert [embedded.vectors[0] for embedded in together] == alone[:3]


async def test_special_tokens_are_plain_text(embedder: BertEmbedder, tmp_path: Path) -> None:
    """What looks like a special token is its characters; half a character is none."""
    tokens = WordPiece(json.loads((tmp_path / "toy/tokenizer.json").read_text()), "f")
    assert tokens.encode("[SEP]") == [2, 8, 10, 9, 3]
    assert tokens.encode("CÄT\ud800s") == [2, 5, 6, 3]
    assert (await embedder.embed(["[SEP]"])).token_counts == [5]


async def test_card(embedder: BertEmbedder, tmp_path: Path) -> None:
    """The card names the files that were read, and how long a text may be."""
    card = embedder.card
    assert (card.name, card.context_tokens, card.engine["dimensions"]) == ("toy", 8, fake.WIDTH)
    same = BertEmbedder(fake.write(tmp_path / "same"), "toy", LIMITS)
    other = BertEmbedder(fake.write(tmp_path / "other", layer_norm_eps=1e-11), "toy", LIMITS)
    assert same.card == card
    assert other.card.weights_digest != card.weights_digest
    assert other.card.tokenizer_digest == card.tokenizer_digest


@pytest.mark.parametrize(
    "texts", [["cat"] * 5, ["cat " * 7], ["cat " * 9999], ["cat " * 5] * 3], ids=["texts", "long", "huge", "sum"]
)
async def test_too_much(embedder: BertEmbedder, texts: list[str]) -> None:
    """Too many texts, one too long, or too long together: refused before anything is computed."""
    with pytest.raises(ContextTooLong):
        await embedder.embed(texts)


async def test_capacity(embedder: BertEmbedder) -> None:
    """Who finds the waiting room full is told so, and a place that becomes free is given out again."""
    results = await asyncio.gather(*(embedder.embed(TEXTS[:1]) for _ in range(6)), return_exceptions=True)
    assert [type(result) for result in results].count(CapacityExceeded) == 3
    assert (await embedder.embed(TEXTS[:1])).token_counts == [6]


async def test_cancelled(embedder: BertEmbedder) -> None:
    """A caller that goes away leaves the rest of its texts uncomputed, and its place to others."""
    calls = [asyncio.ensure_future(embedder.embed(TEXTS)) for _ in range(3)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert all(call.cancelled() for call in calls)
    assert (await embedder.embed(["cat"])).token_counts == [3]


async def test_faults(embedder: BertEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong inside is one error that repeats nothing; closed is closed."""

    def fail(_: object) -> None:
        raise ValueError("CANARY")

    monkeypatch.setattr(embedder._model, "encode", fail)
    with pytest.raises(EngineError) as caught:
        await embedder.embed(["cat"])
    assert "CANARY" not in str(caught.value)
    waiting = asyncio.ensure_future(embedder.embed(["cat"]))
    await embedder.close()
    with pytest.raises(EngineError):
        await waiting
    with pytest.raises(EngineError, match="closed"):
        await embedder.embed(["cat"])


def test_other_prefix(tmp_path: Path) -> None:
    """Some files call every tensor bert.…"""
    BertEmbedder(fake.write(tmp_path, "bert."), "toy", LIMITS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "roberta"}, "model_type"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"num_attention_heads": 3}, "num_attention_heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 3}, r"encoder\.layer\.2"),
        ({"hidden_size": 1 << 20}, "hidden_size"),
        ({"intermediate_size": 8}, "intermediate"),
        ({"layer_norm_eps": 1}, "layer_norm_eps"),
        ({"vocab_size": 3}, "word_embeddings"),
    ],
)
def test_unsupported(tmp_path: Path, changes: dict, words: str) -> None:
    """Another kind of encoder, or tensors that are not the configuration's, is refused by name."""
    with pytest.raises(ConfigError, match=words):
        BertEmbedder(fake.write(tmp_path, **changes), "toy", LIMITS)


def test_not_finite(tmp_path: Path) -> None:
    """Not a number among the weights is found before it reaches a vector."""
    arrays = fake.tensors() | {"embeddings.LayerNorm.bias": np.full(fake.WIDTH, np.nan, np.float32)}
    (fake.write(tmp_path) / "model.safetensors").write_bytes(safetensors(arrays))
    with pytest.raises(ConfigError, match="not finite"):
        BertEmbedder(tmp_path, "toy", LIMITS)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.pop("model"),
        lambda tree: tree.update(model=[]),
        lambda tree: tree["model"].update(type="BPE"),
        lambda tree: tree["model"]["vocab"].pop("[CLS]"),
        lambda tree: tree["model"]["vocab"].pop("[UNK]"),
        lambda tree: tree["model"]["vocab"].update({"x": 99}),
        lambda tree: tree.update(normalizer={"type": "NFC"}),
        lambda tree: tree.update(pre_tokenizer=None),
    ],
)
def test_other_tokenizers(tmp_path: Path, change) -> None:
    """Only the kind that is tested here is taken."""
    tree = fake.tokenizer()
    change(tree)
    (fake.write(tmp_path) / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        BertEmbedder(tmp_path, "toy", LIMITS)


async def test_what_was_hashed_is_what_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are exchanged after the card was read: the vectors are those of the card's files."""
    path = fake.write(tmp_path / "toy")

    def exchange(directory: Directory, name: str) -> ModelCard:
        card = read_encoder_card(directory, name)
        arrays = {name: array + 1 for name, array in fake.tensors().items()}
        (path / "model.safetensors").write_bytes(safetensors(arrays))
        (path / "tokenizer.json").write_text("{}")
        return card

    monkeypatch.setattr(encoder, "read_encoder_card", exchange)
    embedder = BertEmbedder(path, "toy", LIMITS)
    (vector,) = (await embedder.embed(TEXTS[:1])).vectors
    await embedder.close()
    np.testing.assert_allclose(vector, fake.oracle(fake.tensors(), IDS[0]), atol=2e-6)


async def test_packaged_encoder() -> None:
    """It gives the similarities that its makers publish, and knows a kitten from revenue."""
    try:
        path = default_encoder()
    except ConfigError as absent:
        pytest.skip(str(absent))
    embedder = BertEmbedder(path, "all-minilm-l6-v2", EncoderLimits())
    texts = [
        "The weather is lovely today.",
        "It's so sunny outside!",
        "He drove to the stadium.",
        "cat",
        "kitten",
        "revenue",
    ]
    vectors = np.array((await embedder.embed(texts)).vectors)
    await embedder.close()
    similarity = vectors @ vectors.T
    np.testing.assert_allclose(
        [similarity[0, 1], similarity[0, 2], similarity[1, 2]], [0.6660, 0.1046, 0.1411], atol=5e-5
    )
    assert similarity[3, 4] > 0.7 > 0.4 > similarity[3, 5]
    assert embedder.card.context_tokens == 256
