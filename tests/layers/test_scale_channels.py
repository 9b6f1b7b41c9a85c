from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from secli.layers.scale_channels import Aggregate, EachLevel, ScaleChannelHead, aggregate


def literal(z: Tensor, how: Aggregate) -> Tensor:
    """One picture and class at a time."""
    joined = torch.empty(z.shape[0], z.shape[2], dtype=z.dtype)
    for n in range(z.shape[0]):
        for k in range(z.shape[2]):
            values = [float(value) for value in z[n, :, k]]
            if how == "max":
                joined[n, k] = max(values)
            elif how == "mean":
                joined[n, k] = sum(values) / len(values)
            else:
                joined[n, k] = math.log(sum(math.exp(value) for value in values))
    return joined


HOW: tuple[Aggregate, ...] = ("max", "mean", "logsumexp")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_are_joined_as_the_formula_says(how: Aggregate, dtype: torch.dtype) -> None:
    z = torch.randn(3, 4, 5, dtype=dtype)
    torch.testing.assert_close(aggregate(z, how), literal(z, how))


@pytest.mark.parametrize("how", HOW)
def test_the_order_of_the_channels_does_not_matter(how: Aggregate) -> None:
    """So levels that move off one end and come in at the other leave the answer as it is."""
    layer = ScaleChannelHead(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), how).double()
    x = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(layer(x.roll(1, 2)), layer(x))
    assert not torch.allclose(layer(x.roll(1, 1)), layer(x))


def test_a_list_and_a_scale_space_are_one_thing() -> None:
    layer = ScaleChannelHead(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)))
    x = torch.randn(2, 3, 4, 2, 2)
    assert torch.equal(layer(x), layer(list(x.unbind(2))))


def test_a_batch_norm_in_the_head_sees_all_levels_as_one_batch() -> None:
    norm = nn.BatchNorm1d(3, momentum=1.0)
    x = torch.randn(2, 3, 4, 1, 1)
    ScaleChannelHead(nn.Sequential(nn.Flatten(), norm))(x)
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3, 4)))


def test_levels_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one head needs levels of one shape"):
        ScaleChannelHead(nn.Flatten())([torch.rand(1, 2, 4, 4), torch.rand(1, 2, 2, 2)])


def test_every_level_meets_the_same_weights() -> None:
    layer = EachLevel(nn.Conv2d(1, 2, 3))
    x = torch.rand(1, 1, 6, 6)
    first, second = layer([x, x])
    assert torch.equal(first, second)
    assert torch.equal(layer(torch.stack([x, x], dim=2)), torch.stack([first, second], dim=2))
