"""Writes GGUF files: any metadata and tensors, or a whole toy llama with random weights. Needs no torch."""

import struct
from collections.abc import Mapping

import numpy as np
from tokenizers import pre_tokenizers

CODES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "BF16": 30}
CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYERS, WIDTH, HEADS, KV_HEADS, HIDDEN, CONTEXT = 2, 32, 4, 2, 64, 256


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value(item) -> bytes:
    """Encode a metadata value with its type, which follows from the Python type."""
    match item:
        case bool():
            return struct.pack("<I?", 7, item)
        case int():
            return struct.pack("<II", 4, item)
        case float():
            return struct.pack("<If", 6, item)
        case str():
            return struct.pack("<I", 8) + text(item)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(text, item))
        case list():
            return struct.pack(f"<IIQ{len(item)}i", 9, 5, len(item), *item)
    raise TypeError


def quantise(array: np.ndarray, kind: str) -> tuple[bytes, np.ndarray]:
    """Return the tensor's bytes in `kind`, and the float64 values that they stand for, computed here by hand."""
    blocks = array.astype(np.float64).reshape(-1, 32) if kind.startswith("Q") else array.astype(np.float64)
    half = lambda x: x.astype("<f2").astype(np.float64)  # noqa: E731
    match kind:
        case "F32":
            return array.astype("<f4").tobytes(), array.astype("<f4").astype(np.float64)
        case "F16":
            return array.astype("<f2").tobytes(), half(array)
        case "BF16":
            top = (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2")
            return top.tobytes(), (top.astype("<u4") << 16).view("<f4").astype(np.float64)
        case "Q8_0":
            scale = half(np.abs(blocks).max(1, keepdims=True) / 127)
            q = np.clip(np.rint(blocks / scale), -127, 127)
            parts, exact = [scale.astype("<f2"), q.astype("i1")], q * scale
        case "Q4_0":
            scale = half(np.abs(blocks).max(1, keepdims=True) / 7)
            q = np.clip(np.rint(blocks / scale) + 8, 0, 15)
            parts, exact = [scale.astype("<f2"), _pack(q)], (q - 8) * scale
        case "Q4_1":
            low = half(blocks.min(1, keepdims=True))
            scale = half((blocks.max(1, keepdims=True) - low) / 15)
            q = np.clip(np.rint((blocks - low) / scale), 0, 15)
            parts, exact = [scale.astype("<f2"), low.astype("<f2"), _pack(q)], q * scale + low
    rows = zip(*parts, strict=True)
    return b"".join(part.tobytes() for row in rows for part in row), exact.reshape(array.shape)


def _pack(q: np.ndarray) -> np.ndarray:
    nibbles = q.astype(np.uint8)
    return nibbles[:, :16] | nibbles[:, 16:] << 4


def write(metadata: Mapping, tensors: Mapping[str, tuple[np.ndarray, str]], alignment: int = 32) -> bytes:
    """Return a GGUF v3 file; tensors are given as (array, format)."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(text(key) + value(item) for key, item in metadata.items())
    body = b""
    for name, (array, kind) in tensors.items():
        shape = array.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, CODES[kind], len(body))
        data, _ = quantise(array, kind)
        body += data + bytes(-len(data) % alignment)
    return head + bytes(-len(head) % alignment) + body


def toy_metadata() -> dict:
    tokens = [*CONTROLS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġt", "he", "Ġthe"]
    return {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": HIDDEN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 1e4,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(CONTROLS) + [1] * (len(tokens) - len(CONTROLS)),
        "tokenizer.ggml.merges": ["Ġ t", "h e", "Ġt he"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    }


def toy_tensors(seed: int = 0, tied: bool = True) -> dict[str, tuple[np.ndarray, str]]:
    """Random weights, large enough that greedy answers differ between prompts; matrices are Q8_0, norms F32."""
    rng = np.random.default_rng(seed)
    vocabulary, kv_width = len(toy_metadata()["tokenizer.ggml.tokens"]), WIDTH // HEADS * KV_HEADS

    def matrix(*shape: int) -> tuple[np.ndarray, str]:
        return rng.normal(0, 0.3, shape).astype(np.float32), "Q8_0"

    def norm() -> tuple[np.ndarray, str]:
        return rng.uniform(0.5, 1.5, WIDTH).astype(np.float32), "F32"

    tensors = {"token_embd.weight": matrix(vocabulary, WIDTH), "output_norm.weight": norm()}
    if not tied:
        tensors["output.weight"] = matrix(vocabulary, WIDTH)
    for layer in range(LAYERS):
        parts = {
            "attn_norm": norm(),
            "attn_q": matrix(WIDTH, WIDTH),
            "attn_k": matrix(kv_width, WIDTH),
            "attn_v": matrix(kv_width, WIDTH),
            "attn_output": matrix(WIDTH, WIDTH),
            "ffn_norm": norm(),
            "ffn_gate": matrix(HIDDEN, WIDTH),
            "ffn_up": matrix(HIDDEN, WIDTH),
            "ffn_down": matrix(WIDTH, HIDDEN),
        }
        tensors |= {f"blk.{layer}.{part}.weight": tensor for part, tensor in parts.items()}
    return tensors


def toy_llama(seed: int = 0, tied: bool = True) -> bytes:
    return write(toy_metadata(), toy_tensors(seed, tied))
