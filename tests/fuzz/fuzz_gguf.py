"""Fuzz the reader of model files: only ConfigError may leave it, and every tensor that it lists can be read."""

from collections.abc import Callable

from confide_enclave.engine.config import read_config
from confide_enclave.engine.gguf import parse_gguf
from confide_protocol.errors import ConfigError

from tests.fakes import gguf as fake


def gguf(data: bytes) -> None:
    try:
        parsed = parse_gguf(data, "model.gguf")
        for name, info in parsed.tensors.items():
            assert parsed.array(name).shape == info.shape
        parsed.digest("tokenizer.")
        read_config(parsed)
    except ConfigError:
        return


def seeds() -> dict[str, list[bytes]]:
    return {"gguf": [fake.write(fake.toy_metadata(), {})]}


TARGETS: dict[str, Callable[[bytes], None]] = {"gguf": gguf}
