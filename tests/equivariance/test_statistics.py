"""The interval of a mean over images."""

import numpy as np
import pytest

from secli.equivariance.statistics import bootstrap_interval


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert list(bootstrap_interval(np.full(20, 0.25))) == pytest.approx([0.25, 0.25])


def test_it_agrees_with_resampling_one_by_one() -> None:
    values = np.random.default_rng(3).exponential(size=60)
    generator = np.random.default_rng(11)
    means = [values[generator.integers(0, 60, 60)].mean() for _ in range(4000)]
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(np.quantile(means, 0.025), rel=0.04)
    assert high == pytest.approx(np.quantile(means, 0.975), rel=0.04)


def test_it_covers_the_true_mean_about_95_times_in_100() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(generator.normal(1.0, 1.0, 80))
        covered += low <= 1.0 <= high
    assert 180 <= covered <= 198


def test_it_is_repeatable() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(values) == bootstrap_interval(values)
