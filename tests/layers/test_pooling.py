from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from secli.layers.pooling import BatchNorm, ScalePool, SpatialPool, scale_pool


def test_scale_pool_takes_the_maximum_or_the_mean() -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 2, 2)
    assert torch.equal(scale_pool(x), x[:, :, 2])
    assert torch.equal(ScalePool("mean")(x), x[:, :, 1])


@given(
    levels=st.integers(1, 3),
    side=st.integers(4, 9),
    kernel=st.integers(1, 4),
    padded=st.booleans(),
    how=st.sampled_from(["max", "mean"]),
)
def test_every_level_is_pooled_alone(levels: int, side: int, kernel: int, padded: bool, how: str) -> None:
    padding = kernel // 2 if padded else 0
    torch.manual_seed(0)
    x = torch.randn(2, 3, levels, side, side + 1)
    pool = SpatialPool(kernel, padding, "max" if how == "max" else "mean")
    plain = (
        nn.MaxPool2d(kernel, padding=padding)
        if how == "max"
        else nn.AvgPool2d(kernel, padding=padding, count_include_pad=False)
    )
    expected = torch.stack([plain(x[:, :, k]) for k in range(levels)], dim=2)
    torch.testing.assert_close(pool(x), expected)
    torch.testing.assert_close(pool(x[:, :, 0]), expected[:, :, 0])


def test_pooling_does_not_copy_a_scale_space() -> None:
    x = torch.zeros(2, 3, 4, 8, 8)
    assert x.flatten(1, -3).data_ptr() == x.data_ptr()
    assert SpatialPool(1)(x).shape == x.shape


def test_batch_norm_counts_levels_as_places() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 2, 5, 5) * 3 + 1
    y = BatchNorm(3)(x)
    torch.testing.assert_close(y, nn.BatchNorm3d(3)(x))
    torch.testing.assert_close(y.mean(dim=(0, 2, 3, 4)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(BatchNorm(3)(x[:, :, 0]), nn.BatchNorm2d(3)(x[:, :, 0]))


def test_batch_norm_refuses_vectors() -> None:
    with pytest.raises(ValueError, match="got 2 axes"):
        BatchNorm(3)(torch.zeros(4, 3))


def test_layers_say_what_they_are() -> None:
    assert "mean" in repr(ScalePool("mean"))
    assert "kernel=2" in repr(SpatialPool(2))
