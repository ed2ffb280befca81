"""Read a published directory (config.json, tokenizer.json, *.safetensors) in GGUF terms: one converter serves all.

Metadata gets the keys, tensors the names and the row order that a GGUF file of the same model has.
"""

import re
from dataclasses import replace
from mmap import mmap
from pathlib import Path
from typing import Any, Final, NoReturn

from confide_protocol.errors import ConfigError

from confide_enclave.engine.checkpoint_tokenizer import read_tokenizer
from confide_enclave.engine.directory import Directory, map_file
from confide_enclave.engine.gguf import F32, Gguf, TensorInfo, Value, decode_tensor, from_metadata, parse_gguf

MAX_SHARDS: Final = 512
_INDEX: Final = "model.safetensors.index.json"
_SHARD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
_NAMES: Final = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_PARTS: Final = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_LAYER_TENSOR: Final = re.compile(r"model\.layers\.(\d{1,4})\.([a-z_.]+)\.(weight|bias)")
# Older files hold this table, which follows from the configuration.
_DERIVED: Final = re.compile(r"model\.layers\.\d{1,4}\.self_attn\.rotary_emb\.inv_freq")
_ROTATED: Final = re.compile(r"blk\.\d+\.attn_([qk])\.weight")


def open_source(path: Path) -> tuple[Gguf, bytes]:
    """Map a GGUF file or a published directory; return the model and the SHA-256 that stands for its bytes.

    Of a directory that is the SHA-256 over a line "<hex>  <name>" for each file that was read, in order of names.
    Raises: ConfigError. Does not check: that nobody writes to the files while they are mapped.
    """
    if path.is_dir():
        directory = Directory(path)
        model = _read_decoder(directory)
        return model, directory.digest()
    data, digest = map_file(path)
    return parse_gguf(data, str(path)), digest


def _read_decoder(directory: Directory) -> Gguf:
    config = directory.json("config.json")
    metadata = read_metadata(config, str(directory.path / "config.json"))
    names = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
    template = directory.path / "chat_template.jinja"
    metadata |= read_tokenizer(
        *(directory.json(name, needed=name == "tokenizer.json") for name in names),
        config=config,
        template=directory.read(template.name).decode(errors="replace") if template.is_file() else None,
        file=str(directory.path),
    )
    tied, family = config.get("tie_word_embeddings", False), metadata["general.architecture"]
    tensors: dict[str, TensorInfo] = {}
    places: dict[str, bytes | mmap] = {}
    for shard in _shards(directory):
        data, found = directory.tensors(shard)
        for published, info in found.items():
            name = gguf_name(published)
            if name is None or (tied is True and name == "output.weight"):
                continue
            if name in places:
                raise ConfigError(str(directory.path / shard), published, "is in two files")
            tensors[name], places[name] = replace(info, name=name), data
    key = f"{family}.attention.head_count"
    heads: dict[str, Any] = {"q": metadata[key], "k": metadata[f"{key}_kv"]}

    def array(info: TensorInfo) -> F32:
        values = decode_tensor(places[info.name], info)
        rotated = _ROTATED.fullmatch(info.name)
        return _pairs_layout(values, heads[rotated[1]]) if rotated and family == "llama" else values

    return from_metadata(str(directory.path), metadata, tensors, array)


def _shards(directory: Directory) -> list[str]:
    if not (directory.path / _INDEX).is_file():
        return ["model.safetensors"]
    shards = directory.json(_INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ConfigError(str(directory.path), _INDEX, "has no weight_map")
    names = sorted({str(name) for name in shards.values()})
    if len(names) > MAX_SHARDS or not all(map(_SHARD.fullmatch, names)):
        raise ConfigError(str(directory.path), _INDEX, "names what is no *.safetensors file of this directory")
    return names


def read_metadata(config: dict[str, Any], file: str) -> dict[str, Value]:
    """Say config.json in GGUF's keys. Raises: ConfigError on what the decoders here do not compute."""

    def refuse(field: str, remedy: str) -> NoReturn:
        raise ConfigError(file, field, remedy)

    def number(field: str, default: int | None = None) -> int:
        value = config.get(field)
        value = default if value is None else value
        if type(value) is not int or not 1 <= value < 1 << 31:
            refuse(field, "is not a whole number from 1")
        return value

    def real(tree: dict[str, Any], field: str, default: float | None = None) -> float:
        value = tree.get(field, default)
        if not isinstance(value, int | float) or not 0 < value < 1e30:
            refuse(field, "is not a number above 0")
        return float(value)

    family = config.get("model_type")
    if family not in ("llama", "qwen2", "qwen3"):
        refuse("model_type", "is not supported; use a model of llama, qwen2 or qwen3")
    # Newer files say both in one member.
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
        refuse("rope_scaling", "is not supported; use a model without RoPE scaling")
    plain = {
        "attention_bias": family == "qwen2", "mlp_bias": False, "use_sliding_window": False, "hidden_act": "silu",
        "quantization_config": None, "pretraining_tp": 1, "partial_rotary_factor": 1.0,
    }  # fmt: skip
    for field, wanted in plain.items():
        if config.get(field, wanted) not in (wanted, None):
            refuse(field, "is not supported; use a plain model of this kind")
    heads, width = number("num_attention_heads"), number("hidden_size")
    head_dim = number("head_dim", max(1, width // heads))
    base = real(rope if "rope_theta" in rope else config, "rope_theta", 10_000.0)
    return {
        "general.architecture": family,
        f"{family}.block_count": number("num_hidden_layers"),
        f"{family}.context_length": number("max_position_embeddings"),
        f"{family}.embedding_length": width,
        f"{family}.feed_forward_length": number("intermediate_size"),
        f"{family}.attention.head_count": heads,
        f"{family}.attention.head_count_kv": number("num_key_value_heads", heads),
        f"{family}.attention.key_length": head_dim,
        f"{family}.attention.value_length": head_dim,
        f"{family}.rope.dimension_count": head_dim,
        f"{family}.rope.freq_base": base,
        f"{family}.attention.layer_norm_rms_epsilon": real(config, "rms_norm_eps"),
    }


def gguf_name(name: str) -> str | None:
    """Return GGUF's name of a published tensor, an unknown one's own, or None for what is derived."""
    if _DERIVED.fullmatch(name):
        return None
    if match := _LAYER_TENSOR.fullmatch(name):
        number, part, kind = match.groups()
        return f"blk.{int(number)}.{_PARTS[part]}.{kind}" if part in _PARTS else name
    return _NAMES.get(name, name)


def _pairs_layout(rows: F32, heads: int) -> F32:
    """Give query and key rows llama.cpp's order (pairs side by side), from that for rope in halves."""
    if rows.ndim != 2 or len(rows) % (2 * heads):
        return rows
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
