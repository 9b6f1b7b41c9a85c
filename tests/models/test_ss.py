"""SS-CNN, in both bodies: what is steered to which sizes, and what that costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Plane
from secli.action.images import rescale
from secli.errors import InputError
from secli.layers.scale_steerable import ScaleSteerableConv
from secli.models.building import build, count_parameters

SMALL = {"image_size": 32, "widths": (4, 8, 12, 16)}


def steerable(name: str, options: dict[str, Any] | None = None) -> list[ScaleSteerableConv]:
    return [module for module in build(name, options).modules() if isinstance(module, ScaleSteerableConv)]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("mnist_ss_28", (5, 7, 9, 11, 13)), ("mnist_ss_56", (7, 9, 11, 13, 15, 17))],
)
def test_the_published_network_for_digits(name: str, sizes: tuple[int, ...]) -> None:
    model = build(name)
    assert count_parameters(model) == 486_278
    layers = steerable(name)
    assert [layer.sizes for layer in layers] == [sizes] * 3
    assert layers[0].scales == pytest.approx([size / 11 for size in sizes])
    assert [tuple(layer.real.shape) for layer in layers] == [
        (3, 30, 1, 9),
        (3, 60, 30, 9),
        (3, 90, 60, 9),
    ]
    fields = list(model.taps.values())[:-1]
    assert all(isinstance(field, Plane) for field in fields)


def test_sizes_follow_the_enlargement_unless_given() -> None:
    assert steerable("mnist_ss_28", {"upsampling": 2})[0].sizes == (7, 9, 11, 13, 15, 17)
    assert steerable("mnist_ss_56", {"upsampling": 1})[0].sizes == (5, 7, 9, 11, 13)
    assert steerable("mnist_ss_56", {"sizes": [3, 7]})[0].sizes == (3, 7)


def test_parameters_are_created_in_the_order_of_use() -> None:
    names = [name for name, _ in build("mnist_ss_28").named_parameters()]
    assert names[:4] == ["conv1.conv.real", "conv1.conv.imag", "block1.norm.weight", "block1.norm.bias"]
    assert names[-6:] == [
        "logits.linear.weight",
        "logits.linear.bias",
        "logits.norm.weight",
        "logits.norm.bias",
        "logits.classify.weight",
        "logits.classify.bias",
    ]


def test_a_relu_stands_behind_every_maximum() -> None:
    """The first tap is the maximum over sizes itself; what follows sees its positive part."""
    model = build("mnist_ss_28").eval()
    with torch.no_grad():
        features = model.features(torch.rand(2, 1, 28, 28))
    first, third = features["conv1"], features["conv3"]
    assert isinstance(first, Tensor)
    assert isinstance(third, Tensor)
    assert (first < 0).any()
    assert (third >= 0).all()
    relus = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    assert relus == ["block1.relu", "block2.relu", "conv3.relu", "logits.relu"]


@pytest.mark.parametrize(
    ("options", "coefficients"),
    [
        ({"sizes": (5, 9)}, 54),
        ({"orders": (1,)}, 18),
        ({"angles": 5}, 30),
        ({"sigma_phi": 0.5, "phase": 0.1, "reference_size": 9}, 54),
    ],
)
def test_options_reach_the_layers(options: dict[str, Any], coefficients: int) -> None:
    image = torch.rand(1, 1, 28, 28)
    other = build("mnist_ss_28", options).eval()
    assert count_parameters(other) == 486_278 - 7_230 * (54 - coefficients)
    with torch.no_grad():
        assert not torch.allclose(other(image), build("mnist_ss_28").eval()(image), atol=1e-4)


def test_the_first_layer_changes_less_than_the_plain_networks() -> None:
    """A thin ring and its shrunk version, over seeds: the feature behind the first convolution of both networks."""
    grid = torch.arange(28) - 13.5
    ring = (-((torch.hypot(grid.view(-1, 1), grid) - 8) ** 2) / 2).exp() * (grid.view(-1, 1) > -4)
    picture = ring.view(1, 1, 28, 28)
    readings: dict[str, list[float]] = {"mnist_ss_28": [], "mnist_cnn_28": []}
    for name, values in readings.items():
        for seed in range(3):
            first = build(name, {"mean": 0.0, "std": 1.0}, seed=seed).stages[0][1]
            with torch.no_grad():
                empty = first(torch.zeros_like(picture))
                moved = rescale(first(picture) - empty, 0.65)
                after = first(rescale(picture, 0.65)) - empty
            values.append(float((moved - after).square().sum() / moved.square().sum()))
    assert max(readings["mnist_ss_28"]) < min(readings["mnist_cnn_28"])


@pytest.mark.parametrize("sizes", ["published", "paper"])
def test_both_wide_networks_have_the_published_count(sizes: str) -> None:
    assert count_parameters(build("wrn_16_8_ss", {"sizes": sizes})) == 10_280_522


@pytest.mark.parametrize(("sizes", "inner"), [("published", (3,)), ("paper", (3, 5, 7))])
def test_sizes_inside_the_blocks(sizes: str, inner: tuple[int, ...]) -> None:
    layers = steerable("wrn_16_8_ss", {"sizes": sizes, **SMALL})
    assert [layer.sizes for layer in layers] == [(3, 5, 7), *[inner] * 12]
    assert {layer.scales[0] for layer in layers} == {1.0}
    assert [layer.stride for layer in layers] == [1] * 5 + [2, 1, 1, 1] * 2
    assert not any(layer.relu for layer in layers)


def test_the_wide_network_keeps_a_signal() -> None:
    model = build("wrn_16_8_ss", {"sizes": "paper", **SMALL}).train()
    features = model.features(torch.rand(4, 3, 32, 32))
    deviations = [tensor.std().item() for tensor in features.values() if isinstance(tensor, Tensor)]
    assert all(0.05 < deviation < 50 for deviation in deviations)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist_ss_28", {"sizes": [4, 5]}, "the sizes must be odd, at least 3 and increasing, not (4, 5)"),
        ("mnist_ss_28", {"angles": 0}, "angles = 0: input should be greater than or equal to 1"),
        ("mnist_ss_28", {"sigma_phi": 0}, "sigma_phi = 0: input should be greater than 0"),
        ("wrn_16_8_ss", {"sizes": "both"}, "sizes = 'both': input should be 'published' or 'paper'"),
    ],
)
def test_bad_options_are_one_line_that_names_them(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
