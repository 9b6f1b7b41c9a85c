"""The pictures of the error: the strongest channels, their levels, what is known of them, and where layers read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Invariant, Plane, Pyramid, VectorField
from secli.action.images import rescale
from secli.equivariance.feature_maps import bright_points, feature_views
from secli.errors import InputError, UnknownNameError
from secli.layers.deformable import DeformConv
from secli.models.building import build
from secli.models.contract import Features, Stage, StagedModel


class Gains(nn.Module):
    """The picture times 1, 3, 2 and 3."""

    def forward(self, images: Tensor) -> Tensor:
        return images * torch.tensor([1.0, 3.0, 2.0, 3.0]).view(1, 4, 1, 1)


class Shift(nn.Module):
    """The broken control: moves the picture by three pixels, whatever its scale."""

    def forward(self, images: Tensor) -> Tensor:
        return images.roll(3, dims=-1)


class Sum(nn.Module):
    def forward(self, features: Features) -> Tensor:
        tensors = features if isinstance(features, list) else [features]
        return torch.stack([tensor.flatten(1).sum(1) for tensor in tensors], 1)


def network(module: nn.Module, field: object = None) -> StagedModel:
    return StagedModel([Stage("tap", module, field or Plane()), Stage("logits", Sum(), Invariant())])  # type: ignore[arg-type]


def test_the_strongest_channels_are_shown_in_order(digits: Tensor) -> None:
    views = feature_views(network(Gains()), digits[:1], 0.5, channels=2)
    assert [(view.tap, view.channel, view.level) for view in views.features] == [
        ("tap", 1, None),
        ("tap", 3, None),
    ]
    assert [v.channel for v in feature_views(network(Gains()), digits[:1], 0.5, channels=3).features] == [
        1,
        2,
        3,
    ]
    assert len(feature_views(network(Gains()), digits[:1], 0.5, channels=9).features) == 4


def test_an_equivariant_network_differs_nowhere_and_a_broken_one_does(digits: Tensor) -> None:
    (right,) = feature_views(network(nn.Identity()), digits[:1], 0.5).features
    assert right.error == 0
    assert not right.difference.any()
    assert right.known.all()
    expected = rescale(digits[0, 0], 0.5).double().numpy()
    np.testing.assert_allclose(right.expected, expected, atol=1e-6)
    (wrong,) = feature_views(network(Shift()), digits[:1], 0.5).features
    assert wrong.error is not None
    assert wrong.error > 0.4
    np.testing.assert_allclose(wrong.difference, wrong.actual - wrong.expected, atol=1e-12)


def test_a_scale_space_shows_its_levels_and_what_is_known_of_them(digits: Tensor) -> None:
    views = feature_views(build("dss_v1"), digits[:1], 0.5, taps=["lift", "conv1"], channels=2)
    lift = [view for view in views.features if view.tap == "lift"]
    assert [view.level for view in lift] == [0, 1, 2, 3]
    # at s = 1/2 the top level would come from off the stack
    assert [bool(view.known.all()) for view in lift] == [True, True, True, False]
    assert not lift[3].known.any()
    assert lift[3].error is None
    assert all(view.error is not None and view.error < 0.01 for view in lift[:3])
    conv = [view for view in views.features if view.tap == "conv1"]
    assert len({view.channel for view in conv}) == 2
    assert len(conv) == 2 * 4


def test_the_empty_picture_is_taken_away_unless_asked(digits: Tensor) -> None:
    class Offset(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + 5

    (empty,) = feature_views(network(Offset()), digits[:1], 0.5).features
    (bare,) = feature_views(network(Offset()), digits[:1], 0.5, background="none").features
    assert empty.actual[0, 0] == pytest.approx(0, abs=1e-4)
    assert bare.actual[0, 0] == pytest.approx(5, abs=1e-4)


def test_a_border_is_not_compared(digits: Tensor) -> None:
    (view,) = feature_views(network(nn.Identity()), digits[:1], 1.0, border=3).features
    assert view.known.sum() == 22 * 22
    bright = torch.ones(1, 1, 28, 28)
    (framed,) = feature_views(network(nn.Conv2d(1, 1, 5, padding=2, bias=False)), bright, 0.5).features
    # the shrunk picture covers 14 cells across, and the convolution sees at least 2 around each
    assert 0 < framed.known.sum() <= 10 * 10
    assert framed.known[13, 13]
    assert not framed.known[8].any()


def test_pyramids_and_further_axes_are_shown(digits: Tensor) -> None:
    class Levels(nn.Module):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images, images[..., ::2, ::2]]

    views = feature_views(network(Levels(), Pyramid((1.0, 0.5))), digits[:1], 0.5).features
    assert [(view.level, view.expected.shape) for view in views] == [(0, (28, 28)), (1, (14, 14))]
    assert [bool(view.known.any()) for view in views] == [True, False]

    class Vectors(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images, 2 * images], 2)

    field = VectorField(base=2.0, angle_step=math.pi / 8, levels=(-8, 8))
    shown = feature_views(network(Vectors(), field), digits[:1], 1.0, channels=2).features
    assert [(view.channel, view.component) for view in shown] == [(0, (0,)), (0, (1,))]


def test_the_network_is_left_as_it_was(digits: Tensor) -> None:
    model = build("dcn").train()
    feature_views(model, digits[:1], 0.5, taps=["block1"])
    assert model.training
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert sum(hooks) == 0


def deformable(stride: int = 1, padding: int = 1, dilation: int = 1) -> tuple[StagedModel, DeformConv]:
    layer = DeformConv(1, 2, 3, stride=stride, padding=padding, dilation=dilation)
    return network(layer, Plane(stride=float(stride), origin=0.0)), layer


def test_a_deformable_layer_reads_where_its_offsets_point(digits: Tensor) -> None:
    model, layer = deformable()
    assert layer.offset.bias is not None
    with torch.no_grad():
        layer.offset.bias[0::2] = 0.25  # rows
        layer.offset.bias[1::2] = -2.0  # columns
    (sampling,) = feature_views(model, digits[:1], 0.5).sampling
    assert sampling.layer == "tap"
    assert sampling.points.shape == sampling.moved_points.shape == (3, 9, 2)
    x, y = sampling.positions[0]
    reads = {(x + column - 2.0, y + row + 0.25) for row in (-1, 0, 1) for column in (-1, 0, 1)}
    assert {tuple(point) for point in sampling.points[0]} == reads
    # the corresponding place of the shrunk picture, to the nearest cell
    moved = 13.5 + 0.5 * (sampling.positions - 13.5)
    assert np.abs(sampling.moved_positions - moved).max() <= 0.5
    np.testing.assert_array_equal(
        sampling.points - sampling.positions[:, None],
        sampling.moved_points - sampling.moved_positions[:, None],
    )


def test_strides_and_dilations_are_told_in_pixels_of_the_image(digits: Tensor) -> None:
    model, _ = deformable(stride=2, padding=2, dilation=2)
    (sampling,) = feature_views(model, digits[:1], 1.0).sampling
    reach = sampling.points - sampling.positions[:, None]
    assert sorted({float(value) for value in reach.ravel()}) == [-2.0, 0.0, 2.0]
    np.testing.assert_array_equal(sampling.positions % 2, 0)

    inner = DeformConv(1, 1, 3, padding=1)
    pooled = StagedModel(
        [
            Stage("halved", nn.AvgPool2d(2), Plane(stride=2.0)),
            Stage("tap", inner, Plane(stride=2.0)),
            Stage("logits", Sum(), Invariant()),
        ]
    )
    (sampling,) = feature_views(pooled, digits[:1], 1.0, taps=["tap"]).sampling
    # cells of the pooled plane lie 2 pixels apart, the first at ½
    reach = sampling.points - sampling.positions[:, None]
    assert sorted({float(value) for value in reach.ravel()}) == [-2.0, 0.0, 2.0]
    np.testing.assert_array_equal(sampling.positions % 2, 0.5)


def test_bright_places_lie_apart() -> None:
    picture = torch.zeros(1, 20, 30)
    picture[0, 4, 5], picture[0, 5, 6], picture[0, 15, 20] = 9.0, 8.0, 3.0
    places = bright_points(picture, 2)
    assert np.hypot(*(places[0] - [5, 4])) < 2
    assert np.hypot(*(places[1] - [20, 15])) < 2


@pytest.mark.parametrize(
    ("factor", "options", "error", "message"),
    [
        (0.0, {}, InputError, "factor 0: a scale factor is a positive number"),
        (math.nan, {}, InputError, "factor nan"),
        (0.5, {"channels": 0}, InputError, "0 channels to show"),
        (0.5, {"taps": ["logits"]}, InputError, "none of the taps logits has a plane"),
        (0.5, {"taps": ["tab"]}, UnknownNameError, "did you mean 'tap'"),
    ],
)
def test_bad_wishes_are_one_line(
    digits: Tensor, factor: float, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        feature_views(network(nn.Identity()), digits[:1], factor, **options)  # type: ignore[arg-type]
