"""Whatever a model that knows nothing says under a grammar, it is what the grammar says."""

import json
import random

import pytest
from confide_enclave.engine.gguf import parse_gguf
from confide_enclave.engine.grammar import MAX_GRAMMAR_CHARS, Grammars, Matcher, complaint
from confide_enclave.engine.tokens import Tokens
from confide_protocol.errors import EngineError
from llguidance import LLMatcher

from tests.fakes.gguf import toy_llama

TOKENS = Tokens(parse_gguf(toy_llama(), "toy"))
GRAMMARS = Grammars(TOKENS)


def allowed(matcher: Matcher) -> list[int]:
    mask = matcher.mask()
    return [token for token in range(TOKENS.size) if mask[token // 8] >> token % 8 & 1]


def babble(grammar: str, seed: int, limit: int = 400) -> bytes | None:
    """Draw evenly from what is allowed; None where the answer does not end in time."""
    matcher, dice, said = GRAMMARS.start(grammar), random.Random(seed), b""
    for _ in range(limit):
        token = dice.choice(allowed(matcher))
        if token in TOKENS.end_ids:
            return said
        matcher.advance(token)
        said += TOKENS.token_bytes(token)
        if matcher.done:
            return said
    return None


def test_a_regex_is_kept() -> None:
    """Every answer is one that it matches."""
    for seed in range(20):
        said = babble(LLMatcher.grammar_from_regex("[a-f]{2,5}/[0-9]{2}|x"), seed)
        assert said is not None
        assert said == b"x" or (said[-3:-2] == b"/" and said[-2:].isdigit())


def test_control_tokens_never_come_but_for_the_end() -> None:
    """No grammar lets a control token through as text."""
    matcher = GRAMMARS.start(LLMatcher.grammar_from_regex("(.|\\n)*"))
    controls = {token for token in range(TOKENS.size) if not TOKENS.token_bytes(token)}
    assert set(allowed(matcher)) & controls <= TOKENS.end_ids


def test_the_end_comes_only_where_the_grammar_is_satisfied() -> None:
    """After all of it the end alone is left."""
    matcher = GRAMMARS.start(LLMatcher.grammar_from_regex("ab"))
    for letter in (b"a", b"b"):
        (token,) = allowed(matcher)
        assert TOKENS.token_bytes(token) == letter
        assert not matcher.done
        matcher.advance(token)
    assert matcher.done
    assert set(allowed(matcher)) <= TOKENS.end_ids


def test_rewinding_forgets() -> None:
    """A draft that is not accepted leaves no trace."""
    matcher = GRAMMARS.start(LLMatcher.grammar_from_regex("[ab]c|d"))
    before = allowed(matcher)
    matcher.advance(before[0])
    matcher.rewind(1)
    assert allowed(matcher) == before


def test_a_token_that_is_not_allowed_is_an_error() -> None:
    """An answer is never cut short as if it were whole."""
    matcher = GRAMMARS.start(LLMatcher.grammar_from_regex("ab"))
    wrong = next(t for t in range(TOKENS.size) if TOKENS.token_bytes(t) == b"z")
    with pytest.raises(EngineError):
        matcher.advance(wrong)


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        (LLMatcher.grammar_from_json_schema({"type": "string"}), None),
        (LLMatcher.grammar_from_json_schema({"not": {}}), "uses not in a way that is not supported"),
        (LLMatcher.grammar_from_json_schema({"CANARY": 1, "type": "CANARY"}), "is malformed or too complex"),
        (LLMatcher.grammar_from_regex("("), "is malformed or too complex"),
        (LLMatcher.grammar_from_regex("a" * MAX_GRAMMAR_CHARS), "is too large"),
        (json.dumps({"grammars": []}), "is malformed or too complex"),
    ],
)
def test_complaints_repeat_nothing(grammar: str, said: str | None) -> None:
    """What is wrong is said in words of ours and of JSON Schema."""
    assert complaint(grammar) == said
