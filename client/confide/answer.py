"""What an answer says, read off OpenAI's objects: the messages that a receipt commits to (SPEC 9.4)."""

import json
from typing import Any

from confide_protocol.errors import Malformed

DONE = b"data: [DONE]\n\n"


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def is_events(content_type: str) -> bool:
    return media_type(content_type) == "text/event-stream"


def is_json(content_type: str) -> bool:
    return media_type(content_type) == "application/json"


class AnswerText:
    """Gather the text of each choice, from one body or from the events of a stream.

    Objects without choices (errors, lists, usage) say nothing. The bytes come from the enclave, authenticated;
    they are read as strictly as any peer's.
    Raises: Malformed.
    """

    def __init__(self) -> None:
        self._choices: dict[int, list[str]] = {}

    def body(self, data: bytes) -> None:
        self._take(_parse(data))

    def event(self, data: bytes) -> None:
        if data != DONE:
            lines = [line.removeprefix(b"data:") for line in data.split(b"\n") if line.startswith(b"data:")]
            if lines:
                self._take(_parse(b"\n".join(lines)))

    @property
    def messages(self) -> tuple[bytes, ...]:
        """UTF-8 text of each choice, in the order of their indices."""
        return tuple("".join(self._choices[index]).encode() for index in sorted(self._choices))

    def _take(self, tree: Any) -> None:  # noqa: ANN401
        choices = tree.get("choices") if isinstance(tree, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or type(choice.get("index")) is not int:
                raise Malformed("a choice of the answer has no index")
            said = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
            text = said.get("content") if isinstance(said, dict) else None
            texts = self._choices.setdefault(choice["index"], [])
            if isinstance(text, str):
                texts.append(text)


def _parse(data: bytes) -> Any:  # noqa: ANN401
    try:
        tree = json.loads(data)
        json.dumps(tree, ensure_ascii=False).encode()  # no lone surrogates
    except (ValueError, RecursionError):
        raise Malformed("the answer is not JSON") from None
    return tree
