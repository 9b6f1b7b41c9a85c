"""Mean and standard deviation of a few values, with their number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Statistic:
    """Mean ± standard deviation (n − 1) of n values.

    Attributes
    ----------
    mean
        None when there is no value.
    std
        None when n < 2: one value says nothing about its spread.
    n
        Number of values.
    """

    mean: float | None
    std: float | None
    n: int


NOTHING = Statistic(None, None, 0)


def statistic(values: Iterable[float | None]) -> Statistic:
    """Summarise the values that are there; null and non-finite ones do not count.

    Examples
    --------
    >>> statistic([1.0, 3.0, None])
    Statistic(mean=2.0, std=1.4142135623730951, n=2)
    """
    there = [value for value in values if value is not None and math.isfinite(value)]
    if not there:
        return NOTHING
    return Statistic(
        mean=statistics.fmean(there), std=statistics.stdev(there) if len(there) > 1 else None, n=len(there)
    )
