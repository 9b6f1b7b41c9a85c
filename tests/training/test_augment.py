"""The scale augmentation agrees with a literal transcription of bicubic resampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secli.training.augment import draw_factors, rescale


def keys(distance: float, a: float = -0.75) -> float:
    """Keys' cubic convolution kernel."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    if d < 2:
        return a * (d**3 - 5 * d**2 + 8 * d - 4)
    return 0.0


def literal(image: np.ndarray, factor: float) -> np.ndarray:
    """Read the picture at (x − c)/s + c for every output pixel x, sixteen neighbours, zeros outside."""
    height, width = image.shape
    moved = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            y = (row - (height - 1) / 2) / factor + (height - 1) / 2
            x = (column - (width - 1) / 2) / factor + (width - 1) / 2
            total = 0.0
            for i in range(math.floor(y) - 1, math.floor(y) + 3):
                for j in range(math.floor(x) - 1, math.floor(x) + 3):
                    if 0 <= i < height and 0 <= j < width:
                        total += image[i, j] * keys(y - i) * keys(x - j)
            moved[row, column] = min(max(total, 0.0), 1.0)
    return moved


@pytest.mark.parametrize(("height", "width"), [(9, 9), (8, 11)])
def test_it_is_bicubic_about_the_image_centre_with_zeros_outside(height: int, width: int) -> None:
    images = torch.rand(3, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factors = torch.tensor([0.5, 1.3, 2.0], dtype=torch.float64)
    moved = rescale(images, factors)
    for picture, factor, got in zip(images, factors, moved, strict=True):
        for channel, result in zip(picture.numpy(), got.numpy(), strict=True):
            np.testing.assert_allclose(result, literal(channel, float(factor)), atol=1e-9)


def test_factor_one_changes_nothing() -> None:
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(rescale(images, torch.ones(2)), images, atol=1e-5, rtol=0)


def test_shrinking_leaves_a_black_frame_and_no_value_leaves_the_range() -> None:
    moved = rescale(torch.ones(1, 1, 28, 28), torch.tensor([0.5]))
    assert float(moved[..., :6, :].abs().max()) == 0
    assert float(moved[..., 10:18, 10:18].min()) == pytest.approx(1)
    edge = torch.cat([torch.zeros(1, 1, 28, 14), torch.ones(1, 1, 28, 14)], dim=3)
    overshooting = torch.nn.functional.interpolate(edge, scale_factor=1.7, mode="bicubic")
    assert float(overshooting.max()) > 1.01
    sharpened = rescale(edge, torch.tensor([1.7]))
    assert float(sharpened.min()) == 0
    assert float(sharpened.max()) == 1


@given(st.integers(0, 2**32 - 1))
def test_factors_are_uniform_between_a_half_and_two(seed: int) -> None:
    factors = draw_factors(4000, torch.Generator().manual_seed(seed))
    assert 0.5 <= float(factors.min()) < 0.51
    assert 1.99 < float(factors.max()) <= 2
    assert float(factors.mean()) == pytest.approx(1.25, abs=0.05)
