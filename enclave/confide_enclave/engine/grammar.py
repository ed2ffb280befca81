"""What an answer may be, as a grammar over token ids: llguidance's automaton with limits for any input."""

import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Final, Protocol

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from confide_enclave.errors import GrammarTooComplex

MAX_GRAMMAR_CHARS: Final = 256 << 10
# Fuel bounds the time to compile a grammar and to compute one mask, whatever the grammar says: about 20 ms each.
_LIMITS: Final = LLParserLimits(
    max_items_in_row=1_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=50_000,
    max_grammar_size=50_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)
# The only words of a compiler's complaint that are repeated: they are JSON Schema's, not the caller's.
_KEYWORDS: Final = frozenset(
    """
    additionalItems additionalProperties allOf anyOf const contains contentEncoding contentMediaType default
    dependencies dependentRequired dependentSchemas else enum exclusiveMaximum exclusiveMinimum format if items
    maxContains maxItems maxLength maxProperties maximum minContains minItems minLength minProperties minimum
    multipleOf not oneOf pattern patternProperties prefixItems properties propertyNames required then type
    unevaluatedItems unevaluatedProperties uniqueItems $anchor $defs $dynamicRef $ref $schema
    """.split()  # noqa: SIM905
)
_QUOTED: Final = re.compile(r"[\"'`]([$A-Za-z]+)[\"'`]")


class Vocabulary(Protocol):
    """What a grammar needs to know of a tokenizer; control tokens have no bytes."""

    @property
    def size(self) -> int: ...

    @property
    def end_ids(self) -> Collection[int]: ...

    def token_bytes(self, token: int) -> bytes: ...


def complaint(grammar: str) -> str | None:
    """Say why a grammar cannot be used, in words of ours; None if it can. May take 100 ms: off the event loop."""
    if len(grammar) > MAX_GRAMMAR_CHARS:
        return "is too large"
    fault, messages = LLMatcher.validate_grammar_with_warnings(grammar, limits=_LIMITS)
    if not fault:
        return None
    named = sorted(set(_QUOTED.findall(messages[0])) & _KEYWORDS)
    return f"uses {', '.join(named)} in a way that is not supported" if named else "is malformed or too complex"


class Grammars:
    """Grammars over one vocabulary. Any thread may use it; a Matcher belongs to one at a time."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def start(self, grammar: str) -> "Matcher":
        """Compile a grammar; takes milliseconds. Raises: GrammarTooComplex."""
        return Matcher(LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS))

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        ids = range(self._vocabulary.size)
        # Control tokens get bytes that no text has.
        spellings = [self._vocabulary.token_bytes(token) or b"\xff[%d]" % token for token in ids]
        ends = sorted(self._vocabulary.end_ids)
        controls = [token for token in ids if spellings[token].startswith(b"\xff[")]
        # What a grammar forces is spelled in the longest tokens that fit, which the first trie finds.
        trie = LLTokenizer(TokenizerWrapper(_Spelling(spellings, controls, ends[0], None)), eos_token=ends)
        return LLTokenizer(TokenizerWrapper(_Spelling(spellings, controls, ends[0], trie)), eos_token=ends)


class _Spelling:
    """llguidance's idea of a tokenizer."""

    bos_token_id = None

    def __init__(
        self, tokens: Sequence[bytes], controls: Sequence[int], end: int, trie: LLTokenizer | None
    ) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, controls, end
        self._trie = trie

    def __call__(self, text: bytes | str) -> list[int]:
        if self._trie is None or isinstance(text, bytes):
            raise TypeError  # asked whether we take bytes: we do not
        return self._trie.greedy_tokenize(text)


class Matcher:
    """How far one answer has come in its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._check()

    @property
    def done(self) -> bool:
        """Whether nothing can follow but the end."""
        return self._matcher.is_stopped()

    @property
    def broken(self) -> bool:
        """Whether a limit was broken; so it stays."""
        return self._matcher.is_error()

    def mask(self) -> bytes:
        """Return one bit per token id, the lowest first: may it come next. Raises: GrammarTooComplex."""
        mask = self._matcher.compute_bitmask()
        self._check()
        return mask

    def accepts(self, token: int) -> bool:
        """Tell whether a token may come next by its bytes alone: `mask` wants forced text in the longest tokens.

        Raises: GrammarTooComplex.
        """
        accepted = self._matcher.validate_tokens([token]) == 1
        self._check()
        return accepted

    def advance(self, token: int) -> None:
        """Take a token that the mask allowed. Raises: GrammarTooComplex."""
        self._matcher.consume_token(token)
        self._check()

    def rewind(self, count: int) -> None:
        """Take the last tokens back. Raises: GrammarTooComplex."""
        self._matcher.rollback(count)
        self._check()

    def _check(self) -> None:
        # In an error state llguidance allows the end alone; an answer cut there would look whole.
        if self.broken:
            raise GrammarTooComplex
