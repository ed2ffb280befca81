"""What an answer says, read off OpenAI's objects: the messages that a receipt commits to (SPEC 9.4)."""

from dataclasses import dataclass, field
from typing import Any, Final

import pydantic_core
from confide_protocol.audit.message import message_text
from confide_protocol.errors import Malformed

DONE = b"data: [DONE]\n\n"
_LAST_EVENTS: Final = ("response.completed", "response.incomplete", "response.failed")


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def is_events(content_type: str) -> bool:
    return media_type(content_type) == "text/event-stream"


def is_json(content_type: str) -> bool:
    return media_type(content_type) == "application/json"


class AnswerText:
    """Gather the message of each choice, from one body or from the events of a stream.

    `ended` says that applications may stop reading after the event that was taken last. Objects without choices
    (errors, lists, usage) say nothing; of a Responses stream its last object alone does. The bytes come from the
    enclave, authenticated; they are read as strictly as any peer's.
    Raises: Malformed.
    """

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self.ended = False

    def body(self, data: bytes) -> None:
        self._take(_parse(data))

    def event(self, data: bytes) -> None:
        if data == DONE:
            self.ended = True
            return
        if data.startswith(b"data: ") and data.find(b"\n") == len(data) - 2:  # as Confide writes most of them
            lines = [data[6:]]
        else:
            lines = [line[5:] for line in data.split(b"\n") if line[:5] == b"data:"]
        tree = _parse(b"\n".join(lines)) if lines else None
        if isinstance(tree, dict) and tree.get("type") in _LAST_EVENTS:
            self.ended = True
            tree = tree.get("response")
        self._take(tree)

    @property
    def messages(self) -> tuple[bytes, ...]:
        """UTF-8 text of each choice, in the order of their indices."""
        return tuple(self._choices[index].message.encode() for index in sorted(self._choices))

    def _take(self, tree: Any) -> None:  # noqa: ANN401
        if isinstance(tree, dict) and tree.get("object") == "response":
            self._choices[0] = _read_output(tree.get("output"))
            return
        choices = tree.get("choices") if isinstance(tree, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or type(choice.get("index")) is not int:
                raise Malformed("a choice of the answer has no index")
            said = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
            self._choices.setdefault(choice["index"], _Choice()).take(said)


@dataclass
class _Choice:
    """What one choice said so far. A call's name comes once, its arguments in parts."""

    content: str = ""
    reasoning: str = ""
    calls: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def message(self) -> str:
        return message_text(self.content, self.reasoning, [self.calls[number] for number in sorted(self.calls)])

    def take(self, said: Any) -> None:  # noqa: ANN401
        if not isinstance(said, dict):
            return
        self.content += _text(said.get("content"))
        self.reasoning += _text(said.get("reasoning_content"))
        calls = said.get("tool_calls")
        if not isinstance(calls, list):
            return
        for place, call in enumerate(calls):
            function = call.get("function") if isinstance(call, dict) else None
            number = call.get("index", place) if isinstance(call, dict) else None
            if not isinstance(function, dict) or type(number) is not int:
                raise Malformed("a call of the answer is none")
            name, arguments = self.calls.get(number, ("", ""))
            self.calls[number] = name + _text(function.get("name")), arguments + _text(function.get("arguments"))


def _read_output(output: Any) -> _Choice:  # noqa: ANN401
    """Read the items of a response, which together are one message."""
    said = _Choice()
    for item in output if isinstance(output, list) else ():
        if not isinstance(item, dict):
            raise Malformed("an item of the answer is none")
        parts = item.get("content")
        listed = parts if isinstance(parts, list) else []
        text = "".join(_text(part.get("text")) for part in listed if isinstance(part, dict))
        if item.get("type") == "message":
            said.content += text
        elif item.get("type") == "reasoning":
            said.reasoning += text
        elif item.get("type") == "function_call":
            said.calls[len(said.calls)] = _text(item.get("name")), _text(item.get("arguments"))
    return said


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _parse(data: bytes) -> Any:  # noqa: ANN401
    """Parse JSON; text that is no Unicode, such as a lone surrogate's escape, is refused with the rest."""
    try:
        return pydantic_core.from_json(data)
    except ValueError:
        raise Malformed("the answer is not JSON") from None
