"""Typed claims: one table gives labels and tests."""

from dataclasses import dataclass
from typing import Annotated

import pytest
from confide_protocol.audit.air import AirClaims
from confide_protocol.cwt import Claim, claims_of, read_claims
from confide_protocol.errors import Malformed
from confide_protocol.fields import is_absent_or, is_bytes, is_int, is_one_of, is_text
from confide_protocol.receipt import ReceiptClaims


@dataclass(frozen=True)
class Two:
    count: Annotated[int, Claim(1, is_int(0, 10))]
    name: Annotated[str | None, Claim(2, is_absent_or(is_text(1, 3)))]


def test_claims_are_read_by_label() -> None:
    """A map's values come back under the names of the fields, absent ones as None."""
    assert read_claims({265: "p", 1: 3, 2: "a"}, Two, "p") == {"count": 3, "name": "a"}
    assert read_claims({265: "p", 1: 3}, Two, "p") == {"count": 3, "name": None}


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({1: 3}, "eat_profile"),
        ({265: "q", 1: 3}, "eat_profile"),
        ({265: "p"}, "count"),
        ({265: "p", 1: 10}, "count"),
        ({265: "p", 1: True}, "count"),
        ({265: "p", 1: 1.0}, "count"),
        ({265: "p", 1: 3, 2: b"a"}, "name"),
        ({265: "p", 1: 3, 2: "aaaa"}, "name"),
    ],
)
def test_a_wrong_claim_is_named(tree: dict[int, object], named: str) -> None:
    """The first claim of another type or range is named; its value is not."""
    with pytest.raises(Malformed, match=named):
        read_claims(tree, Two, "p")


def test_tests_take_their_own_kind_only() -> None:
    """Bytes are not text, text is not a list of names, and a name is one of those given."""
    assert is_bytes(1, 2)(b"a")
    assert not is_bytes(1, 2)("a")
    assert not is_bytes(1, 2)(b"")
    assert is_one_of("a", "b")("b")
    assert not is_one_of("ab")("a")
    assert not is_one_of("a")([])


@pytest.mark.parametrize("model", [ReceiptClaims, AirClaims])
def test_no_label_is_used_twice(model: type) -> None:
    """Every claim has a label of its own; private ones lie below -65536."""
    numbers = [claim.label for claim in claims_of(model).values()]
    assert len(set(numbers)) == len(numbers)
    assert all(number in (1, 6, 7, 10) or number < -65536 for number in numbers)
