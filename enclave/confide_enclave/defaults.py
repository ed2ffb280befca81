"""What an answer gets where its request says nothing."""

from collections.abc import Mapping
from typing import Annotated, Final

from confide_protocol.settings import Settings
from pydantic import Field


class AnswerSettings(Settings):
    """OpenAI's defaults, unless the operator knows what suits the model; the manifest names them.

    `max_tokens` 0: half of what the engine reads and writes for one request. A model that finds no end would
    otherwise go on to the end of its context for every client that names no limit.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=0, lt=1 << 31)] = 0

    def manifest(self) -> dict[str, str | int]:
        """Return what the manifest says of them; floats as receipts write them."""
        floats = {f"answer_{name}": repr(float(getattr(self, name))) for name in ("temperature", "top_p")}
        return {**floats, "answer_max_tokens": self.max_tokens}

    @classmethod
    def read(cls, engine: Mapping[str, str | int]) -> "AnswerSettings":
        """Read them back from a manifest's `engine`. Raises: KeyError, ValueError (pydantic's too)."""
        said = {name: engine[f"answer_{name}"] for name in cls.model_fields}
        return cls(
            temperature=float(said["temperature"]), top_p=float(said["top_p"]), max_tokens=int(said["max_tokens"])
        )

    def token_limit(self, context_tokens: int) -> int:
        return self.max_tokens or max(context_tokens // 2, 1)


# What its makers advise for the packaged model: at OpenAI's so small a one rambles, sometimes without an end.
PACKAGED_ANSWERS: Final = AnswerSettings(temperature=0.2, top_p=0.9)
