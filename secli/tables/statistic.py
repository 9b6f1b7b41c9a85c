"""Mean and standard deviation of a few values, with their number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Statistic:
    """Mean ± standard deviation (n − 1) of n values: no mean where n is 0, no deviation where it is below 2."""

    mean: float | None
    std: float | None
    n: int


NOTHING = Statistic(None, None, 0)


def finite(value: float | None) -> float | None:
    """Return a number, or None for what is none."""
    return value if value is not None and math.isfinite(value) else None


def statistic(values: Iterable[float | None]) -> Statistic:
    """Summarise the values that are there; null and non-finite ones do not count.

    Examples
    --------
    >>> statistic([1.0, 3.0, None])
    Statistic(mean=2.0, std=1.4142135623730951, n=2)
    """
    there = [value for value in map(finite, values) if value is not None]
    if not there:
        return NOTHING
    # exactly rounded, which a sum in floating point is not
    return Statistic(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None, len(there))


def mean_of_all(values: Sequence[float | None]) -> float | None:
    """Return the mean of values; None unless every one is there."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there and len(there) == len(values) else None
