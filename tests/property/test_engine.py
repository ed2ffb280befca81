"""Properties of the engine's pure parts: text, files."""

from itertools import pairwise

from confide_enclave.engine.tokens import TextStream
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import gguf as fake
from tests.fuzz.fuzz_gguf import gguf

FILE = fake.toy_llama()
SMALL = fake.write({"general.alignment": 32, "k": ["a", "b"], "x": 1.5}, {})


def stream(stops: list[str], data: bytes, cuts: list[int]) -> tuple[str, bool]:
    """Push data cut at the given places; return all the text and whether a stop ended it."""
    text, filtered = "", TextStream(stops)
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, end in pairwise(edges):
        text += filtered.push(data[start:end])
        if filtered.stopped:
            return text, True
    return text + filtered.finish(), filtered.stopped


STOPS = st.lists(st.text("ab🙂", min_size=1, max_size=4), max_size=3)
CUTS = st.lists(st.integers(0, 200))


@given(st.text("abc🙂é", max_size=30), STOPS, CUTS)
def test_text_does_not_depend_on_the_cuts(text: str, stops: list[str], cuts: list[int]) -> None:
    """However bytes arrive, out comes the text up to the stop string that is complete first."""
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    expected = text[: min(ends)[1]] if ends else text
    assert stream(stops, text.encode(), cuts) == (expected, bool(ends))


@given(st.binary(max_size=40), CUTS)
def test_any_bytes_become_text(data: bytes, cuts: list[int]) -> None:
    """Bytes that are not UTF-8 are replaced as Python replaces them, whatever the cuts."""
    assert stream([], data, cuts) == (data.decode(errors="replace"), False)


@given(st.text("abc", max_size=30), STOPS, CUTS)
def test_what_is_out_is_never_part_of_a_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    """No stop string appears in what is let out."""
    out, _ = stream(stops, text.encode(), cuts)
    assert not any(stop in out for stop in stops)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    """Any few bytes changed: the reader gives what is there or ConfigError, and nothing else."""
    data = bytearray(FILE)
    for at, byte in changes:
        data[at] = byte
    gguf(bytes(data))


@settings(max_examples=300)
@given(st.integers(0, len(SMALL)), st.binary(max_size=24), st.integers(0, 24))
def test_a_spliced_header_is_read_or_refused(at: int, piece: bytes, dropped: int) -> None:
    """Bytes put in or taken out of a header give the same two outcomes."""
    gguf(SMALL[:at] + piece + SMALL[at + dropped :])


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    """Arbitrary bytes are refused with ConfigError."""
    gguf(data)
    gguf(b"GGUF\x03\0\0\0" + data)
