"""How a byte-level BPE cuts text before it merges, by the names that GGUF gives.

A wrong one gives fluent nonsense, never an error: the tests vouch for each, and no other is taken.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import Tokenizer, models

_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2: Final = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BYTES: Final = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


@dataclass(frozen=True)
class PreTokenizer:
    """`steps` and `normalizer` are a tokenizer.json's; with `whole_words` no word of the vocabulary is cut."""

    steps: tuple[Mapping[str, Any], ...]
    normalizer: str | None = None
    whole_words: bool = False

    def encoder(self, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
        """Return the library's tokenizer, without any special token. Raises: whatever it raises on odd merges."""
        empty = {"type": "BPE", "vocab": {}, "merges": []}
        normalizer = None if self.normalizer is None else {"type": self.normalizer}
        steps = [{**step, **_TRIM} if step["type"] == "ByteLevel" else step for step in self.steps]
        whole = {"type": "Sequence", "pretokenizers": steps}
        tokenizer = Tokenizer.from_str(
            json.dumps({"version": "1.0", "normalizer": normalizer, "pre_tokenizer": whole, "model": empty})
        )
        # The library's cache of words would keep, and tell by its speed, what other tenants have asked.
        tokenizer.model = models.BPE(
            vocab=vocabulary, merges=merges, ignore_merges=self.whole_words, cache_capacity=0
        )
        return tokenizer


# Offsets alone depend on it, and nobody reads them.
_TRIM: Final = {"trim_offsets": True}


def _split(numbers: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": _SPLIT % numbers}, "behavior": "Isolated", "invert": False}


PRE_TOKENIZERS: Final = {
    "gpt-2": PreTokenizer((_GPT2,)),
    "smollm": PreTokenizer(({"type": "Digits", "individual_digits": True}, _GPT2)),
    "qwen2": PreTokenizer((_split(r"\p{N}"), _BYTES), normalizer="NFC"),
    "llama-bpe": PreTokenizer((_split(r"\p{N}{1,3}"), _BYTES), whole_words=True),
}


def recognise(pre_tokenizer: object, normalizer: object, whole_words: object) -> str | None:
    """Return the name of what a tokenizer.json describes, None if it is none of ours."""
    try:
        found = PreTokenizer(tuple(_steps(pre_tokenizer)), _normalizer(normalizer), bool(whole_words))
    except (KeyError, TypeError, AttributeError):
        return None
    return next((name for name, known in PRE_TOKENIZERS.items() if known == found), None)


def _steps(tree: Any) -> Iterable[dict[str, Any]]:  # noqa: ANN401
    for step in tree["pretokenizers"] if tree["type"] == "Sequence" else [tree]:
        yield {key: item for key, item in step.items() if key not in _TRIM}


def _normalizer(tree: Any) -> str | None:  # noqa: ANN401
    if tree is None:
        return None
    # A list without steps is what some converters write for none.
    steps = tree["normalizers"] if tree["type"] == "Sequence" else [tree]
    if any(step.keys() != {"type"} for step in steps):
        raise TypeError
    names = [step["type"] for step in steps]
    return "+".join(names) or None
