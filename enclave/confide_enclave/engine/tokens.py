"""Text to token ids and back, by the tokenizer and chat template that the GGUF carries."""

import codecs
import re
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from confide_protocol.errors import ConfigError, EngineError
from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer, models, pre_tokenizers

from confide_enclave.engine import ChatMessage
from confide_enclave.engine.gguf import Gguf

# Golden ids in the tests vouch for each name: a wrong pre-tokenizer gives fluent nonsense, never an error.
_PRE_TOKENIZERS: Final[dict[str, Callable[[], pre_tokenizers.PreTokenizer]]] = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}
_NORMAL, _CONTROL = 1, 3
_END_NAMES: Final = ("<|im_end|>", "<|endoftext|>")
_PRIVATE_USE: Final = range(0xF0000, 0xFFFFE)


class Tokens:
    """The vocabulary of one model.

    Control tokens written inside a chat message are encoded as the plain text that they are, so that no message
    can forge a turn; a plain-text prompt may hold them.
    """

    def __init__(self, gguf: Gguf) -> None:
        """Raises: ConfigError when the tokenizer is not of a kind that golden ids vouch for."""

        def refuse(field: str, remedy: str) -> NoReturn:
            raise ConfigError(gguf.file, f"tokenizer.ggml.{field}", remedy)

        if gguf.get("tokenizer.ggml.model", str) != "gpt2":
            refuse("model", "is not supported; use a model with a byte-level BPE tokenizer (gpt2)")
        if (pre := gguf.get("tokenizer.ggml.pre", str)) not in _PRE_TOKENIZERS:
            refuse("pre", f"is not supported; known are: {', '.join(_PRE_TOKENIZERS)}")
        names = gguf.strings("tokenizer.ggml.tokens")
        kinds = gguf.get("tokenizer.ggml.token_type", list)
        vocabulary = {name: number for number, name in enumerate(names)}
        if len(kinds) != len(names) or len(vocabulary) != len(names) or not set(kinds) <= {_NORMAL, _CONTROL}:
            refuse("token_type", "does not name each token once, as normal or control")
        merges = [merge.partition(" ")[::2] for merge in gguf.strings("tokenizer.ggml.merges")]
        if not all({left, right, left + right} <= vocabulary.keys() for left, right in merges):
            refuse("merges", "holds a merge that the vocabulary does not know")
        try:
            self._bytes = [
                b"" if kind == _CONTROL else bytes(map(_BYTE_OF.__getitem__, name))
                for name, kind in zip(names, kinds, strict=True)
            ]
        except KeyError:
            refuse("tokens", "holds a character outside the byte-level alphabet")
        self.size: Final = len(names)
        self.bos_id: Final = _token_id(gguf, "bos_token_id", self.size)
        eos_id = _token_id(gguf, "eos_token_id", self.size)
        self._add_bos: Final = gguf.get("tokenizer.ggml.add_bos_token", bool, default=False)
        self._controls = {
            name: vocabulary[name] for name, kind in zip(names, kinds, strict=True) if kind == _CONTROL
        }
        self.end_ids: Final = frozenset({eos_id, *(self._controls[n] for n in _END_NAMES if n in self._controls)})
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")
        self._encoder = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        self._encoder.pre_tokenizer = _PRE_TOKENIZERS[pre]()
        self._template = _compile_template(gguf)
        self._template_names = {"bos_token": names[self.bos_id], "eos_token": names[eos_id]}

    def encode(self, prompt: Sequence[ChatMessage] | str) -> list[int]:
        """Return the prompt's ids, at least one. Raises: EngineError when the template refuses the messages."""
        ids = self._encode(_whole(prompt), {}) if isinstance(prompt, str) else self._encode_chat(prompt)
        if not ids or (self._add_bos and ids[0] != self.bos_id):
            ids.insert(0, self.bos_id)
        return ids

    def token_bytes(self, token: int) -> bytes:
        """Return the token's UTF-8 bytes, maybe a part of a character; none for a control token."""
        return self._bytes[token]

    def _encode_chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        turns = [(message.role, _whole(message.content)) for message in messages]
        text = "".join(content for _, content in turns)
        # Each control token that occurs goes through the template as one unused character, its stand-in.
        unused = (chr(code) for code in _PRIVATE_USE if chr(code) not in text)
        stand_ins = dict(zip(sorted(set(self._control.findall(text))), unused, strict=False))
        try:
            rendered = self._template.render(
                messages=[
                    {"role": role, "content": self._control.sub(lambda match: stand_ins[match[0]], content)}
                    for role, content in turns
                ],
                add_generation_prompt=True,
                **self._template_names,
            )
        except Exception:  # noqa: BLE001 - a template may raise anything, and the text may show the messages
            raise EngineError("the model's chat template refuses these messages") from None
        return self._encode(rendered, {ord(char): control for control, char in stand_ins.items()})

    def _encode(self, text: str, stand_ins: dict[int, str]) -> list[int]:
        ids: list[int] = []
        for piece in self._control.split(text):
            if piece in self._controls:
                ids.append(self._controls[piece])
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


def _whole(text: str) -> str:
    """Join surrogate pairs and replace lone ones, which JSON allows and no encoder takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _token_id(gguf: Gguf, field: str, size: int) -> int:
    number: int = gguf.get(f"tokenizer.ggml.{field}", int)
    if not 0 <= number < size:
        raise ConfigError(gguf.file, f"tokenizer.ggml.{field}", "is not an id of the vocabulary")
    return number


def _compile_template(gguf: Gguf) -> Template:
    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(gguf.get("tokenizer.chat_template", str))
    except TemplateError:
        raise ConfigError(gguf.file, "tokenizer.chat_template", "is not a template that jinja2 can read") from None


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's `bytes_to_unicode`, reversed: printable Latin-1 stands for itself, the rest for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(rest)}


_BYTE_OF: Final = _byte_alphabet()
