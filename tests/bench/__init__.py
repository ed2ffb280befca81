"""Measurements, side by side in one run: `make bench`. Every module with `rows(quick)` takes part."""

from dataclasses import dataclass
from typing import Final

RATES: Final = ("/s",)


@dataclass(frozen=True)
class Row:
    """One figure of ours, alone or against one peer.

    `ratio` > 1 means that ours is better (ours/peer for rates, peer/ours for time and memory); against `direct`
    it is ours/direct. A peer that could not be measured leaves `value` and `ratio` empty; `reason` says why.
    `evidence` names what was judged, where rows differ by that.
    """

    name: str
    value: float | None
    unit: str
    against: str | None = None
    ratio: float | None = None
    reason: str | None = None
    evidence: str | None = None

    def as_json(self) -> dict[str, str | float | None]:
        tree: dict[str, str | float | None] = {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "against": self.against,
            "ratio": self.ratio,
        }
        more = {"reason": self.reason, "evidence": self.evidence}
        return tree | {name: text for name, text in more.items() if text is not None}


def ours(name: str, value: float, unit: str) -> Row:
    """Make the row of a figure that has no peer."""
    return Row(name, value, unit)


def versus(name: str, value: float, unit: str, against: str, theirs: float) -> Row:
    """Make the row of `value` (ours) against a peer's figure of the same unit."""
    forward = against == "direct" or unit.endswith(RATES)
    return Row(name, value, unit, against, value / theirs if forward else theirs / value)


def absent(name: str, unit: str, against: str, reason: str) -> Row:
    """Make the row of a peer that could not be measured."""
    return Row(name, None, unit, against, None, reason)
