from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secli.action.fields import Plane, ScaleSpace
from secli.errors import InputError
from secli.layers.columns import ColumnKernels, ColumnNorm
from secli.models.building import build, count_parameters
from secli.models.contract import StagedModel

SEVEN = (0.3, 0.45, 0.67, 1.0, 1.49, 2.23, 3.33)
NARROW = {"widths": [4, 8, 8, 8], "image_size": 32}


def features(model: StagedModel, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        given = model.eval().features(images)
    return {tap: each for tap, each in given.items() if isinstance(each, Tensor)}


@pytest.mark.parametrize("name", ["mnist_xu_28", "mnist_xu_56"])
def test_the_published_network(name: str) -> None:
    model = build(name)
    assert count_parameters(model) == 496_639
    layers = [module for module in model.modules() if isinstance(module, ColumnKernels)]
    assert [layer.weight.shape for layer in layers] == [(32, 1, 7, 7), (63, 32, 7, 7), (95, 63, 7, 7)]
    assert all((layer.scales, layer.side) == (SEVEN, 23) for layer in layers)
    norms = [module for module in model.modules() if isinstance(module, ColumnNorm)]
    assert [norm.num_features for norm in norms] == [7 * 32, 7 * 63, 7 * 95]


def test_the_published_wide_network() -> None:
    model = build("wrn_16_8_xu")
    assert count_parameters(model) == 10_975_770
    layers = [module for module in model.modules() if isinstance(module, ColumnKernels)]
    assert len(layers) == 13
    assert all((layer.scales, layer.side) == ((0.67, 1, 1.5), 5) for layer in layers)
    norms = [module for module in model.modules() if isinstance(module, ColumnNorm)]
    assert sum(norm.num_features for norm in norms) == 3 * 3600


def test_the_columns_meet_behind_the_last_norm() -> None:
    model = build("mnist_xu_28")
    fields = model.taps
    for tap in ("conv1", "block1", "block2", "conv3"):
        field = fields[tap]
        assert isinstance(field, ScaleSpace)
        assert field.scales == SEVEN
    assert isinstance(fields["block3"], Plane)
    assert list(dict(model.stages)["block3"].named_children())[-1][0] == "collapse"
    shapes = {tap: tuple(each.shape[1:]) for tap, each in features(model, torch.rand(1, 1, 28, 28)).items()}
    assert shapes == {
        "conv1": (32, 7, 28, 28),
        "block1": (32, 7, 14, 14),
        "block2": (63, 7, 7, 7),
        "conv3": (95, 7, 7, 7),
        "block3": (95, 2, 2),
        "logits": (10,),
    }


def test_the_wide_columns_meet_behind_the_average() -> None:
    model = build("wrn_16_8_xu", NARROW).eval()
    head = [name for name, _ in dict(model.stages)["logits"].named_children()]
    assert head == ["norm", "relu", "average", "before_linear", "classify"]
    given = features(model, torch.rand(2, 3, 32, 32))
    assert given["group3"].shape == (2, 8, 3, 8, 8)
    last = dict(model.stages)["logits"]
    assert isinstance(last, nn.Sequential)
    with torch.no_grad():
        means = last[:3](given["group3"])
        torch.testing.assert_close(last[4](means.amax(2)), given["logits"])
    assert means.shape == (2, 8, 3)


@pytest.mark.parametrize(
    ("columns", "plain", "options"),
    [("mnist_xu_28", "mnist_cnn_28", {}), ("wrn_16_8_xu", "wrn_16_8", NARROW)],
)
def test_one_column_is_the_plain_network(columns: str, plain: str, options: dict[str, Any]) -> None:
    """A plain network without biases in its convolutions; and with two columns it is another network."""
    theirs = build(plain, options).eval()
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                module.bias.zero_()
    state = {
        key: value
        for key, value in theirs.state_dict().items()
        if not key.endswith(("conv.bias", "conv1.bias", "conv2.bias"))
    }
    alone = build(columns, options | {"scales": [1.0]}).eval()
    alone.load_state_dict(state)
    side = options.get("image_size", 28)
    images = torch.rand(2, 3 if options else 1, side, side)
    with torch.no_grad():
        torch.testing.assert_close(alone(images), theirs(images), rtol=1e-4, atol=1e-5)
    two = build(columns, options | {"scales": [1.0, 1.5]}).eval()
    learned = {key: value for key, value in state.items() if ".norm" not in key and "running" not in key}
    two.load_state_dict(learned, strict=False)
    with torch.no_grad():
        assert not torch.allclose(two(images), theirs(images), atol=1e-3)


def test_scale_pool_option_changes_the_network() -> None:
    images = torch.rand(1, 1, 28, 28)
    largest, mean = (
        features(build("mnist_xu_28", {"scale_pool": how}), images)["logits"] for how in ("max", "mean")
    )
    assert not torch.allclose(largest, mean, atol=1e-4)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ([], "scales"),
        ([1.0, 0.67], "the scales must be positive and increasing, not (1.0, 0.67)"),
        ([0.05, 1.0], "nothing is left of a"),
        ([0.0, 1.0], "input should be greater than 0"),
    ],
)
def test_bad_scales_are_one_line(scales: list[float], message: str) -> None:
    for name in ("mnist_xu_28", "wrn_16_8_xu"):
        with pytest.raises(InputError) as caught:
            build(name, {"scales": scales})
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
