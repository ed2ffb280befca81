"""What an enclave's API reads: every endpoint's parameters, schemas and patterns, and a model's own text."""

import contextlib
import json
from collections.abc import Callable

from confide_enclave.api.constraints import format_rule, make_grammar
from confide_enclave.api.embeddings import EmbeddingParameters
from confide_enclave.api.reading import parse_parameters
from confide_enclave.api.response_parameters import ResponseParameters
from confide_enclave.api.speech import Splitter
from confide_enclave.engine.grammar import complaint
from confide_enclave.errors import Refusal


def response_parameters(data: bytes) -> None:
    with contextlib.suppress(Refusal):
        parse_parameters(data, ResponseParameters).messages()


def embedding_parameters(data: bytes) -> None:
    with contextlib.suppress(Refusal):
        parse_parameters(data, EmbeddingParameters)


def schema(data: bytes) -> None:
    try:
        tree = json.loads(data)
        json.dumps(tree, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return
    if isinstance(tree, dict):
        _compile("json_schema", tree, None)


def pattern(data: bytes) -> None:
    _compile("regex", None, data.decode(errors="replace"))


def model_text(data: bytes) -> None:
    """However its text is cut, a model's answer is told apart in the same way."""
    text = data.decode(errors="replace")
    whole, cut = Splitter("tagged", "after"), Splitter("tagged", "after")
    pieces = whole.push(text, last=True)
    parts = [piece for char in text for piece in cut.push(char)] + cut.push("", last=True)
    for kind in ("content", "reasoning"):
        said = ["".join(each.text for each in found if each.kind == kind) for found in (pieces, parts)]
        assert said[0] == said[1]
    assert [each for each in pieces if each.kind == "call"] == [each for each in parts if each.kind == "call"]


def _compile(kind: str, tree: dict | None, text: str | None) -> None:
    with contextlib.suppress(Refusal):
        rule = format_rule(kind, tree, text, "response_format")
        complaint(make_grammar(rule, (), must_call=False, parallel=True, thinks="no"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "response_parameters": response_parameters,
    "embedding_parameters": embedding_parameters,
    "schema": schema,
    "pattern": pattern,
    "model_text": model_text,
}
