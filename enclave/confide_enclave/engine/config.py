"""A decoder's shape, checked, out of a model file's metadata. Needs no torch."""

from dataclasses import dataclass
from typing import Final

from confide_protocol.errors import ConfigError

from confide_enclave.engine.gguf import Gguf

MAX_LAYERS: Final = 512
ARCHITECTURES: Final = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class DecoderConfig:
    """`qkv_bias` (qwen2): the three projections add one; `head_norm` (qwen3): query and key heads are normed."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    context_tokens: int
    rope_base: float
    epsilon: float
    qkv_bias: bool = False
    head_norm: bool = False


def architecture(gguf: Gguf) -> str:
    """Return the family that the file names. Raises: ConfigError when the engine has none of that name."""
    name: str = gguf.get("general.architecture", str)
    if name not in ARCHITECTURES:
        raise ConfigError(
            gguf.file, "general.architecture", f"is not supported; use one of {', '.join(ARCHITECTURES)}"
        )
    return name


def read_config(gguf: Gguf) -> DecoderConfig:
    """Read and check the metadata of a decoder. Raises: ConfigError."""
    family = architecture(gguf)

    def count(key: str, limit: int, default: int | None = None) -> int:
        number: int = gguf.get(f"{family}.{key}", int, default)
        if not 1 <= number <= limit:
            raise ConfigError(gguf.file, f"{family}.{key}", f"must be 1 to {limit}")
        return number

    width, heads = count("embedding_length", 1 << 16), count("attention.head_count", 1 << 10)
    kv_heads = count("attention.head_count_kv", heads, heads)
    head_dim = count("attention.key_length", 1 << 10, count("rope.dimension_count", 1 << 10, width // heads))
    fits = heads * head_dim == width or family == "qwen3"
    if (
        not fits
        or heads % kv_heads
        or head_dim % 2
        or count("attention.value_length", 1 << 10, head_dim) != head_dim
    ):
        raise ConfigError(
            gguf.file, f"{family}.attention.head_count", "does not divide the model's width into even heads"
        )
    if gguf.get(f"{family}.rope.scaling.type", str, "none") != "none":
        raise ConfigError(
            gguf.file, f"{family}.rope.scaling.type", "is not supported; use a model without RoPE scaling"
        )
    base: float = gguf.get(f"{family}.rope.freq_base", float, 10_000.0)
    epsilon: float = gguf.get(f"{family}.attention.layer_norm_rms_epsilon", float)
    if not (1 < base < 1e12 and 0 < epsilon < 1):
        raise ConfigError(gguf.file, f"{family}.rope.freq_base", "or layer_norm_rms_epsilon is out of range")
    return DecoderConfig(
        layers=count("block_count", MAX_LAYERS),
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden=count("feed_forward_length", 1 << 16),
        vocabulary=len(gguf.strings("tokenizer.ggml.tokens")),
        context_tokens=count("context_length", 1 << 24),
        rope_base=base,
        epsilon=epsilon,
        qkv_bias=family == "qwen2",
        head_norm=family == "qwen3",
    )
