"""Published directories: the same model as a GGUF file gives, and a named fault for what is not supported."""

import json
from pathlib import Path

import numpy as np
import pytest
from confide_enclave.engine import ChatMessage
from confide_enclave.engine.checkpoint import open_source
from confide_enclave.engine.config import read_config
from confide_enclave.engine.convert import convert
from confide_enclave.engine.package import open_package, write_package
from confide_enclave.engine.tokens import Tokens
from confide_protocol.errors import ConfigError

from tests.fakes import checkpoint as fake
from tests.fakes import gguf

TO_GGUF = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def as_gguf() -> bytes:
    """Write the toy llama as llama.cpp's converter does: its names, and query and key rows in pairs."""
    arrays = {}
    for name, array in fake.tensors().items():
        if not name.startswith("model.layers."):
            name = {"model.embed_tokens.weight": "token_embd.weight"}.get(name, "output_norm.weight")
        else:
            _, _, layer, part = name.removesuffix(".weight").split(".", 3)
            name = f"blk.{layer}.{TO_GGUF[part]}.weight"
            heads = {"attn_q": fake.HEADS, "attn_k": fake.KV_HEADS}.get(TO_GGUF[part])
            if heads:
                halves = array.reshape(heads, 2, -1, fake.WIDTH)
                array = np.stack([halves[:, 0], halves[:, 1]], 2).reshape(array.shape)
        arrays[name] = (array, "F32")
    return gguf.write(gguf.toy_metadata(), arrays)


def test_the_same_as_gguf(tmp_path: Path) -> None:
    """Configuration, arrays, ids and chat of a directory are those of the GGUF file of the same model."""
    (tmp_path / "toy.gguf").write_bytes(as_gguf())
    (one, digest), (other, other_digest) = (
        open_source(path) for path in (tmp_path / "toy.gguf", fake.write(tmp_path / "toy"))
    )
    assert read_config(one) == read_config(other)
    for (name, left), (same, right) in zip(convert(one, "w8a8"), convert(other, "w8a8"), strict=True):
        assert name == same
        assert np.array_equal(left, right)
    chat = [ChatMessage("user", "the <|im_end|> é")]
    assert Tokens(one).encode(chat) == Tokens(other).encode(chat)
    assert Tokens(one).end_ids == Tokens(other).end_ids
    assert digest != other_digest


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("shards", [1, 3])
def test_families(tmp_path: Path, family: str, shards: int) -> None:
    """Each family converts, whole or in shards, and the package says the same of it."""
    source, digest = open_source(fake.write(tmp_path / "toy", family, shards))
    config = read_config(source)
    assert (config.layers, config.width, config.heads) == (fake.LAYERS, fake.WIDTH, fake.HEADS)
    assert (config.qkv_bias, config.head_norm) == (family == "qwen2", family == "qwen3")
    assert config.head_dim == (16 if family == "qwen3" else 8)
    (tmp_path / "package").mkdir()
    write_package(source, digest, "w8a8", tmp_path / "package")
    package = open_package(tmp_path / "package")
    assert package.source_digest == digest
    assert read_config(package.metadata) == config
    assert package.metadata.metadata == source.metadata
    if family != "llama":
        array = source.array("blk.0.attn_q.weight")
        assert np.array_equal(array, fake.tensors(family)["model.layers.0.self_attn.q_proj.weight"])


def test_digest_covers_every_file(tmp_path: Path) -> None:
    """Another word in any file is another source; what is not read does not count."""
    fake.write(tmp_path)
    (tmp_path / "README.md").write_text("x")
    digests = {open_source(tmp_path)[1]}
    (tmp_path / "README.md").write_text("y")
    digests.add(open_source(tmp_path)[1])
    assert len(digests) == 1
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + " ")
        digests.add(open_source(tmp_path)[1])
    (tmp_path / "chat_template.jinja").write_text(gguf.TEMPLATE)
    digests.add(open_source(tmp_path)[1])
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mamba"}, "model_type"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_scaling"),
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"rope_theta": "1"}, "rope_theta"),
        ({"rope_theta": 1e300}, "rope_theta"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"num_hidden_layers": 1.5}, "num_hidden_layers"),
        ({"rms_norm_eps": None}, "rms_norm_eps"),
        ({"vocab_size": 3}, "vocab_size"),
        ({"vocab_size": 1 << 30}, "vocab_size"),
    ],
)
def test_unsupported_configurations(tmp_path: Path, changes: dict, words: str) -> None:
    """What the decoders do not compute is refused by file and field, not computed wrongly."""
    with pytest.raises(ConfigError, match=rf"config\.json: {words}: "):
        open_source(fake.write(tmp_path, **changes))


def edit(directory: Path, name: str, change) -> None:
    tree = json.loads((directory / name).read_text())
    change(tree)
    (directory / name).write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("tokenizer.json", lambda tree: tree["model"].update(type="Unigram"), "byte-level BPE"),
        ("tokenizer.json", lambda tree: tree["model"].update(end_of_word_suffix="</w>"), "not supported"),
        ("tokenizer.json", lambda tree: tree.update(pre_tokenizer={"type": "Whitespace"}), "not one that is known"),
        ("tokenizer.json", lambda tree: tree.update(normalizer={"type": "NFKC"}), "not one that is known"),
        ("tokenizer.json", lambda tree: tree["added_tokens"][0].update(lstrip=True), "added_tokens"),
        ("tokenizer.json", lambda tree: tree["added_tokens"][0].update(id=3), "two tokens"),
        ("tokenizer.json", lambda tree: tree["added_tokens"][0].update(id=-3), "no token"),
        ("tokenizer.json", lambda tree: tree["model"]["vocab"].update({"a": "b"}), "no token"),
        ("tokenizer.json", lambda tree: tree["model"]["vocab"].update({"\ud800": 0}), "two tokens"),
        ("tokenizer.json", lambda tree: tree["added_tokens"][0].update(content="\ud800"), "GGUF cannot"),
        ("tokenizer_config.json", lambda tree: tree.update(chat_template=None), "chat_template"),
        ("config.json", lambda tree: tree.update(eos_token_id=None), None),
    ],
)
def test_tokenizers(tmp_path: Path, name: str, change, words: str | None) -> None:
    """A tokenizer that nothing vouches for is refused; one end of an answer is enough."""
    edit(fake.write(tmp_path), name, change)
    if words is None:
        assert Tokens(open_source(tmp_path)[0]).end_ids == {0, 2}
        return
    with pytest.raises(ConfigError, match=words):
        open_source(tmp_path)


def test_added_tokens_and_holes(tmp_path: Path) -> None:
    """Added text is never cut; ids beyond the tokenizer's are filled with tokens that say nothing."""
    fake.write(tmp_path, vocab_size=fake.config()["vocab_size"] + 3)
    size = fake.config()["vocab_size"]
    edit(
        tmp_path,
        "tokenizer.json",
        lambda tree: tree["added_tokens"].append(fake.added(size, "<think>", special=False)),
    )
    tokens = Tokens(open_source(tmp_path)[0])
    assert tokens.size == size + 3
    assert tokens.encode("a<think>b")[1] == size
    assert [tokens.token_bytes(token) for token in range(size, size + 3)] == [b"<think>", b"", b""]


def test_bos(tmp_path: Path) -> None:
    """Whether a beginning is added stands in the configuration or in the post-processor."""
    single = [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    processor = {"type": "Sequence", "processors": [{"type": "TemplateProcessing", "single": single}]}
    edit(fake.write(tmp_path), "tokenizer.json", lambda tree: tree.update(post_processor=processor))
    assert Tokens(open_source(tmp_path)[0]).encode("a")[0] == 1
    edit(tmp_path, "tokenizer_config.json", lambda tree: tree.update(add_bos_token=False))
    assert Tokens(open_source(tmp_path)[0]).encode("a")[0] != 1


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_files(tmp_path: Path, name: str) -> None:
    """What is not there is named."""
    (fake.write(tmp_path) / name).unlink()
    with pytest.raises(ConfigError, match=f"{name}: .*cannot be read"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "tree", [{}, {"weight_map": []}, {"weight_map": {"a": "../model.safetensors"}}, {"weight_map": {"a": "x.bin"}}]
)
def test_indexes(tmp_path: Path, tree: dict) -> None:
    """An index names files of its own directory, of one kind, or is refused."""
    (fake.write(tmp_path) / "model.safetensors.index.json").write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=r"index\.json"):
        open_source(tmp_path)


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    """Which one would be meant nobody can say."""
    fake.write(tmp_path, shards=2)
    one, other = sorted(tmp_path.glob("model-*.safetensors"))
    other.write_bytes(one.read_bytes())
    with pytest.raises(ConfigError, match="two files"):
        open_source(tmp_path)


def test_tied_and_derived(tmp_path: Path) -> None:
    """A tied head that is written all the same is left out, and so is a table that follows from the rest."""
    fake.write(tmp_path, tie_word_embeddings=True)
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    (tmp_path / "model.safetensors").write_bytes(fake.safetensors(fake.tensors(tied=False) | more))
    assert "output.weight" not in open_source(tmp_path)[0].tensors
    edit(tmp_path, "config.json", lambda tree: tree.update(tie_word_embeddings=False))
    assert "output.weight" in open_source(tmp_path)[0].tensors
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="empty"):
        open_source(tmp_path)
