"""FLOPs against counts by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import deform_conv2d

from secli.layers import DeformConv, DSSConv, ScaleSpaceLift
from secli.models.building import build
from secli.models.flops import flops, traced


def test_a_convolution() -> None:
    layer = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    # per output cell and channel, 27 multiply–adds
    assert flops(layer, torch.zeros(4, 3, 9, 9)) == 2 * 4 * 5 * (5 * 5) * 27


def test_a_scale_convolution_counts_the_levels_that_it_joins() -> None:
    layer = DSSConv(2, 4, 3, 2, 3, interaction=2)
    # two levels of two terms, the top one of one; 9 taps, 2 channels
    assert flops(layer, torch.zeros(1, 2, 3, 8, 8)) == 2 * 4 * 64 * (9 * 2) * (2 + 2 + 1)


def test_a_lift_blurs_rows_and_columns() -> None:
    layer = ScaleSpaceLift(2.0, 1.0, 2)
    assert layer.get_buffer("kernel1").shape == (17,)
    assert flops(layer, torch.zeros(1, 3, 8, 8)) == 2 * 3 * 64 * (17 + 17)


class Torchvisions(nn.Module):
    """The deformable layer, through torchvision's operator."""

    def __init__(self, layer: DeformConv) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        predicted = layer.offset(x)
        y: Tensor = deform_conv2d(
            x,
            predicted[:, : layer.shifts],
            layer.weight,
            layer.bias,
            stride=layer.stride,
            padding=layer.padding,
            mask=predicted[:, layer.shifts :].sigmoid() if layer.modulated else None,
        )
        return y


@pytest.mark.parametrize(("groups", "modulated"), [(1, False), (2, True)])
def test_both_ways_of_a_deformable_convolution_count_the_same(groups: int, modulated: bool) -> None:
    layer = DeformConv(4, 6, 3, stride=2, padding=1, groups=groups, modulated=modulated)
    x = torch.rand(2, 4, 9, 9)
    cells, taps = 2 * 5 * 5, 4 * 9
    predicted = (3 if modulated else 2) * 9 * groups
    by_hand = (
        2 * predicted * taps * cells  # the branch
        + 8 * taps * cells  # four neighbours of every tap, a multiplication and an addition each
        + 2 * 6 * taps * cells  # the convolution
    )
    assert flops(layer, x) == by_hand
    assert flops(Torchvisions(layer), x) == by_hand


def test_bilinear_sampling() -> None:
    class Resize(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.interpolate(x, size=(6, 7), mode="bilinear", align_corners=False)

    assert flops(Resize(), torch.zeros(2, 3, 4, 4)) == 8 * 2 * 3 * 6 * 7


def test_a_network() -> None:
    widths = (1, 8, 20, 40, 64)
    by_hand = 2 * 28**2 * 9 * sum(a * b for a, b in pairwise(widths)) + 2 * 256 * 10
    model = build("cnn").eval()
    assert flops(model, torch.zeros(1, 1, 28, 28)) == by_hand
    features, counted = traced(model, (1, 28, 28))
    assert counted == by_hand
    logits = features["logits"]
    assert isinstance(logits, Tensor)
    assert logits.shape == (1, 10)
    assert logits.is_meta  # nothing was computed
    assert not next(model.parameters()).is_meta


def test_what_depends_on_values_is_computed() -> None:
    class Depends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def features(self, images: Tensor) -> dict[str, Tensor]:
            return {"logits": self.linear(images.flatten(1)) * (1 if images.sum() > 0 else 2)}

    features, counted = traced(Depends(), (1, 2, 2))
    assert counted == 2 * 4 * 3
    logits = features["logits"]
    assert isinstance(logits, Tensor)
    assert not logits.is_meta
