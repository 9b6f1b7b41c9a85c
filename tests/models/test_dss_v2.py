"""The deep scale space on a pyramid: its levels are where the field says, and shrunk pictures move along them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

import secli
from secli.action.fields import Canvas, Plane, Pyramid
from secli.action.images import rescale
from secli.errors import InputError
from secli.models.building import build, count_parameters
from secli.models.contract import StagedModel


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """Twenty digits of scikit-learn, 20 pixels high on a canvas of 28."""
    small = torch.from_numpy(load_digits().images[:20] / 16).unsqueeze(1).float()
    return functional.pad(functional.interpolate(small, size=20, mode="bicubic").clamp(0, 1), [4] * 4)


def sides(model: StagedModel, size: int) -> dict[str, list[int]]:
    features = model.features(torch.rand(1, 1, size, size))
    return {
        tap: [level.shape[-1] for level in each] for tap, each in features.items() if isinstance(each, list)
    }


def errors(
    model: StagedModel, pictures: Tensor, factors: list[float], taps: list[str]
) -> dict[str, list[float]]:
    frame = secli.measure(model.eval(), pictures, factors=factors, taps=taps, border=0)
    return {
        tap: [
            float(frame[(frame["tap"] == tap) & np.isclose(frame["factor"], factor)]["mean"].iloc[0])
            for factor in factors
        ]
        for tap in taps
    }


@pytest.mark.parametrize(
    ("options", "size", "first", "last", "collected"),
    [
        ({}, 28, [28, 20, 16, 12], [7, 5, 4, 3], 3),
        ({"base": 2.0}, 28, [28, 16, 8, 4], [7, 4, 2, 1], 1),
        ({"base": 1.2, "levels": 8}, 28, [28, 24, 20, 20, 16, 12, 12, 8], [7, 6, 5, 5, 4, 3, 3, 2], 2),
        ({"interaction": 2}, 28, [28, 20, 16, 12], [7, 5], 5),
        ({"interaction": 4, "levels": 8, "base": 1.2}, 28, [28, 24, 20, 20, 16, 12, 12, 8], [7, 6], 6),
        ({}, 33, [36, 24, 16, 12], [9, 6, 4, 3], 3),
        ({}, 96, [96, 64, 44, 32], [24, 16, 11, 8], 8),
    ],
)
def test_sizes_of_the_levels(
    options: dict[str, Any], size: int, first: list[int], last: list[int], collected: int
) -> None:
    model = build("dss_v2", {**options, "image_size": size}).eval()
    assert sides(model, size)["lift"] == first
    assert sides(model, size)["block2"] == last
    pooled = model.features(torch.rand(1, 1, size, size))["pool"]
    assert isinstance(pooled, Tensor)
    assert pooled.shape[-2:] == (collected, collected)
    fields = model.taps
    assert isinstance(fields["block2"], Pyramid)
    assert isinstance(fields["pool"], Plane)
    # the cells of the coarsest level, and how many pixels apart they lie
    assert fields["pool"].stride == pytest.approx(4 / fields["block2"].factors[-1])


@pytest.mark.parametrize(("channels", "base", "features"), [(16, 1.5, 9), (32, 1.5, 9), (16, 2.0, 1)])
def test_parameters(channels: int, base: float, features: int) -> None:
    count = 9 * channels + 18 * channels**2 + 6 * channels + 20 * channels * features + 10
    assert count_parameters(build("dss_v2", {"channels": channels, "base": base})) == count


@pytest.mark.parametrize("size", [28, 33])
@pytest.mark.parametrize("options", [{}, {"base": 2.0}, {"interaction": 2}])
def test_every_level_lies_about_the_picture_s_centre(options: dict[str, Any], size: int) -> None:
    """With mirrored kernels a mirrored picture has mirrored features: no pooling counts from a corner."""
    model = build("dss_v2", {**options, "image_size": size}).eval().double()
    mirror = build("dss_v2", {**options, "image_size": size}).eval().double()
    with torch.no_grad():
        for parameter in mirror.parameters():
            if parameter.ndim == 5:
                parameter.copy_(parameter.flip(-1))
        picture = torch.rand(1, 1, size, size, dtype=torch.float64)
        features, mirrored = model.features(picture), mirror.features(picture.flip(-1))
    for tap in model.taps:
        if tap != "logits":
            for one, other in zip(features[tap], mirrored[tap], strict=True):
                torch.testing.assert_close(one.flip(-1), other)


@pytest.mark.parametrize("base", [1.5, 2.0])
def test_a_shrunk_digit_moves_along_the_levels(base: float, digits: Tensor) -> None:
    """At the lattice's first factor the lift and both convolutions follow their field; between, the lift aliases."""
    factors = [1 / base, base**-0.5]
    found = errors(build("dss_v2", {"base": base}), digits, factors, ["lift", "conv1", "conv2"])
    for tap, (on, between) in found.items():
        assert on < 0.06, tap
        assert on < between


def test_the_wrong_factors_are_farther_from_the_truth(digits: Tensor) -> None:
    """Levels declared by their rounded sizes, or one too many apart, do not hold what the network does."""
    model = build("dss_v2").eval()
    canvas = Canvas(28, 28)
    with torch.no_grad():
        features, shrunk = (model.features(x)["conv1"] for x in (digits, rescale(digits, 1 / 1.5)))
        empty = model.features(torch.zeros(1, 1, 28, 28))["conv1"]

    def error(field: Pyramid) -> float:
        acted = field.act([a - b for a, b in zip(features, empty, strict=True)], 1 / 1.5, canvas)
        pairs = [
            (moved, actual - zero)
            for moved, actual, zero, mask in zip(acted.features, shrunk, empty, acted.masks, strict=True)
            if mask is None
        ]
        difference = sum(float((moved - actual).square().sum()) for moved, actual in pairs)
        return difference / sum(float(moved.square().sum()) for moved, _ in pairs)

    declared = model.taps["conv1"]
    assert isinstance(declared, Pyramid)
    right = error(declared)
    assert right < 0.06
    assert error(Pyramid(tuple(n / 28 for n in (28, 20, 16, 12)))) > 2 * right  # by the sizes, margin and all
    assert error(Pyramid((1.0, 0.5, 0.25, 0.125))) > 2 * right


def test_scale_pooling_is_an_option(digits: Tensor) -> None:
    largest, mean = (build("dss_v2", {"scale_pool": how}).eval()(digits) for how in ("max", "mean"))
    assert not torch.allclose(largest, mean, atol=1e-4)


def test_an_interaction_that_leaves_no_level_is_refused() -> None:
    with pytest.raises(InputError, match="2 convolutions with interaction 4 leave no level of 4"):
        build("dss_v2", {"interaction": 4})
