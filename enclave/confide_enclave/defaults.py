"""What an answer gets where its request says nothing."""

from typing import Annotated, Final

from confide_protocol.settings import Settings
from pydantic import Field


class AnswerSettings(Settings):
    """OpenAI's defaults, unless the operator knows what suits the model; a receipt names what was used.

    `max_tokens` 0: half of what the engine reads and writes for one request. A model that finds no end would
    otherwise go on to the end of its context for every client that names no limit.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=0, lt=1 << 31)] = 0

    def token_limit(self, context_tokens: int) -> int:
        return self.max_tokens or max(context_tokens // 2, 1)


# What its makers advise for the packaged model: at OpenAI's so small a one rambles, sometimes without an end.
PACKAGED_ANSWERS: Final = AnswerSettings(temperature=0.2, top_p=0.9)
