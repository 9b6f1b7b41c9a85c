from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secli.datasets.stl10 import (
    CUTOUT,
    MEAN,
    PADDING,
    STD,
    Draws,
    augment,
    crop,
    cutout,
    draw,
    flip,
    pad,
    stages,
)


def pictures(count: int = 3, side: int = 96) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fill", ["black", "mean"])
def test_padding(fill: Literal["black", "mean"]) -> None:
    images = pictures()
    padded = pad(images, fill)
    assert padded.shape == (3, 3, 120, 120)
    torch.testing.assert_close(padded[:, :, 12:-12, 12:-12], images, rtol=0, atol=0)
    frame = torch.ones(120, 120, dtype=torch.bool)
    frame[12:-12, 12:-12] = False
    expected = torch.tensor(MEAN if fill == "mean" else (0.0, 0.0, 0.0))
    assert (padded[:, :, frame] == expected[None, :, None]).all()
    if fill == "mean":
        # "zeros after normalisation"
        normalised = (padded - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
        assert normalised[:, :, frame].abs().max() == 0


@given(seed=st.integers(0, 10_000), fill=st.sampled_from(["black", "mean"]))
def test_equals_a_literal_loop(seed: int, fill: Literal["black", "mean"]) -> None:
    images = pictures(4, 48)
    generator = torch.Generator().manual_seed(seed)
    draws = draw(4, (48, 48), generator)
    result = stages(images, draws, fill)["cut out"]
    for n in range(4):
        top, left = draws.offsets[n].tolist()
        row, column = draws.centres[n].tolist()
        for y in range(0, 48, 5):
            for x in range(0, 48, 5):
                source_x = 47 - x if draws.flips[n] else x
                py, px = y + top - PADDING, source_x + left - PADDING
                inside = 0 <= py < 48 and 0 <= px < 48
                outside = torch.tensor(MEAN) if fill == "mean" else torch.zeros(3)
                expected = images[n, :, py, px] if inside else outside
                if row - 16 <= y < row + 16 and column - 16 <= x < column + 16:
                    expected = torch.tensor(MEAN)
                assert torch.equal(result[n, :, y, x], expected), (n, y, x)


def test_draws_cover_their_range() -> None:
    draws = draw(20_000, (96, 96), torch.Generator().manual_seed(1))
    assert (draws.offsets.min().item(), draws.offsets.max().item()) == (0, 24)
    assert (draws.centres.min().item(), draws.centres.max().item()) == (0, 95)
    assert abs(draws.flips.float().mean() - 0.5) < 0.02
    assert torch.unique(draws.offsets[:, 0] * 25 + draws.offsets[:, 1]).numel() == 625


def test_identity_draws_only_cut_out() -> None:
    images = pictures()
    centre = torch.tensor([[PADDING, PADDING]] * 3)
    assert torch.equal(crop(pad(images), centre), images)
    assert torch.equal(flip(images, torch.tensor([False] * 3)), images)
    assert torch.equal(flip(flip(images, torch.tensor([True] * 3)), torch.tensor([True] * 3)), images)
    whole = cutout(images, torch.tensor([[48, 48], [0, 0], [95, 95]]))
    changed = (whole != images).any(dim=1).sum(dim=(1, 2)).tolist()
    assert changed == [CUTOUT * CUTOUT, (CUTOUT // 2) ** 2, (CUTOUT // 2 + 1) ** 2]


def test_the_same_seed_gives_the_same_pictures() -> None:
    images = pictures()
    one, two = (augment(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, augment(images, torch.Generator().manual_seed(6)))
    assert one.shape == images.shape
    draws = Draws(
        torch.zeros(3, 2, dtype=torch.int64), torch.tensor([True] * 3), torch.zeros(3, 2, dtype=torch.int64)
    )
    assert list(stages(images, draws)) == ["original", "padded", "cropped", "flipped", "cut out"]
