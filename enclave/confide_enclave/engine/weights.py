"""A decoder's weights as tensors over the arrays of a package, checked against its configuration."""

from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

import torch
from confide_kernels import gemm
from confide_kernels.quant import LEVELS
from confide_protocol.errors import ConfigError
from torch import Tensor

from confide_enclave.engine.config import DecoderConfig, read_config
from confide_enclave.engine.convert import GROUP, is_turned
from confide_enclave.engine.package import Model
from confide_enclave.engine.store import Array

CPU: Final = torch.device("cpu")


class Matrix(NamedTuple):
    """[out, in]: int8 rows with a scale per row; what `gemm.pack_w8a8` or `gemm.pack_w4a16` returns; or floats.

    Scales of matrices of scheme w8a8 are for a level of theirs times one of 127 of the other side.
    """

    rows: Tensor
    scales: Tensor


@dataclass(frozen=True)
class LayerWeights:
    """`qkv` and `gate_up` are stacked. Absent parts are None: norms, where the next matrix's columns hold them."""

    attn_norm: Tensor | None
    qkv: Matrix
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    output: Matrix
    ffn_norm: Tensor | None
    gate_up: Matrix
    down: Matrix


@dataclass(frozen=True)
class DecoderWeights:
    """`exact`: of scheme w8a8, for integer products; else rows are of `dtype` when they meet a matrix."""

    config: DecoderConfig
    exact: bool
    dtype: torch.dtype
    embedding: Matrix
    layers: tuple[LayerWeights, ...]
    norm: Tensor | None
    head: Matrix


def load_weights(
    model: Model, dtype: torch.dtype, device: torch.device = CPU, *, take: bool = False
) -> DecoderWeights:
    """Wrap the arrays, or pack them as products take them; floats become `dtype`. Raises: ConfigError.

    For a GPU each array is first copied there. With `take` they leave the model one by one, so that memory holds
    no more than one of them beside its copy.
    """
    config, arrays = read_config(model.metadata), model.arrays
    reader = _Reader(model.metadata.file, arrays, dtype, device, take=take)
    exact, turned = model.scheme == "w8a8", is_turned(model.scheme)
    is_tied = not turned and "head.rows" not in arrays

    def product(name: str, out: int, width: int) -> Matrix:
        return packed(name, reader.matrix(name, out, width))

    def packed(name: str, matrix: Matrix) -> Matrix:
        if exact:
            if matrix.rows.dtype != torch.int8 or matrix.rows.shape[1] > gemm.MAX_WIDTH:
                reader.refuse(f"{name}.rows")
            return Matrix(gemm.pack_w8a8(matrix.rows), matrix.scales / LEVELS)
        if matrix.rows.dtype == torch.uint8:
            return Matrix(*gemm.pack_w4a16(matrix.rows, matrix.scales, dtype))
        return matrix

    def norm(name: str) -> Tensor | None:
        return None if turned else reader.vector(name, width)

    width, query, kv = config.width, config.heads * config.head_dim, 2 * config.kv_heads * config.head_dim

    def layer(number: int) -> LayerWeights:
        name = f"layers.{number}.{{}}".format
        return LayerWeights(
            attn_norm=norm(name("attn_norm")),
            qkv=product(name("qkv"), query + kv, width),
            qkv_bias=reader.vector(name("qkv.bias"), query + kv) if config.qkv_bias else None,
            q_norm=reader.vector(name("q_norm"), config.head_dim) if config.head_norm else None,
            k_norm=reader.vector(name("k_norm"), config.head_dim) if config.head_norm else None,
            output=product(name("output"), width, query),
            ffn_norm=norm(name("ffn_norm")),
            gate_up=product(name("gate_up"), 2 * config.hidden, width),
            down=product(name("down"), width, config.hidden),
        )

    # Read once, also where it is the head.
    embedding = reader.matrix("embedding", config.vocabulary, width)
    return DecoderWeights(
        config=config,
        exact=exact,
        dtype=dtype,
        embedding=embedding,
        layers=tuple(layer(number) for number in range(config.layers)),
        norm=norm("norm"),
        head=packed("embedding", embedding) if is_tied else product("head", config.vocabulary, width),
    )


class _Reader:
    def __init__(
        self, file: str, arrays: dict[str, Array], dtype: torch.dtype, device: torch.device, *, take: bool
    ) -> None:
        self._file, self._arrays, self._dtype, self._device = file, arrays, dtype, device
        self._takes = take

    def vector(self, name: str, size: int) -> Tensor:
        tensor = self._array(name)
        if tensor.dtype != torch.float32 or tensor.shape != (size,):
            self.refuse(name)
        return tensor.to(self._device)

    def matrix(self, name: str, out: int, width: int) -> Matrix:
        rows = self._array(f"{name}.rows")
        if rows.dtype == torch.float32 and rows.shape == (out, width):
            # Made smaller here: a GPU has no room counted for both.
            return Matrix(rows.to(self._dtype).to(self._device), rows.new_empty(0, device=self._device))
        scales = self._array(f"{name}.scales")
        shapes = {
            torch.int8: ((out, width), (out,), torch.float32),
            torch.uint8: ((out, width // 2), (out, width // GROUP, 2), torch.float16),
        }
        if shapes.get(rows.dtype) != (rows.shape, scales.shape, scales.dtype):
            self.refuse(name)
        return Matrix(rows.to(self._device), scales.to(self._device))

    def _array(self, name: str) -> Tensor:
        if name not in self._arrays:
            self.refuse(name)
        return torch.from_numpy(self._arrays.pop(name) if self._takes else self._arrays[name])

    def refuse(self, name: str) -> NoReturn:
        raise ConfigError(self._file, name, "is missing or not of the shape that the metadata says; convert again")
