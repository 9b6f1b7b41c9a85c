"""The best of a column and its equals: p values against scipy and by hand, and what must not be claimed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from secli.tables.paired_tests import (
    ALPHA,
    Draw,
    Standing,
    holm,
    mean_ranks,
    p_value,
    paired_differences,
    standard_errors,
    standings,
)

NUMBERS = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=3, max_size=8)


def sample(values: list[float], first: int = 0, digest: str = "d") -> dict[Draw, float]:
    return {(digest, first + index, 0): value for index, value in enumerate(values)}


@given(NUMBERS)
def test_t_is_scipys(differences: list[float]) -> None:
    if len(set(differences)) < 2:
        return
    expected = scipy.stats.ttest_1samp(differences, 0).pvalue
    assert p_value(differences) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_t_by_hand() -> None:
    # mean 2, standard deviation 1, n 4: t = 4 with 3 degrees of freedom
    spread = math.sqrt(1.5) / math.sqrt(2)
    differences = [2 - spread, 2 + spread, 2 - spread, 2 + spread]
    assert np.std(differences, ddof=1) == pytest.approx(1)
    assert p_value(differences) == pytest.approx(2 * (1 - scipy.stats.t.cdf(4, 3)))


def test_wilcoxon_is_exact_for_few() -> None:
    # all six of one sign: 2 of 2^6 sign patterns are as extreme
    assert p_value([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "wilcoxon") == pytest.approx(2 / 64)
    assert p_value([0.0, 0.0, 0.0], "wilcoxon") == 1


def test_equal_differences() -> None:
    assert p_value([0.0, 0.0, 0.0]) == 1
    assert p_value([0.5, 0.5, 0.5]) == 0


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_step_down(values: list[float]) -> None:
    found = holm(values)
    order = sorted(range(len(values)), key=lambda i: values[i])
    for rank, index in enumerate(order):
        literal = max(min(1.0, (len(values) - k) * values[order[k]]) for k in range(rank + 1))
        assert found[index] == pytest.approx(literal)


def test_pairs_are_of_one_draw_of_the_same_images() -> None:
    one, other = sample([1.0, 2.0, 3.0]), sample([0.5, 0.5], first=1)
    assert paired_differences(one, other) == [1.5, 2.5]
    assert paired_differences(one, sample([1.0, 2.0, 3.0], digest="other")) == []


def test_a_small_steady_difference_is_found_and_a_noisy_one_is_not() -> None:
    noise = [0.00, 0.30, -0.20, 0.10, -0.25, 0.05]  # of the realisation: shared by all rows
    best = sample([1.0 + n for n in noise])
    steady = sample([1.05 + n + 0.002 * (-1) ** i for i, n in enumerate(noise)])
    noisy = sample([1.0 + n + d for n, d in zip(noise, [0.2, -0.15, 0.1, -0.1, 0.15, -0.1], strict=True)])
    found = standings([best, steady, noisy], lower_is_better=True)
    assert [one.word if one else None for one in found] == ["best", "worse", "tied"]
    # unpaired, the steady difference drowns in the noise of the realisations: the pairing is what finds it
    assert scipy.stats.ttest_ind(list(best.values()), list(steady.values())).pvalue > 0.5


def test_correction_spares_a_tie_that_a_single_test_would_deny() -> None:
    best = sample([0.0] * 5)
    shift = [0.9, 1.1, -0.2, 1.0, 1.3]  # p just below 0.05
    assert 0.02 < p_value(shift) < ALPHA
    (_, alone) = standings([best, sample(shift)], True)
    assert alone is not None
    assert not alone.tied
    crowd = standings([best, *(sample([s + 0.01 * k for s in shift]) for k in range(4))], True)
    assert all(one is not None and (one.best or one.tied) for one in crowd)


def test_fewer_than_three_pairs_claim_nothing() -> None:
    found = standings([sample([0.1, 0.2, 0.3]), sample([0.1, 0.2])], True)
    assert found[1] == Standing(best=True, pairs=2, p=None)
    assert found[0] == Standing(best=False, pairs=2, p=None)
    assert found[0].word is None
    assert not found[0].tied


def seeds(values: dict[int, list[float]]) -> dict[Draw, float]:
    return {(f"d{r}", r, seed): value for r, some in values.items() for seed, value in enumerate(some)}


def test_seeds_on_the_same_images_are_no_pairs_of_their_own() -> None:
    best = seeds({r: [0.0] * 5 for r in range(3)})
    # of the realisation, not of the seed: 15 draws, and only three say anything of other images
    other = seeds({r: [shift + 0.001 * k for k in range(5)] for r, shift in enumerate([0.5, 0.1, 0.02])})
    naive = [other[draw] - best[draw] for draw in best]
    assert p_value(naive) < 0.01
    assert paired_differences(other, best) == pytest.approx([0.502, 0.102, 0.022])
    found = standings([best, other], True)
    assert found[1] is not None
    assert found[1].pairs == 3
    assert found[1].tied
    assert not found[1].seeds_alone


def test_two_realisations_of_many_seeds_claim_nothing() -> None:
    found = standings([seeds({0: [0.0] * 9, 1: [0.0] * 9}), seeds({0: [1.0] * 9, 1: [1.1] * 9})], True)
    assert found[1] == Standing(best=False, pairs=2, p=None)


def test_seeds_of_one_realisation_are_tested_and_said_to_be() -> None:
    found = standings([seeds({4: [0.0, 0.0, 0.0, 0.1]}), seeds({4: [1.0, 1.1, 0.9, 1.0]})], True)
    assert [one.word if one else None for one in found] == ["best", "worse"]
    assert found[1] is not None
    assert found[1].pairs == 4
    assert found[1].seeds_alone


def test_wilcoxon_claims_nothing_that_it_could_not_have_denied() -> None:
    best, far = sample([0.0, 0.01, 0.0, 0.02, 0.0]), sample([10.0, 10.1, 10.3, 10.6, 11.0])
    found = standings([best, far], True, "wilcoxon")  # 2 / 2⁵ = 0.0625
    assert found[1] == Standing(best=False, pairs=5, p=None)
    assert standings([best, far], True)[1].word == "worse"  # type: ignore[union-attr]
    six, more = sample([0.0] * 6), sample([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    assert standings([six, more], True, "wilcoxon")[1].word == "worse"  # type: ignore[union-attr]
    # twice 2 / 2⁶ is above 0.05: two comparisons of six pairs cannot tell anything either
    assert [one.p for one in standings([six, more, more], True, "wilcoxon") if one] == [None] * 3


def test_rounding_is_no_difference() -> None:
    values = [0.1, 0.2, 0.3, 0.4]
    rounded = [value * (1 + 1e-15) for value in values]
    assert values != rounded
    found = standings([sample(values), sample(rounded)], True)
    assert found[1] == Standing(best=False, pairs=4, p=1.0)


def test_highest_is_best_where_it_is() -> None:
    found = standings([sample([0.9, 0.91, 0.92]), sample([0.5, 0.51, 0.5])], lower_is_better=False)
    assert [one.best for one in found if one] == [True, False]


def test_nothing_to_compare() -> None:
    assert standings([sample([0.1, 0.2, 0.3]), {}], True) == [None, None]
    assert standings([sample([0.0, 0.0, 0.0]), sample([0.0, 0.0, 0.0])], True) == [None, None]


def test_standard_errors_by_hand() -> None:
    found = standard_errors(0.0204, 0.0006, 6, 0.0210, 0.0010, 6)
    assert found == pytest.approx(-0.0006 / math.sqrt(0.0006**2 / 6 + 0.0010**2 / 6))
    assert standard_errors(1.0, None, 1, 1.0, 0.1, 6) is None
    assert standard_errors(1.0, 0.1, 6, 1.0, 0.1, 0) is None


def test_ranks_share_ties_and_skip_columns_that_not_all_have() -> None:
    means: list[list[float | None]] = [[1.0, 5.0, 0.1], [2.0, 5.0, None], [3.0, 4.0, 0.3], [None, None, None]]
    found, over = mean_ranks(means, [True, True, True])
    assert over == [0, 1]
    assert found == [(1 + 2.5) / 2, (2 + 2.5) / 2, (3 + 1) / 2, None]
    assert mean_ranks(means, [True, False, True])[0][:3] == [(1 + 1.5) / 2, (2 + 1.5) / 2, 3]
    assert mean_ranks([[None, 1.0], [1.0, None]], [True, True]) == ([None, None], [])
