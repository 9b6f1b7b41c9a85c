"""Intervals: how sure a mean over images is."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float64

RESAMPLES = 2000
LEVEL = 0.95


@lru_cache(maxsize=8)
def _resampling_weights(n: int) -> Float64[np.ndarray, "resamples n"]:
    """Return how often each of n images is drawn, in each of the resamples (fixed seed)."""
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return draws.astype(np.float64) / n


def bootstrap_interval(values: Float64[np.ndarray, "n"]) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of the mean (Efron 1979), with a fixed seed.

    Parameters
    ----------
    values : array (n,)
        One finite number per image.

    Returns
    -------
    low, high : float
        Both equal the mean when all values are the same.
    """
    means = _resampling_weights(len(values)) @ values
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
