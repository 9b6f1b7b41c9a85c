"""The rotation network turns with its pictures; the plain one, and a group index that runs backwards, do not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Invariant, Plane
from secli.errors import InputError
from secli.layers.rotation import RotationConv, RotationLift
from secli.models.building import build, count_parameters
from secli.models.contract import StagedModel


def quarter_turn_errors(model: StagedModel, pictures: Tensor, rotations: int = 8) -> dict[str, float]:
    """Return ‖Φ(turned f) − turned Φ(f)‖/‖turned Φ(f)‖ at every tap, for a quarter turn counterclockwise.

    Planes (N, C, H, W) turn, planes with an axis of rotations (N, C, R, H, W) also shift by R/4, logits stay.
    """
    errors = {}
    with torch.no_grad():
        before, behind = model.features(pictures), model.features(torch.rot90(pictures, 1, (-2, -1)))
    for tap, field in model.taps.items():
        expected, found = before[tap], behind[tap]
        assert isinstance(expected, Tensor)
        assert isinstance(found, Tensor)
        if isinstance(field, Plane):
            expected = torch.rot90(expected, 1, (-2, -1))
            if expected.ndim == 5:
                expected = expected.roll(rotations // 4, 2)
        errors[tap] = float((found - expected).norm() / expected.norm())
    return errors


def settled(model: StagedModel, pictures: Tensor) -> StagedModel:
    """Let the batch norms learn the pictures' statistics, and give every bias and gain a value of its own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        for _ in range(20):
            model.train()(pictures)
    return model.eval()


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"plane_pool": "max"},
        {"rotations": 4},
        {"rotations": 12, "widths": (2, 3, 5, 8)},
        {"size": 3},
        {"size": 7, "widths": (2, 3, 5, 8)},
    ],
)
def test_a_quarter_turn_is_exact_at_every_tap_and_leaves_the_logits(
    pictures: Tensor, options: dict[str, Any]
) -> None:
    model = settled(build("so2_cnn", {"cells": 1, **options}), pictures)
    errors = quarter_turn_errors(model, pictures, options.get("rotations", 8))
    assert list(errors) == ["block1", "block2", "block3", "block4", "pool", "logits"]
    assert max(errors.values()) < 1e-5, errors


def test_the_plain_network_does_not_turn(pictures: Tensor) -> None:
    errors = quarter_turn_errors(settled(build("cnn"), pictures), pictures)
    assert min(errors[f"block{i}"] for i in (1, 2, 3, 4)) > 0.1, errors
    assert errors["logits"] > 1e-2, errors


def test_a_group_index_that_runs_backwards_does_not_turn(
    pictures: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backwards(layer: RotationConv) -> Tensor:
        index = torch.arange(layer.rotations)
        pairs = layer.steered()
        return torch.stack(
            [pairs[:, :, (index + r) % layer.rotations, r] for r in range(layer.rotations)], dim=1
        )

    monkeypatch.setattr(RotationConv, "kernels", backwards)
    errors = quarter_turn_errors(settled(build("so2_cnn", {"cells": 1}), pictures), pictures)
    assert errors["block1"] < 1e-5
    assert errors["block2"] > 0.1
    assert errors["logits"] > 1e-3, errors


def test_more_cells_before_the_classifier_make_the_logits_see_where(pictures: Tensor) -> None:
    model = settled(build("so2_cnn"), pictures)
    errors = quarter_turn_errors(model, pictures)
    assert errors["pool"] < 1e-5
    assert errors["logits"] > 1e-3


def bars(theta: float, side: int = 33) -> Tensor:
    """A smooth cross with arms of unequal length and strength, turned by θ without resampling."""
    grid = torch.arange(side) - (side - 1) / 2
    x, y = grid.view(1, -1), -grid.view(-1, 1)
    x, y = math.cos(theta) * x + math.sin(theta) * y, math.cos(theta) * y - math.sin(theta) * x
    one = torch.exp(-(((x - 2) / 6) ** 2) - (y / 2) ** 2)
    other = torch.exp(-((x / 2) ** 2) - ((y - 3) / 4) ** 2)
    return (0.8 * one + 0.5 * other).clamp(max=1).view(1, 1, side, side)


def test_an_eighth_turn_nearly_leaves_the_logits(pictures: Tensor) -> None:
    """The size of the change beside the network's answer to the picture, in excess of that to black."""

    def change(name: str) -> float:
        found = []
        for seed in range(3):
            options = {"cells": 1} if name == "so2_cnn" else {}
            model = settled(build(name, options, seed=seed), pictures)
            with torch.no_grad():
                straight, turned = model(bars(0.0)), model(bars(math.pi / 4))
                black = model(torch.zeros(1, 1, 33, 33))
            found.append(float((turned - straight).norm() / (straight - black).norm()))
        return sum(found) / len(found)

    ours, plain = change("so2_cnn"), change("cnn")
    assert ours < 0.1
    assert plain > 4 * ours


def test_shape_of_the_network() -> None:
    model = build("so2_cnn")
    assert count_parameters(model) == 34_479  # cnn: 34 670
    convs = [module for module in model.modules() if isinstance(module, (RotationLift, RotationConv))]
    assert [conv.weight.shape[0] for conv in convs] == [3, 6, 10, 20]
    assert [conv.bias is not None for conv in convs] == [False, True, False, True]
    assert [type(field) for field in model.taps.values()] == [Plane] * 5 + [Invariant]
    wide = build("so2_cnn", {"widths": (6, 12, 22, 36), "rotations": 4, "size": 3})
    assert [m.weight.shape[0] for m in wide.modules() if isinstance(m, RotationConv)] == [12, 22, 36]
    features = model.eval().features(torch.rand(2, 1, 20, 31))
    assert [tuple(torch.as_tensor(f).shape) for f in features.values()] == [
        (2, 3, 8, 20, 31),
        (2, 6, 8, 20, 31),
        (2, 10, 8, 20, 31),
        (2, 20, 8, 20, 31),
        (2, 20, 20, 31),
        (2, 10),
    ]


def test_batch_norm_shares_its_statistics_over_rotations() -> None:
    norms = [module for module in build("so2_cnn").modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [3, 6, 10, 20]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "model so2_cnn: the kernel size must be odd and positive, not 4"),
        ({"rotations": 0}, "rotations = 0: input should be greater than or equal to 1"),
        ({"widths": (1, 2, 3, 0)}, "input should be greater than or equal to 1"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build("so2_cnn", options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
