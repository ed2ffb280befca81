"""Chat templates: a model's own jinja2 program, run without any reach, for a bounded number of steps.

The same messages always give the same text: a template sees no clock and no randomness. Steps are counted, not
timed, so that what is refused is the same on every machine. Does not bound: the time of one step, which grows with
the text that the caller sent and at most MAX_CHARS.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Final

from confide_protocol.errors import ConfigError, EngineError
from jinja2 import TemplateError, meta, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from confide_enclave.engine import Thinking
from confide_enclave.engine.gguf import Gguf

MAX_SOURCE_CHARS: Final = 256 << 10
MAX_CHARS: Final = 16 << 20
MAX_STEPS: Final = 1_000_000
_CHARS_A_STEP: Final = 64
_FILTERS: Final = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "indent", "int",
    "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace",
    "reverse", "round", "safe", "select", "selectattr", "sort", "string", "sum", "title", "trim", "unique", "upper",
)  # fmt: skip
_TEXT_METHODS: Final = frozenset(
    (
        "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit",
        "islower", "isnumeric", "isspace", "istitle", "isupper", "lower", "lstrip", "partition", "removeprefix",
        "removesuffix", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith",
        "strip", "swapcase", "title", "upper",
    )
)  # fmt: skip
_left: ContextVar[list[int]] = ContextVar("steps left")


class ChatTemplate:
    """One compiled template. `takes_tools`, `takes_thinking`: whether it looks at `tools`, at `enable_thinking`."""

    def __init__(self, source: str, file: str) -> None:
        """`file` is a name for messages. Raises: ConfigError when the template cannot be read."""
        try:
            _bounded(len(source), MAX_SOURCE_CHARS)
            self._template = _ENVIRONMENT.from_string(source)
            asked = meta.find_undeclared_variables(_ENVIRONMENT.parse(source))
        except (TemplateError, RecursionError, SyntaxError, MemoryError):
            raise ConfigError(file, "tokenizer.chat_template", "is not a template that can be run safely") from None
        self.takes_tools: Final = "tools" in asked
        self.takes_thinking: Final = "enable_thinking" in asked

    def render(self, **names: object) -> str:
        """Return the prompt. Raises: EngineError, without a reason, when the template refuses, fails or goes on."""
        token = _left.set([MAX_STEPS])
        try:
            return self._template.render(**names)
        except Exception:  # noqa: BLE001 - a template may raise anything, and the text may show the messages
            raise EngineError("the model's chat template refuses these messages") from None
        finally:
            _left.reset(token)


def read_template(gguf: Gguf) -> ChatTemplate:
    """Return the template of a model. Raises: ConfigError."""
    return ChatTemplate(gguf.get("tokenizer.chat_template", str), gguf.file)


def read_thinking(gguf: Gguf) -> Thinking:
    """Say whether the template knows of reasoning, and who opens it. Raises: ConfigError."""
    if "</think>" not in gguf.get("tokenizer.chat_template", str):
        return "no"
    messages = [{"role": "user", "content": "?"}]
    try:
        probe = read_template(gguf).render(messages=messages, add_generation_prompt=True)
    except EngineError:
        return "tagged"
    return "opened" if probe.rstrip().endswith("<think>") else "tagged"


def read_tools(gguf: Gguf) -> bool:
    """Say whether the template has a place for tools, and calls in <tool_call> tags. Raises: ConfigError."""
    return "<tool_call>" in gguf.get("tokenizer.chat_template", str) and read_template(gguf).takes_tools


def _spend(steps: int) -> None:
    left = _left.get()
    left[0] -= steps
    if left[0] < 0:
        raise TemplateError


def _weigh(value: object) -> int:
    """Return the steps that reading the value takes."""
    if isinstance(value, str):
        return 1 + len(value) // _CHARS_A_STEP
    return 1 + len(value) if isinstance(value, list | tuple | dict) else 1


def _bounded(chars: int, limit: int = MAX_CHARS) -> None:
    if chars > limit:
        raise TemplateError


def _concat(pieces: Iterable[str]) -> str:
    # Also behind `render`, macros and {% set %} blocks, which jinja2 hands an iterator or a list.
    whole: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        _bounded(size)
        _spend(1)
        whole.append(piece)
    text = "".join(whole)
    _spend(_weigh(text))
    return text


def _join(pieces: Iterable[object], separator: str = "") -> str:
    listed = [str(piece) for piece in pieces]
    _bounded(len(separator) * len(listed))
    return _concat(separator.join(("", piece)) if n else piece for n, piece in enumerate(listed))


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    _bounded(len(text) + text.count(old) * len(new))
    return text.replace(old, new, count)


def _indent(text: str, width: int = 4, first: bool = False) -> str:
    _bounded(len(text) + (text.count("\n") + 1) * width)
    lines = text.split("\n")
    return ("\n" + " " * width).join([" " * width + lines[0] if first else lines[0], *lines[1:]])


def _each(items: Any) -> Iterator[Any]:  # noqa: ANN401
    for item in items:
        _spend(1)
        yield item


def _tojson(value: object, ensure_ascii: bool = False, indent: int | None = None, **_: object) -> str:
    _bounded(0 if indent is None else indent << 16)
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
    _spend(_weigh(text))
    return text


def _range(*args: int) -> range:
    items = range(*args)
    _spend(len(items))
    return items


def _refuse(message: str = "") -> None:
    raise TemplateError(message)


class _Counted(NodeTransformer):
    """Sends every loop and every `~` through a filter that counts."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        if node.recursive:
            raise TemplateError
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_each", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        pieces = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(pieces, "join", [], [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, with every call, filter and operator counted, and nothing that makes much out of little."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(_concat)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counted().visit(super()._parse(source, name, filename))
        return tree

    def getattr(self, obj: Any, attribute: str) -> Any:  # noqa: ANN401
        _spend(1)
        if not isinstance(obj, str):
            return super().getattr(obj, attribute)
        # A method that could multiply its text is one of ours, or none.
        if attribute == "replace":
            return functools.partial(_replace, obj)
        if attribute == "join":
            return functools.partial(_join, separator=obj)
        return super().getattr(obj, attribute) if attribute in _TEXT_METHODS else self.undefined(name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:  # noqa: ANN401
        _spend(1)
        # jinja2 would look for an attribute next.
        if isinstance(obj, str) and isinstance(argument, str):
            return self.undefined(name=argument)
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, N805
        _spend(sum(map(_weigh, (getattr(__obj, "__self__", None), *args, *kwargs.values()))))
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
        _spend(_weigh(left) + _weigh(right))
        if operator == "+":
            sizes = [len(side) for side in (left, right) if isinstance(side, str | list | tuple)]
            _bounded(sum(sizes))
        elif not all(isinstance(side, int | float) for side in (left, right)) or operator == "**":
            raise TemplateError
        return super().call_binop(context, operator, left, right)


def _counting(function: Callable[..., Any]) -> Callable[..., Any]:
    # Keeps jinja2's marks (pass_environment and the like) on the function.
    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        _spend(sum(map(_weigh, (*args, *kwargs.values()))))
        return function(*args, **kwargs)

    return counted


def _environment() -> _Environment:
    # As the library that models are published for sets it up.
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], cache_size=0
    )
    ours = {"join": _join, "replace": _replace, "indent": _indent, "tojson": _tojson}
    filters = {name: environment.filters[name] for name in _FILTERS} | ours
    environment.filters = {name: _counting(function) for name, function in filters.items()} | {"_each": _each}
    environment.globals = {
        "range": _range,
        "namespace": environment.globals["namespace"],
        "dict": dict,
        "raise_exception": _refuse,
    }
    return environment


_ENVIRONMENT: Final = _environment()
