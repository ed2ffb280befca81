"""A BERT encoder: one text in, one vector out. Float32, no batch, no padding: a text's vector is its own alone."""

from dataclasses import dataclass
from typing import Any, Final, NoReturn

import torch
from confide_protocol.errors import ConfigError
from torch import Tensor
from torch.nn import functional

from confide_enclave.engine.directory import Directory
from confide_enclave.engine.gguf import TensorInfo, decode_tensor

MAX_LAYERS: Final = 64
MAX_WIDTH: Final = 1 << 13
MAX_POSITIONS: Final = 1 << 13


@dataclass(frozen=True)
class EncoderConfig:
    layers: int
    width: int
    heads: int
    hidden: int
    vocabulary: int
    positions: int
    epsilon: float


@dataclass(frozen=True)
class Dense:
    """weight: [out, in]; bias: [out]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class LayerNorm:
    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True)
class EncoderLayer:
    """`qkv` is stacked."""

    qkv: Dense
    output: Dense
    attention_norm: LayerNorm
    up: Dense
    down: Dense
    norm: LayerNorm


class Bert:
    """The model of a published directory (config.json, model.safetensors), with mean pooling and normalisation."""

    def __init__(self, directory: Directory) -> None:
        """Raises: ConfigError."""
        self.config = config = read_encoder_config(directory.json("config.json"), str(directory.path))
        read = _Reader(directory)
        self._tokens = read.tensor("embeddings.word_embeddings.weight", config.vocabulary, config.width)
        # Every text is of the first type, so its vector joins the positions'.
        positions = read.tensor("embeddings.position_embeddings.weight", config.positions, config.width)
        self._positions = positions + read.table("embeddings.token_type_embeddings.weight", config.width)[0]
        self._norm = read.norm("embeddings.LayerNorm", config)
        self._layers = [read.layer(f"encoder.layer.{number}", config) for number in range(config.layers)]

    @torch.inference_mode()
    def encode(self, ids: list[int]) -> list[float]:
        """Return the vector of one text, of length 1. ids: at least one, at most `positions`."""
        x = self._norm(self._tokens[torch.tensor(ids)] + self._positions[: len(ids)])
        for layer in self._layers:
            x = layer.attention_norm(x + layer.output(self._attend(layer.qkv(x))))
            x = layer.norm(x + layer.down(functional.gelu(layer.up(x))))
        vector: list[float] = functional.normalize(x.mean(0), dim=0).tolist()
        return vector

    def _attend(self, qkv: Tensor) -> Tensor:
        q, k, v = qkv.view(len(qkv), 3, self.config.heads, -1).permute(1, 2, 0, 3)
        weights = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, -1)
        mixed: Tensor = weights @ v
        return mixed.transpose(0, 1).flatten(1)


def read_encoder_config(config: dict[str, Any], file: str) -> EncoderConfig:
    """Read and check config.json. Raises: ConfigError on what the encoder does not compute."""

    def refuse(field: str, remedy: str) -> NoReturn:
        raise ConfigError(file, f"config.json: {field}", remedy)

    def number(field: str, limit: int) -> int:
        value = config.get(field)
        if type(value) is not int or not 1 <= value <= limit:
            refuse(field, f"is not 1 to {limit}")
        return value

    wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for field, value in wanted.items():
        if config.get(field, value) != value:
            refuse(field, f"is not supported; use a model with {value}")
    width, heads = number("hidden_size", MAX_WIDTH), number("num_attention_heads", 256)
    if width % heads:
        refuse("num_attention_heads", "does not divide the model's width")
    epsilon = config.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        refuse("layer_norm_eps", "is not between 0 and 1")
    return EncoderConfig(
        layers=number("num_hidden_layers", MAX_LAYERS),
        width=width,
        heads=heads,
        hidden=number("intermediate_size", 1 << 15),
        vocabulary=number("vocab_size", 1 << 20),
        positions=number("max_position_embeddings", MAX_POSITIONS),
        epsilon=epsilon,
    )


class _Reader:
    def __init__(self, directory: Directory) -> None:
        self._file = str(directory.path)
        self._data, self._infos = directory.tensors("model.safetensors")

    def tensor(self, name: str, *shape: int) -> Tensor:
        info = self._info(name)
        if info.shape != shape:
            raise ConfigError(self._file, info.name, f"has the shape {info.shape}; config.json says {shape}")
        values = torch.from_numpy(decode_tensor(self._data, info))
        if not torch.isfinite(values).all():
            raise ConfigError(self._file, info.name, "holds a value that is not finite; fetch the file again")
        return values

    def table(self, name: str, width: int) -> Tensor:
        return self.tensor(name, self._info(name).shape[0], width)

    def norm(self, name: str, config: EncoderConfig) -> LayerNorm:
        weight, bias = (self.tensor(f"{name}.{part}", config.width) for part in ("weight", "bias"))
        return LayerNorm(weight, bias, config.epsilon)

    def dense(self, names: list[str], out: int, width: int) -> Dense:
        weight = torch.cat([self.tensor(f"{name}.weight", out, width) for name in names])
        return Dense(weight, torch.cat([self.tensor(f"{name}.bias", out) for name in names]))

    def layer(self, name: str, config: EncoderConfig) -> EncoderLayer:
        width, hidden = config.width, config.hidden
        return EncoderLayer(
            qkv=self.dense([f"{name}.attention.self.{part}" for part in ("query", "key", "value")], width, width),
            output=self.dense([f"{name}.attention.output.dense"], width, width),
            attention_norm=self.norm(f"{name}.attention.output.LayerNorm", config),
            up=self.dense([f"{name}.intermediate.dense"], hidden, width),
            down=self.dense([f"{name}.output.dense"], width, hidden),
            norm=self.norm(f"{name}.output.LayerNorm", config),
        )

    def _info(self, name: str) -> TensorInfo:
        info = self._infos.get(name) or self._infos.get(f"bert.{name}")
        if info is None or not info.shape:
            raise ConfigError(self._file, name, "is missing; the directory is not a whole encoder")
        return info
