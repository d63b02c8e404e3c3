"""Medians, percentiles and bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 5000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its bootstrap 95 % interval."""

    value: float
    low: float
    high: float


def median(samples: Sequence[float]) -> Estimate:
    """The median of samples. Raises ValueError for none."""
    return ratio(samples, [1.0] * len(samples))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """median(ours) / median(theirs), of samples taken in turn: sample i of both comes from round i.

    Rounds are resampled, not samples, so that what disturbs a round disturbs
    both of its samples. Raises ValueError unless both have as many, and at least one.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError("a ratio needs as many rounds of one as of the other")
    above, below = np.asarray(ours, float), np.asarray(theirs, float)
    rounds = np.random.default_rng(0).integers(0, len(ours), (_RESAMPLES, len(ours)))
    ratios = np.median(above[rounds], axis=1) / np.median(below[rounds], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Estimate(float(np.median(above) / np.median(below)), float(low), float(high))


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` (0 to 1) of all do not exceed. Raises ValueError for none."""
    if not samples:
        raise ValueError("no samples")
    return float(np.percentile(samples, share * 100, method="inverted_cdf"))
