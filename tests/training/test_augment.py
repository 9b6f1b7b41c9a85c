"""The scale augmentation is Pillow's bicubic affine transform, about the centre that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from secli.config import Centre
from secli.datasets import published_rescaling as rescaling
from secli.training.augment import draw_scale_factors, rescale_bicubic

FACTORS = (0.5, 0.73, 1.0, 1.3, 1.99)


def by_pillow(image: np.ndarray, factor: float, about: tuple[float, float]) -> np.ndarray:
    """Rescale a float picture about a point (row, column) of Pillow's corner coordinates."""
    height, width = image.shape
    inverse, (y, x) = 1 / factor, about
    coefficients = (inverse, 0.0, x - inverse * x, 0.0, inverse, y - inverse * y)
    picture = Image.fromarray(image.astype(np.float32))
    moved = picture.transform((width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return np.asarray(moved).clip(0, 1)


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("centre", "beyond"), [("pixel", 0.5), ("corner", 0.0)])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (9, 9), (8, 11)])
def test_it_is_pillows_bicubic_transform_about_the_centre_asked_for(
    height: int, width: int, centre: Centre, beyond: float, dtype: torch.dtype
) -> None:
    images = noise(len(FACTORS), 2, height, width, dtype=dtype)
    moved = rescale_bicubic(images, torch.tensor(FACTORS), centre)
    assert moved.dtype == dtype
    for picture, factor, got in zip(images, FACTORS, moved, strict=True):
        for channel, result in zip(picture.numpy(), got.numpy(), strict=True):
            expected = by_pillow(channel, factor, (height / 2 + beyond, width / 2 + beyond))
            np.testing.assert_allclose(result, expected, atol=2e-5)


def test_by_default_it_is_the_data_sets_own_recipe_but_for_the_steps_of_eight_bits() -> None:
    images = (noise(len(FACTORS), 28, 28) * 255).to(torch.uint8)
    published = rescaling.rescale_as_published(images.numpy(), np.array(FACTORS)) / 255
    moved = rescale_bicubic(images.unsqueeze(1) / 255, torch.tensor(FACTORS)).squeeze(1)
    np.testing.assert_allclose(moved.numpy(), published, atol=1.001 / 255)


def test_the_centres_shift_a_picture_by_half_a_pixel_times_one_minus_the_factor() -> None:
    bump = torch.exp(-((torch.arange(29.0) - 14) ** 2) / 18)
    blob = torch.outer(bump, bump)[None, None]
    for factor in (0.6, 1.5):
        shift = 0.0
        for centre, sign in (("pixel", 1), ("corner", -1)):
            moved = rescale_bicubic(blob, torch.tensor([factor]), centre)  # type: ignore[arg-type]
            shift += sign * float((moved.sum(dim=2) * torch.arange(29.0)).sum() / moved.sum())
        assert shift == pytest.approx((1 - factor) / 2, abs=0.03)


def test_factor_one_changes_nothing() -> None:
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(rescale_bicubic(images, torch.ones(2)), images)


def test_shrinking_leaves_a_black_frame_and_no_value_leaves_the_range() -> None:
    moved = rescale_bicubic(torch.ones(1, 1, 28, 28), torch.tensor([0.5]))
    assert float(moved[..., :6, :].abs().max()) == 0
    assert float(moved[..., 10:18, 10:18].min()) == pytest.approx(1)
    edge = torch.cat([torch.zeros(1, 1, 28, 14), torch.ones(1, 1, 28, 14)], dim=3)
    sharpened = rescale_bicubic(edge, torch.tensor([1.7]))
    assert float(by_pillow(edge[0, 0].numpy() / 2, 1.7, (14.5, 14.5)).max()) > 0.505  # it does overshoot
    assert float(sharpened.min()) == 0
    assert float(sharpened.max()) == 1


@given(st.integers(0, 2**32 - 1))
def test_factors_are_uniform_between_a_half_and_two(seed: int) -> None:
    factors = draw_scale_factors(4000, torch.Generator().manual_seed(seed))
    assert 0.5 <= float(factors.min()) < 0.51
    assert 1.99 < float(factors.max()) <= 2
    assert float(factors.mean()) == pytest.approx(1.25, abs=0.05)
