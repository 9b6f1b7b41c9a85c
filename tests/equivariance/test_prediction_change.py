"""Consistency, probability lost and cosine against their formulas written out, and against numbers made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from secli.equivariance.accuracy import accuracy_rows
from secli.equivariance.prediction_change import (
    cosines,
    mean_cosine,
    neighbour,
    probability_drop,
    same_prediction,
)

DTYPES = [torch.float32, torch.float64]


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_consistency_is_the_share_of_equal_predictions(dtype: torch.dtype) -> None:
    one, other = drawn(30, 4, dtype=dtype), drawn(30, 4, dtype=dtype)
    pairs = zip(one.tolist(), other.tolist(), strict=True)
    same = [a.index(max(a)) == b.index(max(b)) for a, b in pairs]
    assert 0 < sum(same) < 30
    assert same_prediction(one, other) == pytest.approx(sum(same) / 30)
    assert same_prediction(one[:0], other[:0]) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_probability_lost_is_that_of_the_true_class(dtype: torch.dtype) -> None:
    one, other, labels = drawn(9, 5, dtype=dtype), drawn(9, 5, dtype=dtype), torch.arange(9) % 5

    def probability(scores: list[float], label: int) -> float:
        return math.exp(scores[label]) / sum(math.exp(score) for score in scores)

    lost = [
        probability(other[k].tolist(), int(labels[k])) - probability(one[k].tolist(), int(labels[k]))
        for k in range(9)
    ]
    assert probability_drop(one, other, labels) == pytest.approx(sum(lost) / 9, abs=1e-6)


def test_probabilities_by_hand() -> None:
    even, sure = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]])  # 1/2 and 1/2; 1/4 and 3/4
    assert probability_drop(even, sure, torch.tensor([1])) == pytest.approx(0.25)
    assert probability_drop(even, sure, torch.tensor([0])) == pytest.approx(-0.25)
    assert probability_drop(sure, sure, torch.tensor([0])) == 0
    assert probability_drop(even * math.nan, sure, torch.tensor([0])) is None
    worst = torch.tensor([[1000.0, -1000.0]])
    assert probability_drop(worst, -worst, torch.tensor([1])) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosines_follow_the_formula(dtype: torch.dtype) -> None:
    one, other = drawn(6, 7, dtype=dtype), drawn(6, 7, dtype=dtype)
    for found, a, b in zip(cosines(one, other).tolist(), one.tolist(), other.tolist(), strict=True):
        product = sum(x * y for x, y in zip(a, b, strict=True))
        assert found == pytest.approx(product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b)))


def test_cosines_by_hand_leave_out_what_vanishes() -> None:
    one = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    other = torch.tensor([[3.0, 0.0], [0.0, -1.0], [1.0, 0.0], [1.0, 0.0]])
    found = cosines(one, other)
    assert found[:3].tolist() == pytest.approx([1, -1, math.sqrt(0.5)])
    assert found[3].isnan()
    assert mean_cosine([found[:1], found[1:]]) == pytest.approx(math.sqrt(0.5) / 3)
    assert mean_cosine([found[3:]]) is None
    assert mean_cosine([]) is None


def test_neighbours_lie_towards_one() -> None:
    factors = [1.5, 1.2, 1.0, 0.8, 0.5]
    assert [neighbour(factor, factors) for factor in factors] == [1.2, 1.0, None, 1.0, 0.8]
    assert neighbour(0.5, [0.5]) is None


def test_rows_compare_with_the_next_factor_and_with_one() -> None:
    first, second = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    logits = {1.0: first, 0.8: second, 0.5: second, 1.5: first}
    near_one = {0.5: [torch.tensor([0.25]), torch.tensor([0.75])]}
    rows = accuracy_rows([1.5, 1.0, 0.5], logits, torch.tensor([0, 0]), 2, cosines=near_one)
    assert [row.accuracy for row in rows] == [1, 1, 0.5]
    assert [row.agreement for row in rows] == [1, 1, 0.5]
    assert [row.consistency for row in rows] == [1, None, 1]  # 0.8 has no row and is a neighbour
    assert [row.cosine for row in rows] == [None, None, 0.5]
    sure = 1 / (1 + math.exp(-1))
    assert [row.probability_drop for row in rows] == pytest.approx([0, 0, (2 * sure - 1) / 2])
    unlabelled = accuracy_rows([0.5], logits, None, None)[0]
    assert (unlabelled.accuracy, unlabelled.probability_drop, unlabelled.consistency) == (None, None, 1)
