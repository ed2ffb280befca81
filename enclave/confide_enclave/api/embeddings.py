"""Texts to vectors, in OpenAI's shape."""

import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field

from confide_enclave.api.parameters import HARMLESS
from confide_enclave.api.reading import Body
from confide_enclave.engine import Embedded

MAX_TEXTS: Final = 2048


def _texts(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class EmbeddingParameters(Body):
    HARMLESS: ClassVar = HARMLESS
    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {}
    UNSUPPORTED: ClassVar[dict[str, str]] = {"dimensions": "vectors come as the model makes them"}

    model: str
    input: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        BeforeValidator(_texts),
        Field(min_length=1, max_length=MAX_TEXTS, strict=False),
    ]
    encoding_format: Literal["float", "base64"] = "float"


def embedding_list(model: str, embedded: Embedded, encoding_format: str) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": index, "embedding": _encode(vector, encoding_format)}
        for index, vector in enumerate(embedded.vectors)
    ]
    tokens = sum(embedded.token_counts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _encode(vector: Sequence[float], encoding_format: str) -> list[float] | str:
    """Return numbers, or float32 in little-endian as base64, which OpenAI's client asks for by itself."""
    if encoding_format == "float":
        return list(vector)
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
