"""The arithmetic behind the figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics import median, percentile, ratio

SAMPLES = st.lists(st.floats(0.001, 1000), min_size=1, max_size=9)


def test_a_ratio_is_that_of_the_medians() -> None:
    assert ratio([2, 100, 4], [1, 2, 0.5]).value == 4


def test_rounds_are_resampled_together() -> None:
    """A round that is slow for both systems says nothing about their ratio."""
    slow_and_fast = [1.0, 10.0, 100.0, 1000.0, 3.0]
    found = ratio([2 * sample for sample in slow_and_fast], slow_and_fast)
    assert (found.low, found.value, found.high) == (2, 2, 2)


def test_an_interval_shows_the_spread() -> None:
    found = ratio([1, 2, 3, 4, 5], [1, 1, 1, 1, 1])
    assert 1 <= found.low < found.value == 3 < found.high <= 5


@given(SAMPLES)
def test_an_interval_holds_the_median(samples: list[float]) -> None:
    found = median(samples)
    assert min(samples) <= found.low <= found.value <= found.high <= max(samples)


@given(SAMPLES)
def test_the_same_samples_give_the_same_interval(samples: list[float]) -> None:
    assert median(samples) == median(samples)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_do_not_match_are_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="rounds"):
        ratio(ours, theirs)


def test_percentiles_are_samples() -> None:
    samples = [float(number) for number in range(1, 101)]
    assert (percentile(samples, 0.5), percentile(samples, 0.99), percentile(samples, 1)) == (50, 99, 100)
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)
