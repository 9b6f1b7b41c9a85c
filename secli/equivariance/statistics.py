"""Bootstrap intervals of means over images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float64, UInt8

RESAMPLES = 2000
LEVEL = 0.95
BLOCK = 50  # resamples in memory at a time, so that it hardly grows with the number of images


@lru_cache(maxsize=2)
def _resampling_counts(n: int) -> UInt8[np.ndarray, "resamples n"]:
    """Return how often each of n images is drawn, in each of the resamples (fixed seed)."""
    generator = np.random.default_rng(0)
    chances = np.full(n, 1 / n)
    counts = np.empty((RESAMPLES, n), dtype=np.uint8)  # no image of many is drawn 256 times
    for start in range(0, RESAMPLES, BLOCK):
        counts[start : start + BLOCK] = generator.multinomial(n, chances, size=BLOCK)
    return counts


def bootstrap_interval(values: Float64[np.ndarray, "n"]) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of the mean (Efron 1979), with a fixed seed.

    The values must be finite; both ends equal the mean when all are the same.
    """
    counts = _resampling_counts(len(values))
    starts = range(0, RESAMPLES, BLOCK)
    means = np.concatenate([(counts[k : k + BLOCK] / len(values)) @ values for k in starts])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
