"""What the newer networks of MNIST-scale promise, each at its own taps, on smooth strokes with a margin."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Canvas, Field, Plane, ScaleSpace
from secli.action.images import rescale
from secli.equivariance.error import compare
from secli.layers.differential_invariants import InvariantStep
from secli.layers.gaussian_derivative import GaussianDerivativeConv
from secli.models.building import build
from secli.models.contract import StagedModel
from tests.models.test_registry import strokes


def error(model: StagedModel, tap: str, factor: float, field: Field | None = None) -> float:
    """The error of a tap, features of the empty picture subtracted."""
    pictures = strokes(28, 1)
    with torch.no_grad():
        empty = model.features(torch.zeros_like(pictures[:1]))[tap]
        assert isinstance(empty, Tensor)

        def above(images: Tensor) -> Tensor:
            features = model.features(images)[tap]
            assert isinstance(features, Tensor)
            return features - empty

        acted = (field or model.taps[tap]).act(above(pictures), factor, Canvas(28, 28))
        norms = compare(acted, [above(rescale(pictures, factor))])
    return float((norms.difference / norms.expected).mean())


def normed_on(model: nn.Module, pictures: Tensor) -> None:
    """Give every batch norm the statistics of these pictures, as a first step of training would."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(pictures)
    model.eval()


@pytest.mark.parametrize("factor", [math.sqrt(0.5), 0.5])
def test_gaussian_derivatives_move_along_their_scale_channels(factor: float) -> None:
    model = build("mnist_gaussder_28").eval()
    field = model.taps["conv1"]
    assert isinstance(field, ScaleSpace)
    assert field.scales == pytest.approx([0.7 * 2 ** (k / 2) for k in range(4)])
    assert error(model, "conv1", factor) < 0.005
    assert error(model, "block1", factor) < 0.06
    # the control: the channels stand still
    assert error(model, "conv1", factor, Plane()) > 10 * error(model, "conv1", factor)


def test_scales_of_gaussian_derivatives_grow_with_the_layers() -> None:
    for name, upsampling in (("mnist_gaussder_28", 1), ("mnist_gaussder_56", 2)):
        model = build(name, {"ratio": 4.0})
        layers = [module for module in model.modules() if isinstance(module, GaussianDerivativeConv)]
        assert [layer.scales[0] for layer in layers] == pytest.approx([0.7, 1.4, 2.8])
        assert model.taps["block2"].lattice == pytest.approx([2 ** (-k / 2) for k in (1, 2, 3)])
        stride = model.taps["block1"].reads_as()
        assert f"stride {2 / upsampling:g}" in stride


def test_residual_layers_add_their_input() -> None:
    plain, residual = (build("mnist_gaussder_28", {"residual": given}).eval() for given in (False, True))
    residual.load_state_dict(plain.state_dict())
    images = torch.rand(1, 1, 28, 28)
    with torch.no_grad():
        here, there = plain.features(images), residual.features(images)
    assert torch.equal(torch.as_tensor(here["block1"]), torch.as_tensor(there["block1"]))
    assert not torch.allclose(torch.as_tensor(here["conv3"]), torch.as_tensor(there["conv3"]), atol=1e-3)
    layers = [module for module in residual.modules() if isinstance(module, GaussianDerivativeConv)]
    assert [layer.residual for layer in layers] == [False, True, True]


@pytest.mark.parametrize("factor", [0.8, 0.577, 0.5])
def test_riesz_transforms_need_no_lattice(factor: float) -> None:
    riesz, plain = build("mnist_riesz_28").eval(), build("mnist_cnn_28", {"mean": 0.0}).eval()
    assert all(isinstance(field, Plane) for field in list(riesz.taps.values())[:-1])
    assert error(riesz, "conv1", factor) < 0.1
    assert error(riesz, "block1", factor) < 0.15
    # the control: filters that have a scale
    assert error(plain, "conv1", factor) > 2 * error(riesz, "conv1", factor)


def test_the_differential_equation_has_the_published_parts() -> None:
    model = build("mnist_invarpdes_28")
    steps = [module for module in model.modules() if isinstance(module, InvariantStep)]
    assert len(steps) == 16
    assert [float(step.size.detach()) for step in steps] == [1 / 16] * 16
    assert sum(p.numel() for p in steps[0].parameters()) == 6 * 65 * 65 + 65 + 65 * 65 + 65 + 4 * 65 + 1
    assert list(model.taps) == ["steps1", "steps2", "steps4", "steps8", "steps16", "logits"]
    assert list(build("mnist_invarpdes_28", {"steps": 5, "channels": 4}).taps) == [
        "steps1",
        "steps2",
        "steps4",
        "steps5",
        "logits",
    ]


def test_the_error_of_the_differential_equation_grows_with_its_steps() -> None:
    model = build("mnist_invarpdes_28", {"channels": 16})
    normed_on(model, strokes(28, 1))
    first, fourth, last = (error(model, f"steps{n}", 0.577) for n in (1, 4, 16))
    assert first < 0.03
    assert first < fourth < last


def test_brightness_does_not_reach_behind_the_first_invariants() -> None:
    model, images = build("mnist_invarlayer_28").eval(), torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        taken, darker, other = (
            torch.as_tensor(model.features(each)["conv1"]) for each in (images, images / 3, images**2)
        )
    torch.testing.assert_close(darker, taken, rtol=0, atol=1e-5)
    assert (other - taken).norm() > 0.1 * taken.norm()
