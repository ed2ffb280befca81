"""Text to token ids and back, by the tokenizer and chat template that the model's metadata carries."""

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NoReturn

from confide_protocol.errors import ConfigError, EngineError
from tokenizers import Tokenizer

from confide_enclave.engine import ChatMessage
from confide_enclave.engine.gguf import Gguf
from confide_enclave.engine.pretokenizers import PRE_TOKENIZERS
from confide_enclave.engine.template import read_template

# GGUF's kinds of token. A user-defined one is text that is never cut, like <think>; an unused one fills a hole.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
END_NAMES: Final = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
_PRIVATE_USE: Final = range(0xF0000, 0xFFFFE)


class Tokens:
    """The vocabulary of one model.

    Special tokens written inside a chat message or a tool are encoded as the plain text that they are, so that no
    message can forge a turn. Not so user-defined ones in what an assistant said, and any in a plain-text prompt.
    """

    def __init__(self, gguf: Gguf) -> None:
        """Raises: ConfigError when the tokenizer is not of a kind that golden ids vouch for."""

        def refuse(field: str, remedy: str) -> NoReturn:
            raise ConfigError(gguf.file, f"tokenizer.ggml.{field}", remedy)

        if gguf.get("tokenizer.ggml.model", str) != "gpt2":
            refuse("model", "is not supported; use a model with a byte-level BPE tokenizer (gpt2)")
        if (pre := gguf.get("tokenizer.ggml.pre", str)) not in PRE_TOKENIZERS:
            refuse("pre", f"is not supported; known are: {', '.join(PRE_TOKENIZERS)}")
        names = gguf.strings("tokenizer.ggml.tokens")
        kinds = gguf.get("tokenizer.ggml.token_type", list)
        known = {NORMAL, CONTROL, USER_DEFINED, UNUSED}
        if len(kinds) != len(names) or len(set(names)) != len(names) or not set(kinds) <= known:
            refuse("token_type", "does not name each token once, as normal, control, user-defined or unused")
        numbers = {kind: {n: i for i, n in enumerate(names) if kinds[i] == kind} for kind in known}
        words = numbers[NORMAL]
        merges = [merge.partition(" ")[::2] for merge in gguf.strings("tokenizer.ggml.merges")]
        if not all({left, right, left + right} <= words.keys() for left, right in merges):
            refuse("merges", "holds a merge that the vocabulary does not know")
        try:
            self._bytes = [_spell(name, kind) for name, kind in zip(names, kinds, strict=True)]
        except KeyError:
            refuse("tokens", "holds a character outside the byte-level alphabet")
        self.size: Final = len(names)
        self.bos_id: Final = _token_id(gguf, "bos_token_id", self.size)
        eos_id = _token_id(gguf, "eos_token_id", self.size)
        eot_id = _token_id(gguf, "eot_token_id", self.size, eos_id)
        controls = numbers[CONTROL]
        self.end_ids: Final = frozenset(
            {eos_id, eot_id, *(controls[name] for name in END_NAMES if name in controls)}
        )
        self._add_bos: Final = gguf.get("tokenizer.ggml.add_bos_token", bool, default=False)
        self._specials = controls | numbers[USER_DEFINED]
        self._special, self._control = _any_of(self._specials), _any_of(controls)
        self._encoder: Tokenizer = PRE_TOKENIZERS[pre].encoder(words, merges)
        self._template = read_template(gguf)
        self._template_names = {"bos_token": names[self.bos_id], "eos_token": names[eos_id]}

    def encode(
        self,
        prompt: Sequence[ChatMessage] | str,
        tools: Sequence[Mapping[str, object]] = (),
        thinking: bool | None = None,
    ) -> list[int]:
        """Return the prompt's ids, at least one. Raises: EngineError when the template refuses the messages."""
        if isinstance(prompt, str):
            ids = self._encode(_whole(prompt), {})
        else:
            ids = self._encode_chat(prompt, tools, thinking)
        if not ids or (self._add_bos and ids[0] != self.bos_id):
            ids.insert(0, self.bos_id)
        return ids

    def token_bytes(self, token: int) -> bytes:
        """Return the token's UTF-8 bytes, maybe a part of a character; none for a control token."""
        return self._bytes[token]

    @cached_property
    def byte_ids(self) -> dict[int, int]:
        """For each byte the token that spells it and no more, where there is one."""
        return {data[0]: token for token, data in enumerate(self._bytes) if len(data) == 1}

    def _encode_chat(
        self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, object]], thinking: bool | None
    ) -> list[int]:
        try:
            turns = [_map_texts(_turn(message), _whole) for message in messages]
            given = _map_texts(list(tools), _whole)
            texts = [*_texts(turns), *_texts(given)]
        except RecursionError:
            raise EngineError("the tools are nested too deeply") from None
        unused = _unused_characters(texts)
        # Each special token that occurs goes through the template as one unused character, its stand-in.
        found = sorted({special for text in texts for special in self._special.findall(text)})
        stand_ins = dict(zip(found, unused, strict=False))

        def hide(tree: Any, pattern: re.Pattern[str] = self._special) -> Any:  # noqa: ANN401
            return _map_texts(tree, lambda text: pattern.sub(lambda match: stand_ins[match[0]], text))

        own = {"enable_thinking": thinking} if thinking is not None else {}
        rendered = self._template.render(
            messages=[
                hide(turn, self._control if turn["role"] == "assistant" else self._special) for turn in turns
            ],
            tools=hide(given) or None,
            add_generation_prompt=True,
            **own,
            **self._template_names,
        )
        return self._encode(rendered, {ord(char): special for special, char in stand_ins.items()})

    def _encode(self, text: str, stand_ins: dict[int, str]) -> list[int]:
        ids: list[int] = []
        for piece in self._special.split(text):
            if piece in self._specials:
                ids.append(self._specials[piece])
            elif piece:
                ids += self._encoder.encode(piece.translate(stand_ins), add_special_tokens=False).ids
        return ids


class TextStream:
    """Turn token bytes into text that is certain: whole characters, and no part of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(filter(None, stops))
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """Return the text that became certain; sets `stopped` when a stop string is complete."""
        return self._filter(self._decoder.decode(data))

    def finish(self) -> str:
        """Return what was held back when the tokens end without a stop string."""
        text = self._filter(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text + held

    def _filter(self, text: str) -> str:
        text = self._held + text
        # The stop that is complete first decides, so how the text was split never matters.
        ends = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if self.stopped or ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]] if ends else ""
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def _turn(message: ChatMessage) -> dict[str, Any]:
    """Return the message as templates expect it: OpenAI's names, a call's arguments as an object."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    named = {"tool_call_id": message.tool_call_id, "name": message.name, "reasoning_content": message.reasoning}
    return turn | {key: text for key, text in named.items() if text}


def _arguments(text: str) -> object:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return tree if isinstance(tree, dict) else text


def _map_texts(tree: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401
    if isinstance(tree, str):
        return change(tree)
    if isinstance(tree, Mapping):
        return {change(str(key)): _map_texts(item, change) for key, item in tree.items()}
    return [_map_texts(item, change) for item in tree] if isinstance(tree, list | tuple) else tree


def _texts(tree: Any) -> Iterator[str]:  # noqa: ANN401
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for key, item in tree.items():
            yield key
            yield from _texts(item)
    elif isinstance(tree, list):
        for item in tree:
            yield from _texts(item)


def _unused_characters(texts: Sequence[str]) -> Iterator[str]:
    used = set().union(*texts)
    return (chr(code) for code in _PRIVATE_USE if chr(code) not in used)


def _any_of(names: Mapping[str, int]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")


def _spell(name: str, kind: int) -> bytes:
    if kind == NORMAL:
        return bytes(map(_BYTE_OF.__getitem__, name))
    return name.encode() if kind == USER_DEFINED else b""


def _whole(text: str) -> str:
    """Join surrogate pairs and replace lone ones, which JSON allows and no encoder takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _token_id(gguf: Gguf, field: str, size: int, default: int | None = None) -> int:
    number: int = gguf.get(f"tokenizer.ggml.{field}", int, default)
    if not 0 <= number < size:
        raise ConfigError(gguf.file, f"tokenizer.ggml.{field}", "is not an id of the vocabulary")
    return number


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's `bytes_to_unicode`, reversed: printable Latin-1 stands for itself, the rest for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(rest)}


_BYTE_OF: Final = _byte_alphabet()
