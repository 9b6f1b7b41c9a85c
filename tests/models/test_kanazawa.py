from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Plane
from secli.errors import InputError
from secli.layers.locally_invariant import SIConv
from secli.models.building import build, count_parameters
from secli.models.contract import StagedModel

SEVEN = (0.3, 0.45, 0.67, 1.0, 1.49, 2.23, 3.33)
NARROW = {"widths": [4, 8, 8, 8], "image_size": 32}


def layers_of(model: nn.Module) -> list[SIConv]:
    return [module for module in model.modules() if isinstance(module, SIConv)]


def features(model: StagedModel, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        given = model.eval().features(images)
    return {tap: each for tap, each in given.items() if isinstance(each, Tensor)}


@pytest.mark.parametrize("name", ["mnist_kanazawa_28", "mnist_kanazawa_56"])
def test_the_published_network(name: str) -> None:
    model = build(name)
    assert count_parameters(model) == 494_549
    layers = layers_of(model)
    assert [layer.weight.shape for layer in layers] == [(32, 1, 7, 7), (63, 32, 7, 7), (95, 63, 7, 7)]
    assert all(layer.scales == SEVEN and layer.bias is not None for layer in layers)
    assert all(isinstance(field, Plane) for tap, field in model.taps.items() if tap != "logits")


def test_the_published_wide_network() -> None:
    model = build("wrn_16_8_kanazawa")
    assert count_parameters(model) == 10_961_370
    layers = layers_of(model)
    assert len(layers) == 13
    assert {layer.scales for layer in layers} == {(0.5, 1.0, 2.0)}
    assert not any(name.startswith("bias") for layer in layers for name, _ in layer.named_parameters())
    assert [layer.stride for layer in layers] == [1, 1, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1]
    pointwise = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [module.kernel_size for module in pointwise] == [(1, 1)] * 3


@pytest.mark.parametrize(
    ("invariant", "plain", "options"),
    [("mnist_kanazawa_28", "mnist_cnn_28", {}), ("wrn_16_8_kanazawa", "wrn_16_8", NARROW)],
)
def test_with_the_input_alone_it_is_the_plain_network(
    invariant: str, plain: str, options: dict[str, Any]
) -> None:
    """Same parameters, same shapes; and another network with another scale beside it."""
    theirs = build(plain, options).eval()
    alone = build(invariant, options | {"scales": [1.0]}).eval()
    more = build(invariant, options | {"scales": [1.0, 1.49]}).eval()
    for model in (alone, more):
        model.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3 if options else 1, options.get("image_size", 28), options.get("image_size", 28))
    with torch.no_grad():
        torch.testing.assert_close(alone(images), theirs(images))
        assert not torch.allclose(more(images), theirs(images), atol=1e-3)


def test_enlarged_images_give_the_larger_planes() -> None:
    sides = {
        tap: each.shape[-1]
        for tap, each in features(build("mnist_kanazawa_56"), torch.rand(1, 1, 28, 28)).items()
    }
    assert sides == {"conv1": 56, "block1": 28, "block2": 14, "conv3": 14, "block3": 2, "logits": 10}


def test_the_wide_network_on_other_sizes() -> None:
    model = build("wrn_16_8_kanazawa", NARROW | {"image_size": 37})
    sides = {tap: each.shape[-1] for tap, each in features(model, torch.rand(2, 3, 37, 37)).items()}
    assert sides == {"stem": 37, "group1": 37, "group2": 19, "group3": 10, "logits": 10}


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ([], "scales"),
        ([1.0, 0.0], "input should be greater than 0"),
        ([1.0, 17.0], "input should be less than or equal to 16"),
    ],
)
def test_bad_scales_are_one_line(scales: list[float], message: str) -> None:
    for name in ("mnist_kanazawa_28", "wrn_16_8_kanazawa"):
        with pytest.raises(InputError) as caught:
            build(name, {"scales": scales})
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
