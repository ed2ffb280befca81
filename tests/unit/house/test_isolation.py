"""The statistics of the isolation bench, against the published table and by hand."""

import random

import pytest

from tests.bench.isolation import ks_distance, ks_p


def test_distance() -> None:
    """The distance is that of the distribution functions, equal values counted together."""
    assert ks_distance([1, 2, 3], [1, 2, 3]) == 0
    assert ks_distance([1, 2], [3, 4]) == 1
    assert ks_distance([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5
    assert ks_distance([1, 1, 1, 2], [1, 2, 2, 2]) == 0.5


@pytest.mark.parametrize(("coefficient", "level"), [(1.224, 0.1), (1.358, 0.05), (1.628, 0.01)])
def test_critical_values(coefficient: float, level: float) -> None:
    """The table's critical distances for large samples have the table's probabilities."""
    assert ks_p(coefficient * (2 / 5000) ** 0.5, 5000, 5000) == pytest.approx(level, rel=0.04)


def test_it_tells_what_differs_and_nothing_else() -> None:
    """Samples of one distribution pass; a shift by half a standard deviation does not."""
    rng = random.Random(5)
    same, other = ([rng.gauss(0, 1) for _ in range(500)] for _ in range(2))
    assert ks_p(ks_distance(same, other), 500, 500) > 0.05
    assert ks_p(ks_distance(same, [value + 0.5 for value in other]), 500, 500) < 1e-9
    assert (ks_p(0, 500, 500), ks_p(1, 500, 500)) == (1, pytest.approx(0, abs=1e-100))
