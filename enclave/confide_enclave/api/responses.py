"""The Responses API's objects and events: one response, whole or as it comes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confide_enclave.api.answer import to_json
from confide_enclave.api.frames import Frame, Usage, token_logprobs
from confide_enclave.api.speech import Piece, Said
from confide_enclave.engine import TokenLogprob


@dataclass(frozen=True)
class ResponseFrame(Frame):
    """One response; `asked` repeats the parameters that its object names."""

    asked: Mapping[str, Any] = field(default_factory=dict, repr=False)
    clock: Callable[[], float] = field(repr=False, kw_only=True)
    _sent: dict[str, int] = field(default_factory=lambda: {"events": 0, "items": 0, "calls": 0}, repr=False)
    _open: list[dict[str, Any]] = field(default_factory=list, repr=False)

    PREFIX = "resp_"

    def opening(self) -> list[bytes]:
        begun = self._response("in_progress", [])
        return [self._event(f"response.{name}", response=begun) for name in ("created", "in_progress")]

    def news(self, said: Said, pieces: Sequence[Piece], logprobs: list[TokenLogprob] | None) -> list[bytes]:
        events: list[bytes] = []
        waiting = token_logprobs(logprobs or [])
        for piece in pieces:
            if piece.kind == "call":
                events += self._close()
                events += self._whole_call(said)
                continue
            if not self._open or self._open[0]["type"] != _ITEM[piece.kind]:
                events += self._close()
                events += self._begin(piece.kind)
            events += self._say(piece, waiting)
            waiting = []
        if said.finish is not None:
            if not said.calls and not (self._open and self._open[0]["type"] == "message"):
                events += self._close()
                events += self._begin("content")
            events += self._close(incomplete=said.finish == "length")
        return events

    def closing(self, choices: Sequence[Said], usage: Usage) -> list[bytes]:
        whole = self.whole(choices, usage)
        return [self._event(f"response.{whole['status']}", response=whole)]

    def messages(self, choices: Sequence[Said], *, done: bool) -> list[str]:
        """Return the message once the whole response was sent: that is where a reader finds it."""
        return [said.message for said in choices] if done else []

    def whole(self, choices: Sequence[Said], usage: Usage) -> dict[str, Any]:
        (said,) = choices
        status = "incomplete" if said.finish == "length" else "completed"
        output: list[dict[str, Any]] = []
        if said.reasoning:
            output.append(_reasoning(self._item_id("rs", len(output)), said.reasoning))
        if said.content or not said.calls:
            words = _message(self._item_id("msg", len(output)), said.content, token_logprobs(said.logprobs or []))
            output.append({**words, "status": status})
        for call in said.calls:
            output.append(_call(self._item_id("fc", len(output)), call.id, call.name, call.arguments))
        counts = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
        return {**self._response(status, output), "usage": counts}

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.request_id,
            "object": "response",
            "created_at": self.created_unix_s,
            "completed_at": int(self.clock()) if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": cut,
            "model": self.model,
            "output": output,
            "usage": None,
            **self.asked,
        }

    def _item_id(self, prefix: str, number: int) -> str:
        return f"{prefix}_{self.request_id.removeprefix(self.PREFIX)}{number:02x}"

    def _event(self, kind: str, **more: Any) -> bytes:  # noqa: ANN401
        number, self._sent["events"] = self._sent["events"], self._sent["events"] + 1
        tree = {"type": kind, "sequence_number": number, **more}
        return b"event: " + kind.encode() + b"\ndata: " + to_json(tree) + b"\n\n"

    def _begin(self, kind: str) -> list[bytes]:
        number, self._sent["items"] = self._sent["items"], self._sent["items"] + 1
        if kind == "reasoning":
            item = _reasoning(self._item_id("rs", number))
        else:
            item = _message(self._item_id("msg", number))
        place = {"item_id": item["id"], "output_index": number, "content_index": 0}
        self._open[:] = [item, place]
        bare = {**item, "content": [], "status": "in_progress"}
        return [
            self._event("response.output_item.added", output_index=number, item=bare),
            self._event("response.content_part.added", **place, part={**item["content"][0], "text": ""}),
        ]

    def _say(self, piece: Piece, logprobs: list[dict[str, Any]]) -> list[bytes]:
        item, place = self._open
        (part,) = item["content"]
        part["text"] += piece.text
        if piece.kind == "reasoning":
            return [self._event("response.reasoning_text.delta", **place, delta=piece.text)]
        part["logprobs"] += logprobs
        return [self._event("response.output_text.delta", **place, delta=piece.text, logprobs=logprobs)]

    def _close(self, *, incomplete: bool = False) -> list[bytes]:
        if not self._open:
            return []
        item, place = self._open
        self._open.clear()
        (part,) = item["content"]
        if item["type"] == "reasoning":
            done = self._event("response.reasoning_text.done", **place, text=part["text"])
        else:
            item["status"] = "incomplete" if incomplete else "completed"
            named = {"text": part["text"], "logprobs": part["logprobs"]}
            done = self._event("response.output_text.done", **place, **named)
        return [
            done,
            self._event("response.content_part.done", **place, part=part),
            self._event("response.output_item.done", output_index=place["output_index"], item=item),
        ]

    def _whole_call(self, said: Said) -> list[bytes]:
        number, self._sent["items"] = self._sent["items"], self._sent["items"] + 1
        call, self._sent["calls"] = said.calls[self._sent["calls"]], self._sent["calls"] + 1
        item = _call(self._item_id("fc", number), call.id, call.name, call.arguments)
        bare = {**item, "arguments": "", "status": "in_progress"}
        place = {"item_id": item["id"], "output_index": number}
        return [
            self._event("response.output_item.added", output_index=number, item=bare),
            self._event("response.function_call_arguments.delta", **place, delta=call.arguments),
            self._event("response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments),
            self._event("response.output_item.done", output_index=number, item=item),
        ]


_ITEM: Final = {"content": "message", "reasoning": "reasoning"}


def _message(item_id: str, text: str = "", logprobs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}
    return {"id": item_id, "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def _reasoning(item_id: str, text: str = "") -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
    }


def _call(item_id: str, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    names = {"call_id": call_id, "name": name, "arguments": arguments}
    return {"id": item_id, "type": "function_call", "status": "completed", **names}
