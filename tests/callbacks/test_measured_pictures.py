"""What the callbacks share: bad arguments are refused when the callback is made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secli.callbacks.measured_pictures import MeasuredPictures
from secli.errors import InputError
from tests.equivariance.test_scale_metric import digits, network


@pytest.mark.parametrize(
    ("images", "every", "why"),
    [
        (torch.zeros(0, 1, 8, 8), 1, "there are none to measure on"),
        (torch.zeros(1, 1, 8, 8), 0, "every: a number of evaluations from 1, not 0"),
        (torch.full((1, 1, 8, 8), 9.0), 1, "not in [0, 1]"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(images: Tensor, every: int, why: str) -> None:
    with pytest.raises(InputError) as caught:
        MeasuredPictures(images, every)
    assert why in str(caught.value)


def test_each_process_measures_its_share_or_none_does() -> None:
    pictures = MeasuredPictures(digits(4), factors=[0.8], taps=["encoder"])
    assert pictures.values(network(), rank=1, processes=2)
    with pytest.raises(InputError, match="4 pictures are too few for 5 processes"):
        pictures.values(network(), rank=4, processes=5)


def test_every_second_evaluation_is_due() -> None:
    pictures = MeasuredPictures(digits(1), every=2)
    assert [pictures.due() for _ in range(4)] == [False, True, False, True]
