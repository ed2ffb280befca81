"""The default model as a published directory: what the float weights of the peers lack is its tokenizer."""

import json
from pathlib import Path
from typing import Any, Final

from confide_enclave.engine.card import default_weights
from confide_enclave.engine.gguf import Gguf
from confide_enclave.engine.package import read_weights
from confide_enclave.engine.pretokenizers import PRE_TOKENIZERS
from confide_enclave.engine.tokens import CONTROL, NORMAL

from tests.bench.engine_weights import published
from tests.fakes.checkpoint import added

NAME: Final = "smollm2-135m-instruct"


def write_model(folder: Path) -> Path:
    """Write the directory and return it; takes seconds where the weights were never written."""
    weights, (gguf, _) = published(), read_weights(default_weights())
    folder.mkdir(parents=True)
    (folder / "model.safetensors").symlink_to(weights / "model.safetensors")
    names, template = gguf.strings("tokenizer.ggml.tokens"), gguf.get("tokenizer.chat_template", str)
    bos, eos = (names[gguf.get(f"tokenizer.ggml.{each}_token_id", int)] for each in ("bos", "eos"))
    config = json.loads((weights / "config.json").read_text())
    ends = {"bos_token_id": names.index(bos), "eos_token_id": names.index(eos)}
    trees: dict[str, Any] = {
        "config.json": config | ends,
        "tokenizer.json": tokenizer(gguf),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "eos_token": eos,
            "chat_template": template,
            "clean_up_tokenization_spaces": False,
        },
    }
    for name, tree in trees.items():
        (folder / name).write_text(json.dumps(tree))
    return folder


def tokenizer(gguf: Gguf) -> dict[str, Any]:
    """Return tokenizer.json, from which both sides read the same ids."""
    names, kinds = gguf.strings("tokenizer.ggml.tokens"), gguf.get("tokenizer.ggml.token_type", list)
    merges = [merge.partition(" ")[::2] for merge in gguf.strings("tokenizer.ggml.merges")]
    # With the control tokens: a library gives those that the vocabulary lacks other ids.
    words = {name: number for number, name in enumerate(names) if kinds[number] in (NORMAL, CONTROL)}
    pre = PRE_TOKENIZERS[gguf.get("tokenizer.ggml.pre", str)]
    tree: dict[str, Any] = json.loads(pre.encoder(words, merges).to_str())
    specials = [added(number, name) for number, name in enumerate(names) if kinds[number] == CONTROL]
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return tree | {"added_tokens": specials, "decoder": decoder}
