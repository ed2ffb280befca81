"""Fuzz what comes with a published model: safetensors, config.json, tokenizer.json, chat templates."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from confide_enclave.engine.checkpoint import gguf_name, read_metadata
from confide_enclave.engine.checkpoint_tokenizer import read_tokenizer
from confide_enclave.engine.encoder import WordPiece
from confide_enclave.engine.encoder_model import read_encoder_config
from confide_enclave.engine.gguf import decode_tensor, from_metadata
from confide_enclave.engine.safetensors_file import parse_json_object, parse_safetensors
from confide_enclave.engine.template import ChatTemplate
from confide_enclave.engine.tokens import Tokens
from confide_protocol.errors import ConfigError, EngineError

from tests.fakes import checkpoint as fake
from tests.fakes import encoder as toy_encoder
from tests.fakes.gguf import TEMPLATE

TREES: tuple[dict[str, Any], ...] = (fake.tokenizer(), fake.tokenizer_config(), fake.config())


def safetensors(data: bytes) -> None:
    try:
        for name, info in parse_safetensors(data, "model.safetensors").items():
            assert decode_tensor(data, info).shape == info.shape
            gguf_name(name)
    except ConfigError:
        return


def model_config(data: bytes) -> None:
    try:
        from_metadata("config.json", read_metadata(fake.config() | _tree(data), "config.json"), {}, _never)
    except ConfigError:
        return


def tokenizer(data: bytes) -> None:
    """Change members of the three files, one digit choosing which, and build the tokenizer from what is left."""
    which = data[:1].isdigit() and int(data[:1]) % 3
    try:
        tree = _tree(data[1:])
        tokenizer, tokenizer_config, config = (each | tree if n == which else each for n, each in enumerate(TREES))
        read = read_tokenizer(tokenizer, tokenizer_config, {}, config=config, template=None, file="toy")
        Tokens(from_metadata("toy", read, {}, _never)).encode("a the 1")
    except (ConfigError, EngineError):
        return


def template(data: bytes) -> None:
    messages = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "<think>x</think>"}]
    try:
        ChatTemplate(data.decode(errors="replace"), "f").render(messages=messages, tools=[{"a": [1]}])
    except (ConfigError, EngineError):
        return


def encoder(data: bytes) -> None:
    """Change members of an encoder's configuration or tokenizer, the first byte choosing which."""
    try:
        tree = parse_json_object(data[1:], "toy", "file")
        if data[:1] == b"0":
            read_encoder_config(toy_encoder.config() | tree, "toy")
        else:
            WordPiece(toy_encoder.tokenizer() | tree, "toy").encode("the cats [SEP]")
    except ConfigError:
        return


def _tree(data: bytes) -> dict[str, Any]:
    tree = parse_json_object(data, "toy", "file")
    # A member of a member is reached by its path: {"model.vocab": ...}.
    for path in [path for path in tree if "." in path]:
        first, _, rest = path.partition(".")
        tree[first] = TREES[0].get(first, {}) | {rest: tree.pop(path)} if first == "model" else tree.pop(path)
    return tree


def _never(_: object) -> Any:
    raise AssertionError


TARGETS: dict[str, Callable[[bytes], None]] = {
    "safetensors": safetensors,
    "model_config": model_config,
    "tokenizer": tokenizer,
    "template": template,
    "encoder": encoder,
}


def seeds() -> dict[str, list[bytes]]:
    parts = ("model.vocab", "model.merges", "added_tokens", "pre_tokenizer", "post_processor")
    flat = TREES[0] | {f"model.{name}": member for name, member in TREES[0]["model"].items()}
    return {
        "safetensors": [fake.safetensors({"a": np.ones((2, 2), np.float32), "b": np.zeros(3, np.float32)})],
        "model_config": [json.dumps(fake.config(family)).encode() for family in ("llama", "qwen2", "qwen3")],
        "tokenizer": [
            *(b"0" + json.dumps({part: flat[part]}).encode() for part in parts),
            b"1" + json.dumps(TREES[1]).encode(),
        ],
        "template": [TEMPLATE.encode()],
        "encoder": [
            b"0" + json.dumps(toy_encoder.config()).encode(),
            b"1" + json.dumps(toy_encoder.tokenizer()).encode(),
        ],
    }
