"""Discrete scale convolutions in both bodies: published shapes and poolings, true places, what the bases win."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from secli.action.fields import Canvas, Plane, ScaleSpace
from secli.action.images import rescale
from secli.catalogue import MODELS
from secli.errors import InputError
from secli.layers.disco import disco_basis
from secli.layers.hermite import Basis, basis_b
from secli.layers.pooling import BatchNorm, SpatialPool
from secli.layers.ses import SESConv, SESLift, SESPointwise
from secli.models.building import build, count_parameters, resolve_options
from secli.models.contract import StagedModel
from secli.models.disco import disco_pool
from secli.models.grid import Grid
from secli.models.wide_resnet import WideBlock

SCALES = (1.0, 1.26, 1.59, 2.0)
NARROW = {"widths": [3, 4, 6, 8], "in_channels": 1, "mean": 0.4, "std": 0.3}


@cache
def published(name: str) -> StagedModel:
    return build(name).eval()


def features(model: StagedModel, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        found = model.features(images)
    return {tap: tensor for tap, tensor in found.items() if isinstance(tensor, Tensor)}


# MNIST


@pytest.mark.parametrize(("name", "mult"), [("mnist_disco_56", 1.5), ("mnist_disco_56p", 1.9)])
def test_the_published_networks(name: str, mult: float) -> None:
    options = resolve_options(MODELS[name])
    assert (options["size"], options["effective_size"], options["sigma"]) == (15, 7, 1.9)
    assert (options["scales"], options["mult"], options["max_order"]) == (SCALES, mult, 4)
    assert (options["upsampling"], options["upsample"], options["interaction"]) == (2, "nearest", 1)
    model = published(name)
    assert count_parameters(model) == MODELS[name].parameters == 494_549
    expected = disco_basis(15, SCALES, 7, 1.9, "B", mult)
    flat = np.concatenate([f.reshape(49, -1) for f in expected.functions], axis=1)
    layers = [m for m in model.modules() if isinstance(m, (SESLift, SESConv))]
    assert [type(layer) for layer in layers] == [SESLift, SESConv, SESConv]
    for layer in layers:
        np.testing.assert_allclose(layer.basis, flat, rtol=1e-6, atol=1e-7)
        assert layer.bias is not None


def test_taps_have_the_published_shapes() -> None:
    model = published("mnist_disco_56")
    shapes = {tap: list(tensor.shape) for tap, tensor in features(model, torch.rand(2, 1, 28, 28)).items()}
    assert shapes == {
        "conv1": [2, 32, 4, 56, 56],
        "block1": [2, 32, 4, 28, 28],
        "block2": [2, 63, 4, 14, 14],
        "conv3": [2, 95, 14, 14],
        "block3": [2, 95, 2, 2],
        "logits": [2, 10],
    }
    for tap, stride in (("conv1", 0.5), ("block1", 1.0), ("block2", 2.0)):
        assert model.taps[tap] == ScaleSpace(SCALES, stride=stride)
    assert model.taps["conv3"] == Plane(stride=2.0)
    assert model.taps["block3"] == Plane(stride=8.0, origin=7.5)


def test_the_network_is_its_description_step_by_step() -> None:
    model = published("mnist_disco_56")
    found = features(model, torch.rand(3, 1, 28, 28))

    def norm(stage: str) -> BatchNorm:
        module = model.get_submodule(f"{stage}.norm")
        assert isinstance(module, BatchNorm)
        return module

    with torch.no_grad():
        averaged = functional.avg_pool3d(found["conv1"].relu(), (1, 2, 2))
        torch.testing.assert_close(found["block1"], norm("block1")(averaged))
        third = model.get_submodule("conv3.conv.ses")(found["block2"])
        assert third.shape == (3, 95, 4, 14, 14)
        largest = third.amax(2).relu()
        torch.testing.assert_close(found["conv3"], largest)
        pooled = functional.avg_pool2d(functional.max_pool2d(largest, 7, 1), 2, 4)
        torch.testing.assert_close(found["block3"], norm("block3")(pooled))


@given(size=st.integers(6, 80))
@settings(max_examples=40)
def test_the_last_pooling_leaves_two_by_two_where_its_grid_says(size: int) -> None:
    """A ramp and its negative, pooled: half their difference is the place of each window's middle."""
    module, grid = disco_pool(Grid.of_image(size), True)
    ramp = torch.arange(size, dtype=torch.float64).expand(1, 1, size, size)
    places = (module(ramp) - module(-ramp))[0, 0, 0] / 2
    assert places.shape == (2,) == (grid.size,)
    assert places.tolist() == [grid.first, grid.first + grid.stride]
    # every window lies on the map, and no two see the same
    assert places[0] >= 0
    assert places[1] <= size - 1


@given(size=st.integers(2, 40))
def test_the_other_poolings_are_averages_where_their_grid_says(size: int) -> None:
    module, grid = disco_pool(Grid.of_image(size), False)
    ramp = torch.arange(size, dtype=torch.float64).expand(1, 1, 3, size, size)
    assert module(ramp)[0, 0, 0, 0].tolist() == [grid.first + grid.stride * cell for cell in range(grid.size)]


def test_the_published_last_pooling() -> None:
    module, grid = disco_pool(Grid.of_image(14), True)
    assert isinstance(module, nn.Sequential)
    largest, average = module
    assert isinstance(largest, nn.MaxPool2d)
    assert isinstance(average, nn.AvgPool2d)
    assert (largest.kernel_size, largest.stride) == (7, 1)
    assert (average.kernel_size, average.stride) == (2, 4)
    assert grid == Grid(14, 2, 4.0, 3.5)


@pytest.mark.parametrize("size", [24, 33])
def test_other_image_sizes_keep_the_parameters(size: int) -> None:
    model = build("mnist_disco_56", {"image_size": size, "upsampling": 1}).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 1, size, size)).shape == (1, 10)
    assert count_parameters(model) == 494_549


def test_interaction_truncates_the_top() -> None:
    model = build("mnist_disco_56", {"interaction": 2})
    fields = [model.taps[tap] for tap in ("conv1", "block1", "block2")]
    assert [field.truncated for field in fields if isinstance(field, ScaleSpace)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist_disco_56", {"size": 14}, "the kernel size must be odd and positive, not 14"),
        ("mnist_disco_56", {"size": 11}, "7 taps at scale 2 do not fit in a kernel of size 11"),
        ("mnist_disco_56", {"effective_size": 6}, "the effective size must be odd and positive, not 6"),
        ("mnist_disco_56", {"scales": [1.2, 2]}, "the scales must increase from 1, not (1.2, 2.0)"),
        ("mnist_disco_56", {"interaction": 5}, "interaction must be 1 to 4 (the levels), not 5"),
        ("wrn_16_8_disco", {"size": 3}, "3 taps at scale 2 do not fit in a kernel of size 3"),
        ("wrn_16_8_disco", {"sigma": 0}, "sigma = 0: input should be greater than 0"),
    ],
)
def test_bad_options_are_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# what it is for


def digits() -> Tensor:
    """Handwritten digits, enlarged smoothly onto the 28×28 canvas of MNIST."""
    raw = torch.from_numpy(load_digits().images[:10] / 16)[:, None].float()
    large = functional.interpolate(raw, scale_factor=2.5, mode="bicubic", align_corners=False).clamp(0, 1)
    return functional.pad(large, (4, 4, 4, 4))


def errors(model: StagedModel, factor: float) -> dict[str, float]:
    """Δ_s at the taps that keep their levels, background subtracted."""
    images = digits()
    background = features(model, torch.zeros(1, 1, 28, 28))
    before, after = features(model, images), features(model, rescale(images, factor))
    found = {}
    for tap in ("conv1", "block1", "block2"):
        field = model.taps[tap]
        acted = field.act(before[tap] - background[tap], factor, Canvas(28, 28))
        (moved,), (mask,) = acted.features, acted.masks
        known = torch.ones_like(moved) if mask is None else mask.expand_as(moved)
        away = (moved - after[tap] + background[tap]) * known
        found[tap] = float(((away**2).flatten(1).sum(1) / ((moved * known) ** 2).flatten(1).sum(1)).mean())
    return found


def hermite_twin() -> StagedModel:
    """The same network with the same weights on the Hermite basis of the same sizes and ratios."""
    twin = build("mnist_disco_56").eval()
    hermite: Basis = basis_b(15, [1.9 * scale for scale in SCALES], 7, 1.5)
    for layer in twin.modules():
        if isinstance(layer, (SESLift, SESConv)):
            layer.sides = hermite.sides
            flat = [torch.from_numpy(f).flatten(1) for f in hermite.functions]
            layer.basis = torch.cat(flat, dim=1).to(layer.weight)
    return twin


@pytest.mark.parametrize("factor", [0.5, 1 / 1.59, 1 / 1.26])
def test_the_bases_bring_every_level_closer_to_its_promise(factor: float) -> None:
    """Same weights, same poolings; only the bases differ. Enlarging by equal cells is what is left at conv1."""
    ours, theirs = errors(published("mnist_disco_56"), factor), errors(hermite_twin(), factor)
    for tap, value in ours.items():
        assert value < 0.75 * theirs[tap], f"{tap}: {value} and {theirs[tap]}"


# STL-10


def test_the_wide_network_has_the_published_parameters() -> None:
    with torch.device("meta"):
        model = build("wrn_16_8_disco")
    assert count_parameters(model) == MODELS["wrn_16_8_disco"].parameters == 10_961_370
    basis = disco_basis(5, (1.0, 1.41, 2.0), 3, 0.9, "A")
    layers = [m for m in model.modules() if isinstance(m, (SESLift, SESConv))]
    assert len(layers) == 13
    assert {(layer.sides, layer.padding, layer.stride) for layer in layers} == {(basis.sides, 2, 1)}


def test_its_weights_are_those_of_the_steerable_network_that_lifts_again() -> None:
    ours = build("wrn_16_8_disco", NARROW | {"image_size": 32})
    theirs = build("wrn_16_8_ses_b", NARROW | {"image_size": 32})
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


@pytest.mark.parametrize("size", [32, 37])
def test_strides_are_maxima_behind_convolution_and_shortcut(size: int) -> None:
    model = build("wrn_16_8_disco", NARROW | {"image_size": size}).eval()
    found = features(model, torch.rand(2, 1, size, size))
    sides = (size, size, size // 2, size // 2 // 2)
    for tap, width, side in zip(("stem", "group1", "group2", "group3"), (3, 4, 6, 8), sides, strict=True):
        assert found[tap].shape == (2, width, 3, side, side)
    field = model.taps["group3"]
    assert field == Grid.of_image(size).pooled(2).pooled(2).scale_space((1.0, 1.41, 2.0))
    block = model.get_submodule("group3.block1")
    assert isinstance(block, WideBlock)
    with torch.no_grad():
        levels = found["group2"]
        active = block.relu1(block.norm1(levels))
        lift, one = block.conv1.get_submodule("lift"), block.get_submodule("shortcut.conv")
        assert isinstance(lift, SESLift)
        assert isinstance(one, SESPointwise)
        first = functional.max_pool3d(lift(active.amax(2)), (1, 2, 2))
        y = block.conv2(block.relu2(block.norm2(first)))
        # the 1×1 of every level
        shortcut = functional.max_pool3d(functional.conv3d(active, one.weight.unsqueeze(2)), (1, 2, 2))
        torch.testing.assert_close(block(levels), y + shortcut)


def test_only_the_groups_of_stride_two_pool() -> None:
    model = build("wrn_16_8_disco", NARROW | {"image_size": 32})
    pools = [name for name, module in model.named_modules() if isinstance(module, SpatialPool)]
    assert pools == [f"group{g}.block1.{part}.pool" for g in (2, 3) for part in ("conv1", "shortcut")]
