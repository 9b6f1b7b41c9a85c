"""Deformable deep scale spaces, untrained, beside those whose taps stay where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

import secli
from secli.errors import InputError
from secli.layers.deform_dss import DeformableDSSConv
from secli.models.building import build, count_parameters
from secli.models.contract import StagedModel

FACTORS = (0.8, 1 / 1.5, 0.5)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """Ten digits of scikit-learn, 20 pixels high on a canvas of 28."""
    pictures = []
    for digit in load_digits().images[:10]:
        small = Image.fromarray((digit * 255 / 16).astype(np.uint8))
        pictures.append(np.pad(np.asarray(small.resize((20, 20), Image.Resampling.BICUBIC)), 4))
    return torch.from_numpy(np.stack(pictures)).unsqueeze(1).float() / 255


def errors(model: StagedModel, pictures: Tensor, *taps: str) -> dict[str, list[float]]:
    """Return Δ of each tap at each factor."""
    frame = secli.measure(model.eval(), pictures, factors=FACTORS, taps=taps, border=0)
    return {
        tap: [
            float(frame[(frame["tap"] == tap) & np.isclose(frame["factor"], factor)]["mean"].iloc[0])
            for factor in FACTORS
        ]
        for tap in taps
    }


def moved(model: StagedModel, pictures: Tensor, seed: int, pixels: float = 1.0) -> StagedModel:
    """Give the branches normal weights, scaled until taps move by ``pixels`` cells in the mean over all levels."""
    generator = torch.Generator().manual_seed(seed)
    current: Any = pictures
    with torch.no_grad():
        for _, module in model.eval().stages:
            if isinstance(module, DeformableDSSConv):
                weight = module.offset.weight
                weight.copy_(torch.randn(weight.shape, generator=generator))
                offsets = module.offset(current)
                if module.offsets == "scaled":
                    offsets = offsets * torch.tensor(module.dilations).view(-1, 1, 1)
                weight.mul_(pixels / offsets.square().mean().sqrt())
            current = module(current)
    return model


@pytest.mark.parametrize("options", [{}, {"base": 1.5, "dilation": "exact", "interaction": 2}])
def test_at_the_start_it_is_dss_v1(options: dict[str, Any], digits: Tensor) -> None:
    """The branches draw no random number: the same seed gives the same weights."""
    plain = build("dss_v1", options).eval()
    for offsets in ("absolute", "scaled"):
        moving = build("deform_dss", {**options, "offsets": offsets}).eval()
        weights = {key: value for key, value in moving.state_dict().items() if "offset" not in key}
        assert all(torch.equal(value, weights[key]) for key, value in plain.state_dict().items())
        torch.testing.assert_close(moving(digits), plain(digits), rtol=1e-4, atol=1e-5)
        assert moving.taps == plain.taps


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_exact_dilation_is_nearer_to_equivariance(seed: int, digits: Tensor) -> None:
    """Δ of the first convolution at base 1.5: exact below floor at every factor. Rounding is no remedy."""
    options = {"base": 1.5}
    found = {
        how: errors(build("dss_v1", {**options, "dilation": how}, seed), digits, "conv1")["conv1"]
        for how in ("exact", "floor", "round")
    }
    for exact, floor, rounded in zip(found["exact"], found["floor"], found["round"], strict=True):
        assert exact < 0.6 * floor
        assert floor < rounded


@pytest.mark.parametrize(("base", "dilation"), [(1.5, "exact"), (2.0, "floor")])
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_scaled_offsets_are_nearer_to_equivariance(
    seed: int, base: float, dilation: str, digits: Tensor
) -> None:
    """Δ where taps move by one cell in the mean: below that of absolute offsets, at both convolutions."""
    found = {}
    for offsets in ("scaled", "absolute"):
        model = build("deform_dss", {"base": base, "dilation": dilation, "offsets": offsets}, seed)
        found[offsets] = errors(moved(model, digits, 100 + seed), digits, "conv1", "conv2")
    for tap, margin in (("conv1", 0.6), ("conv2", 0.85)):
        for scaled, absolute in zip(found["scaled"][tap], found["absolute"][tap], strict=True):
            assert scaled < margin * absolute


@pytest.mark.parametrize(("channels", "groups"), [(16, 1), (16, 2), (20, 10)])
def test_parameters(channels: int, groups: int) -> None:
    plain = count_parameters(build("dss_v1", {"channels": channels}))
    branches = 18 * (9 + 1) + 18 * groups * (9 * channels + 1)
    options = {"channels": channels, "deformable_groups": groups}
    assert count_parameters(build("deform_dss", options)) == plain + branches


def test_options_reach_the_layers() -> None:
    options = {"base": 1.5, "levels": 5, "interaction": 2, "drop_top": True, "offsets": "scaled"}
    model = build("deform_dss", {**options, "dilation": "round", "deformable_groups": 4})
    first, second = (module for module in model.modules() if isinstance(module, DeformableDSSConv))
    assert (first.groups, second.groups) == (1, 4)
    assert (first.out_levels, second.out_levels) == (4, 3)
    assert list(first.dilations) == [1, 2, 2, 3]
    assert first.offset.dilations == first.dilations
    assert (first.offsets, second.offsets) == ("scaled", "scaled")


def test_contradicting_options_are_refused() -> None:
    with pytest.raises(InputError, match="deformable groups 3 do not divide the 16 input channels"):
        build("deform_dss", {"deformable_groups": 3})
    with pytest.raises(InputError, match="interaction 3 and drop_top leave no level of 4"):
        build("deform_dss", {"interaction": 3, "drop_top": True})
