"""The checker shipped to users passes on what is equivariant and FAILS on what is not."""

import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Plane, ScaleSpace
from secli.equivariance.testing import assert_scale_equivariant, scale_equivariance_error
from secli.layers.gaussian import ScaleSpaceLift


def test_the_identity_and_the_gaussian_lift_pass(digits: Tensor) -> None:
    assert_scale_equivariant(nn.Identity(), digits, tolerance=0.0)
    field = ScaleSpace((1, 2, 4, 8), base_blur=0.5)
    assert_scale_equivariant(
        ScaleSpaceLift(base=2.0, z=0.5, levels=4), digits, field=field, factors=[0.5, 0.25], tolerance=0.01
    )


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (lambda x: x.roll(3, -1), Plane()),
        (lambda x: x.flip(-1), Plane(stride=1, origin=2.0)),
        (lambda x: x[..., ::4, ::4], Plane(stride=4)),
        (ScaleSpaceLift(base=2.0, z=0.5, levels=4), ScaleSpace((1, 2, 4, 8), base_blur=0.0)),
        (lambda x: ScaleSpaceLift(base=2.0, z=0.5, levels=4)(x).flip(2), ScaleSpace((1, 2, 4, 8), base_blur=0.5)),
    ],
)  # fmt: skip
def test_broken_functions_and_wrong_fields_fail(digits: Tensor, broken, field) -> None:  # type: ignore[no-untyped-def]
    images = nn.functional.interpolate(digits, scale_factor=2, mode="bicubic")
    with pytest.raises(AssertionError, match=r"not scale-equivariant within 0\.0005: at s = 0\.5 Δ = "):
        assert_scale_equivariant(broken, images, field=field, factors=[0.5], tolerance=0.0005)


def test_the_error_is_per_image_and_of_the_stated_formula(digits: Tensor) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 3, 3, padding=1, bias=False)
    errors = scale_equivariance_error(layer, digits, 0.6)
    assert errors.shape == (40,)
    assert errors.dtype == torch.float64
    one = scale_equivariance_error(layer, digits[7:8], 0.6)
    assert float(one[0]) == pytest.approx(float(errors[7]), rel=1e-4)


def test_a_module_is_left_in_its_own_mode(digits: Tensor) -> None:
    layer = nn.Sequential(nn.Dropout(0.5)).train()
    assert float(scale_equivariance_error(layer, digits, 0.5).max()) == 0.0
    assert layer.training
    assert layer[0].training


def test_nothing_to_measure_is_an_error_that_says_why(digits: Tensor) -> None:
    with pytest.raises(ValueError, match="nothing can be measured: dead tap"):
        scale_equivariance_error(lambda x: x * 0, digits, 0.5)
    with pytest.raises(ValueError, match="fewer than 4"):
        assert_scale_equivariant(nn.AvgPool2d(7), digits, field=Plane(stride=7))
    with pytest.raises(ValueError, match="greater than 0, not 0"):
        assert_scale_equivariant(nn.Identity(), digits, factors=[0.0])
