"""JSON that can be read in two ways, or not written down again, is no JSON here."""

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.strict_json import load_json


def test_any_value_is_read() -> None:
    """Objects, lists, text, numbers, and white space around them."""
    assert load_json(b' {"a": [1, "\xc3\xa9", null, true, -0.5]} ', "format") == {"a": [1, "é", None, True, -0.5]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a":1,"a":1}',
        b'[{"b":{"a":1,"a":2}}]',
        b'{"a":1,"\\u0061":2}',
        b"NaN",
        b"[Infinity]",
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"\xff",
        '"x"'.encode("utf-16"),
        b'\xef\xbb\xbf"x"',
        b"[" * 100_000,
        b"1" * 5000,
        b"[1] [2]",
        b'"a\nb"',
    ],
)
def test_what_is_not_strict_is_malformed(data: bytes) -> None:
    """One error, with the check that was asked for."""
    with pytest.raises(EvidenceMalformed) as fault:
        load_json(data, "a_check")
    assert fault.value.check == "a_check"
