from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secli.action.fields import Plane, ScaleSpace
from secli.models.grid import Grid


def test_the_image_is_its_own_grid() -> None:
    assert Grid.of_image(28).plane() == Plane(stride=1.0, origin=None)


def test_even_poolings_stay_centred() -> None:
    grid = Grid.of_image(28).pooled(2)
    assert (grid.size, grid.stride, grid.first, grid.origin) == (14, 2, 0.5, None)
    assert grid.pooled(2).plane() == Plane(stride=4.0, origin=None)


def test_the_padded_last_pooling_is_off_centre() -> None:
    """Windows of 4 with padding 2 on 7×7: the first covers cells −2 … 1, its centre lies at −0.5 cells."""
    grid = Grid.of_image(28).pooled(2).pooled(2).pooled(4, padding=2)
    assert (grid.size, grid.stride, grid.origin) == (2, 16, -0.5)
    grid = Grid.of_image(28).upsampled(2).pooled(2).pooled(2).pooled(8, padding=2)
    assert (grid.size, grid.stride, grid.origin) == (2, 16, 3.5)


def test_upsampling_puts_cells_inside_pixels() -> None:
    grid = Grid.of_image(28).upsampled(2)
    assert (grid.size, grid.stride, grid.first, grid.origin) == (56, 0.5, -0.25, None)


def test_an_odd_plane_loses_its_last_row() -> None:
    grid = Grid.of_image(7).pooled(2)
    assert (grid.size, grid.first, grid.origin) == (3, 0.5, 0.5)


def test_a_window_larger_than_the_plane_is_refused() -> None:
    with pytest.raises(ValueError, match="a window of 8 cells does not fit on a feature map of 4"):
        Grid.of_image(4).pooled(8)


@given(size=st.integers(1, 40), factor=st.integers(1, 4))
def test_pooling_undoes_upsampling(size: int, factor: int) -> None:
    again = Grid.of_image(size).upsampled(factor).pooled(factor)
    assert again.size == size
    assert again.stride == pytest.approx(1)
    assert again.first == pytest.approx(0)


@given(size=st.integers(3, 40), half=st.integers(0, 1), factor=st.integers(1, 3))
def test_padded_convolutions_keep_the_grid(size: int, half: int, factor: int) -> None:
    grid = Grid.of_image(size).upsampled(factor)
    assert grid.windowed(2 * half + 1, 1, half) == grid


def test_a_scale_space_lies_on_the_same_grid() -> None:
    field = Grid.of_image(7).pooled(2).scale_space((1.0, 2.0), base_blur=0.5, truncated=1)
    assert field == ScaleSpace((1.0, 2.0), base_blur=0.5, stride=2.0, origin=0.5, truncated=1)
