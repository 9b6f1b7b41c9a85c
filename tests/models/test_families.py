"""What each family's options do, and which of them contradict each other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from secli.action.fields import Plane, ScaleSpace
from secli.catalogue import MODELS
from secli.errors import InputError
from secli.layers.deformable import DeformConv
from secli.layers.dss import DSSConv
from secli.layers.ses import SESConv, SESLift
from secli.models.building import build, count_parameters, options_schema, resolve_options
from secli.models.entrance import Enlarge, Normalise
from secli.models.mnist_body import last_window
from secli.models.sesn import ses_scales


def scale_space(name: str, tap: str, options: dict[str, Any] | None = None) -> ScaleSpace:
    field = build(name, options).taps[tap]
    assert isinstance(field, ScaleSpace)
    return field


@pytest.mark.parametrize(
    ("name", "scales"),
    [
        ("mnist_ses_scalar_28", (1.7, 2.45, 3.54, 5.1)),
        ("mnist_ses_scalar_28p", (1.5, 2.16, 3.12, 4.5)),
        ("mnist_ses_scalar_56", (2.0, 2.83, 4.0)),
        ("mnist_ses_scalar_56p", (1.0, 1.73, 3.0)),
        ("mnist_ses_vector_28", (1.5, 2.6, 4.5)),
        ("mnist_ses_vector_28p", (1.5, 2.6, 4.5)),
        ("mnist_ses_vector_56", (2.0, 2.52, 3.17, 4.0)),
        ("mnist_ses_vector_56p", (1.5, 1.89, 2.38, 3.0)),
    ],
)
def test_published_scales(name: str, scales: tuple[float, ...]) -> None:
    model = build(name)
    lift = next(module for module in model.modules() if isinstance(module, SESLift))
    assert lift.scales == scales
    if "vector" in name:
        assert scale_space(name, "block2").scales == scales


@pytest.mark.parametrize(
    ("name", "size", "mult"),
    [
        ("mnist_ses_scalar_28", 15, 1.5),
        ("mnist_ses_scalar_28p", 13, 1.4),
        ("mnist_ses_scalar_56", 15, 1.4),
        ("mnist_ses_scalar_56p", 17, 1.4),
        ("mnist_ses_vector_28", 13, 1.5),
        ("mnist_ses_vector_28p", 15, 1.4),
        ("mnist_ses_vector_56", 15, 1.5),
        ("mnist_ses_vector_56p", 13, 1.4),
    ],
)
def test_published_bases(name: str, size: int, mult: float) -> None:
    options = resolve_options(MODELS[name])
    assert (options["size"], options["mult"]) == (size, mult)
    assert (options["max_order"], options["effective_size"]) == (4, 7)


def test_one_level_has_one_scale() -> None:
    assert ses_scales(1.5, 3.0, 1) == (1.5,)


def test_interaction_truncates_the_top_level_by_level() -> None:
    options = {"interaction": 2}
    assert scale_space("mnist_ses_vector_28", "conv1", options).truncated == 0
    assert scale_space("mnist_ses_vector_28", "block2", options).truncated == 1
    assert scale_space("dss_v1", "lift", options).truncated == 0
    assert scale_space("dss_v1", "block1", options).truncated == 1
    assert scale_space("dss_v1", "block2", options).truncated == 2
    assert scale_space("dss_v1", "block2", {"interaction": 4}).truncated == 4


def test_drop_top_leaves_out_what_is_truncated() -> None:
    options = {"interaction": 2, "drop_top": True}
    field = scale_space("dss_v1", "block2", options)
    assert (field.scales, field.truncated) == ((1.0, 2.0), 0)
    features = build("dss_v1", options).features(torch.rand(2, 1, 28, 28))
    assert isinstance(features["conv1"], Tensor)
    assert isinstance(features["block2"], Tensor)
    assert features["conv1"].shape[2] == 3
    assert features["block2"].shape[2] == 2
    vector = scale_space("mnist_dss_vector_28", "conv3", {"levels": 4, **options})
    assert (vector.scales, vector.truncated) == ((1.0,), 0)


def test_truncated_levels_are_those_that_an_interaction_cuts_short() -> None:
    """Change the top level of the input: the levels below the truncated ones do see it, or nothing changes."""
    whole = build("dss_v1", {"interaction": 2, "levels": 4, "base": 1.5}).eval()
    more = build("dss_v1", {"interaction": 2, "levels": 6, "base": 1.5}).eval()
    more.load_state_dict(whole.state_dict())
    image = torch.rand(1, 1, 28, 28)
    short, long = whole.features(image)["conv2"], more.features(image)["conv2"]
    assert isinstance(short, Tensor)
    assert isinstance(long, Tensor)
    field = whole.taps["conv2"]
    assert isinstance(field, ScaleSpace)
    known = 4 - field.truncated
    # a longer stack changes nothing below the truncated levels, and all of those
    torch.testing.assert_close(short[:, :, :known], long[:, :, :known])
    for k in range(known, 4):
        assert not torch.allclose(short[:, :, k], long[:, :, k], atol=1e-3)


def test_base_blur_is_in_pixels_of_the_image() -> None:
    assert scale_space("dss_v1", "lift").base_blur == 0.5
    assert scale_space("mnist_dss_vector_28", "conv1").base_blur == 0.25
    assert scale_space("mnist_dss_vector_56", "conv1").base_blur == 0.125
    assert scale_space("mnist_ses_vector_28", "conv1").base_blur == 0


def test_dilation_option_reaches_the_layers() -> None:
    for how, expected in (("floor", (1, 1, 2, 3)), ("exact", (1, 1.5, 2.25, 3.375))):
        model = build("dss_v1", {"base": 1.5, "dilation": how})
        layers = [module for module in model.modules() if isinstance(module, DSSConv)]
        assert len(layers) == 2
        assert all(layer.dilations == expected for layer in layers)
        assert scale_space("dss_v1", "lift", {"base": 1.5, "dilation": how}).scales == (1, 1.5, 2.25, 3.375)


def test_scale_pool_option_changes_the_network() -> None:
    image = torch.rand(1, 1, 28, 28)
    for name in (
        "dss_v1",
        "mnist_ses_scalar_28",
        "mnist_ses_vector_28",
        "mnist_dss_scalar_28",
        "mnist_dss_vector_28",
    ):
        largest, mean = (build(name, {"scale_pool": how}).eval()(image) for how in ("max", "mean"))
        assert not torch.allclose(largest, mean, atol=1e-4), name


@pytest.mark.parametrize("groups", [1, 2, 10])
def test_deformable_groups(groups: int) -> None:
    for name, per_tap in (("dcn", 2), ("dcn_v2", 3)):
        model = build(name, {"deformable_groups": groups})
        layers = [module for module in model.modules() if isinstance(module, DeformConv)]
        assert [layer.offset.out_channels for layer in layers] == [per_tap * 9 * groups] * 2
        assert [layer.bias is not None for layer in layers] == [False, True]


def test_dcn_starts_as_cnn() -> None:
    """Same widths, same draws up to the offsets' branch: at the start the deformable network is a plain one."""
    plain, deformable = build("cnn").eval(), build("dcn").eval()
    weights = {key: value for key, value in deformable.state_dict().items() if "offset" not in key}
    plain.load_state_dict(weights)
    image = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(plain(image), deformable(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [16, 32, 64])
def test_widths_of_dss_v1(channels: int) -> None:
    count = 9 * channels + 18 * channels**2 + 6 * channels + 980 * channels + 10
    assert count_parameters(build("dss_v1", {"channels": channels})) == count


def test_parameters_are_created_block_by_block() -> None:
    names = [name for name, _ in build("mnist_ses_vector_28").named_parameters()]
    assert names == [
        "conv1.conv.weight",
        "conv1.conv.bias",
        "block1.norm.weight",
        "block1.norm.bias",
        "block2.conv.weight",
        "block2.conv.bias",
        "block2.norm.weight",
        "block2.norm.bias",
        "conv3.conv.ses.weight",
        "conv3.conv.ses.bias",
        "block3.norm.weight",
        "block3.norm.bias",
        "logits.linear.weight",
        "logits.norm.weight",
        "logits.norm.bias",
        "logits.classify.weight",
        "logits.classify.bias",
    ]


@given(size=st.integers(6, 300))
def test_the_last_pooling_leaves_two_by_two(size: int) -> None:
    window = last_window(size)
    assert nn.functional.max_pool2d(torch.zeros(1, 1, size, size), window, padding=2).shape[-1] == 2


def test_the_last_pooling_is_the_published_one() -> None:
    assert (last_window(7), last_window(14)) == (4, 8)


@pytest.mark.parametrize("size", [24, 32, 47])
def test_other_image_sizes_keep_the_parameters(size: int) -> None:
    model = build("mnist_ses_vector_28", {"image_size": size}).eval()
    assert model(torch.rand(1, 1, size, size)).shape == (1, 10)
    assert count_parameters(model) == 494_549


def test_enlarging_nearest_and_bilinear() -> None:
    image = torch.rand(1, 1, 5, 5)
    nearest = Enlarge(2, "nearest")(image)
    assert torch.equal(nearest[..., ::2, ::2], image)
    assert torch.equal(nearest[..., 1::2, 1::2], image)
    bilinear = Enlarge(2, "bilinear")(image)
    assert bilinear.shape == nearest.shape
    corner = image[..., 0, 0] * 9 + image[..., 0, 1] * 3 + image[..., 1, 0] * 3 + image[..., 1, 1]
    torch.testing.assert_close(bilinear[..., 1, 1], corner / 16)
    images = torch.rand(1, 1, 28, 28)
    first, second = (
        build("mnist_cnn_56", {"upsample": how}).eval()(images) for how in ("nearest", "bilinear")
    )
    assert not torch.allclose(first, second, atol=1e-5)


def test_normalisation_is_inside() -> None:
    images = torch.rand(2, 2, 3, 3)
    out = Normalise(2, (0.1, 0.2), (0.5, 0.25))(images)
    torch.testing.assert_close(out[:, 1], (images[:, 1] - 0.2) / 0.25)
    assert not Normalise(1, 0.5, 0.5).state_dict()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dss_v1", {"chanels": 32}, "model dss_v1: unknown key 'chanels'; did you mean 'channels'?"),
        ("dss_v1", {"base": 1}, "model dss_v1: base = 1: input should be greater than 1"),
        ("dss_v1", {"base": math.nan}, "model dss_v1: base = nan: input should be a finite number"),
        ("dss_v1", {"dilation": "exakt"}, "dilation = 'exakt': input should be 'floor', 'round' or 'exact'"),
        ("dss_v1", {"interaction": 5}, "interaction must be 1 to 4 (the levels), not 5"),
        (
            "dss_v1",
            {"interaction": 3, "drop_top": True},
            "2 convolutions with interaction 3 and drop_top leave no level of 4",
        ),
        ("cnn", {"mean": math.nan}, "mean = nan: give a finite number, or a list with one per channel"),
        ("cnn", {"mean": []}, "mean = []: give a finite number, or a list with one per channel"),
        ("cnn", {"mean": [0.1, 0.2]}, "model cnn: mean has 2 values for 1 channels; give one per channel"),
        ("cnn", {"std": 0}, "std = 0: must be greater than 0"),
        ("cnn", {"std": [0.1, -1]}, "std = [0.1, -1]: must be greater than 0"),
        ("cnn", {"in_channels": 0}, "in_channels = 0: input should be greater than or equal to 1"),
        ("dcn", {"deformable_groups": 7}, "deformable groups 7 do not divide the 20 input channels"),
        ("mnist_cnn_28", {"image_size": 10}, "image_size = 10: input should be greater than or equal to 24"),
        ("mnist_cnn_28", {"dropout": 1}, "dropout = 1: input should be less than 1"),
        (
            "mnist_cnn_56",
            {"upsample": "cubic"},
            "upsample = 'cubic': input should be 'nearest' or 'bilinear'",
        ),
        ("mnist_ses_scalar_28", {"interaction": 2}, "interaction needs mode=vector"),
        ("mnist_ses_vector_28", {"interaction": 4}, "interaction must be 1 to 3 (the levels), not 4"),
        ("mnist_ses_vector_28", {"size": 12}, "the kernel size must be odd and positive, not 12"),
        (
            "mnist_ses_vector_28",
            {"min_scale": 0.01, "factor": 1.01},
            "min_scale 0.01 and factor 1.01 leave no 3 different scales",
        ),
    ],
)
def test_bad_options_are_one_line_that_names_them(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", list(MODELS))
def test_every_option_says_what_it_is(name: str) -> None:
    for key, option in options_schema(MODELS[name]).model_fields.items():
        assert option.description, f"{name}: {key}"


def test_the_scalar_networks_have_planes_only() -> None:
    for name in ("mnist_ses_scalar_28", "mnist_dss_scalar_28"):
        fields = list(build(name).taps.values())[:-1]
        assert all(isinstance(field, Plane) for field in fields)


def test_the_vector_networks_keep_their_scale_axis_as_published() -> None:
    ses = {tap: type(field).__name__ for tap, field in build("mnist_ses_vector_28").taps.items()}
    dss = {tap: type(field).__name__ for tap, field in build("mnist_dss_vector_28").taps.items()}
    space, plane = "ScaleSpace", "Plane"
    expected = {"conv1": space, "block1": space, "block2": space, "logits": "Invariant"}
    assert ses == expected | {"conv3": plane, "block3": plane}
    assert dss == expected | {"conv3": space, "block3": plane}
    assert sum(isinstance(m, SESConv) for m in build("mnist_ses_vector_28").modules()) == 2
