"""Cuts before the merges: golden ones for each name, and each against a reader of its rule written here by hand."""

import json
import unicodedata

import pytest
from confide_enclave.engine.pretokenizers import PRE_TOKENIZERS, recognise
from hypothesis import given
from hypothesis import strategies as st

TEXT = "I'LL don't  say 12345 déjà\n\n vu!\t"
GOLDEN = {
    "gpt-2": ["I", "'", "LL", " don", "'t", " ", " say", " 12345", " déjà", "\n\n", " vu", "!", "\t"],
    "smollm": ["I", "'", "LL", " don", "'t", " ", " say", " ", *"12345", " déjà", "\n\n", " vu", "!", "\t"],
    "qwen2": ["I", "'LL", " don", "'t", " ", " say", " ", *"12345", " déjà", "\n\n", " vu", "!", "\t"],
    "llama-bpe": ["I", "'LL", " don", "'t", " ", " say", " ", "123", "45", " déjà", "\n\n", " vu", "!", "\t"],
}  # fmt: skip


def cut(name: str, text: str) -> list[str]:
    encoder = PRE_TOKENIZERS[name].encoder({}, [])
    if encoder.normalizer is not None:
        text = encoder.normalizer.normalize_str(text)
    pieces = encoder.pre_tokenizer.pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in pieces]


def letter(char: str) -> bool:
    return unicodedata.category(char)[0] == "L"


def number(char: str) -> bool:
    return unicodedata.category(char)[0] == "N"


def space(char: str) -> bool:
    return char in "\t\n\v\f\r\x85" or unicodedata.category(char)[0] == "Z"


def run(text: str, at: int, kind, most: int = 1 << 30) -> int:
    """Return where the characters of a kind from `at` end."""
    end = at
    while end < len(text) and end - at < most and kind(text[end]):
        end += 1
    return end


def by_hand(text: str, digits: int) -> list[str]:
    """Cut as the rule of qwen2 (digits=1) and llama-bpe (digits=3) says, its alternatives tried in order."""
    pieces, at = [], 0
    while at < len(text):
        end = piece_end(text, at, digits)
        pieces.append(text[at:end])
        at = end
    return pieces


def piece_end(text: str, at: int, digits: int) -> int:
    for suffix in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"):
        if text[at : at + len(suffix)].lower() == suffix:
            return at + len(suffix)
    first = text[at]
    opener = at if letter(first) else at + 1
    if (letter(first) or not (number(first) or first in "\r\n")) and (end := run(text, opener, letter)) > opener:
        return end
    if number(first):
        return run(text, at, number, digits)
    other = at + (first == " ")
    end = run(text, other, lambda char: not (space(char) or letter(char) or number(char)))
    if end > other:
        return run(text, end, lambda char: char in "\r\n")
    blank = run(text, at, space)
    last_line = max(text.rfind("\n", at, blank), text.rfind("\r", at, blank))
    if last_line >= 0:
        return last_line + 1
    return blank if blank == len(text) or blank == at + 1 else blank - 1


# The long s counts as an s in some case folding; later versions of Unicode assign what Python's leaves open.
OTHERS = st.characters(exclude_characters="ſ", exclude_categories=["Cn", "Cs"])
TEXTS = st.text(st.sampled_from("aZé日٣9½ \t\n\r'sStTlL_.!🙂\u00a0\u0301") | OTHERS)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_cuts(name: str) -> None:
    """Contractions, numbers, spaces and lines are cut as the models were trained."""
    assert cut(name, TEXT) == GOLDEN[name]


def test_every_name_is_vouched_for() -> None:
    """A pre-tokenizer without a golden cut must not be taken."""
    assert GOLDEN.keys() == PRE_TOKENIZERS.keys()


@pytest.mark.parametrize(("name", "digits"), [("qwen2", 1), ("llama-bpe", 3)])
def test_cuts_by_hand(name: str, digits: int) -> None:
    """On any text the cuts are those of the rule, read by another reader."""

    @given(TEXTS)
    def holds(text: str) -> None:
        text = unicodedata.normalize("NFC", text) if name == "qwen2" else text
        assert cut(name, text) == by_hand(text, digits)

    holds()


def test_qwen2_composes() -> None:
    """An accent that comes alone joins its letter first, for qwen2 only."""
    assert cut("qwen2", "e\u0301") == ["\u00e9"]
    assert cut("llama-bpe", "e\u0301") == ["e", "\u0301"]


def test_whole_words() -> None:
    """llama-bpe takes a word that the vocabulary has, whatever the merges say; others merge."""
    vocabulary = {"a": 0, "b": 1, "c": 2, "bc": 3, "ab": 4, "abc": 5}
    merges = [("b", "c")]
    assert PRE_TOKENIZERS["llama-bpe"].encoder(vocabulary, merges).encode("abc").ids == [5]
    assert PRE_TOKENIZERS["qwen2"].encoder(vocabulary, merges).encode("abc").ids == [0, 3]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_recognised(name: str) -> None:
    """What a tokenizer.json writes is found again by its name."""
    tree = json.loads(PRE_TOKENIZERS[name].encoder({}, []).to_str())
    assert recognise(tree["pre_tokenizer"], tree["normalizer"], tree["model"]["ignore_merges"]) == name


@pytest.mark.parametrize(
    ("pre_tokenizer", "normalizer"),
    [
        (None, None),
        ({"type": "Whitespace"}, None),
        ({"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}, None),
        ({"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, {"type": "NFKC"}),
        ({"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, {"type": "Prepend", "prepend": "_"}),
        ({"type": "Sequence", "pretokenizers": None}, None),
        ({"type": "Sequence", "pretokenizers": [3]}, None),
        (7, 7),
    ],
)
def test_others_are_not(pre_tokenizer: object, normalizer: object) -> None:
    """Nothing that differs, if only by a space, is taken for one of ours."""
    assert recognise(pre_tokenizer, normalizer, False) is None
