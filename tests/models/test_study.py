"""The study's own forms are what its code computes, transcribed literally; what they do not have is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import secli
from secli.action.fields import Invariant, Pyramid, ScaleSpace
from secli.errors import InputError
from secli.layers.gaussian import ScaleSpaceLift
from secli.models.building import build, count_parameters
from secli.models.contract import StagedModel
from secli.models.study import LevelNorm
from tests.layers.cases import moved

DOUBLE: dict[str, Any] = {"mean": 0.0, "std": 1.0}


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1)).double()


def network(name: str, **options: Any) -> StagedModel:
    """Build it in float64 with statistics of batch norms that are not those of the start."""
    model = build(name, {**DOUBLE, **options}).double()
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                assert tensor is not None
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model.eval()


def normed(x: Tensor, norm: Any) -> Tensor:
    return functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


@pytest.mark.parametrize(
    ("base", "levels", "sides"),
    [
        (1.3, 4, (28, 28, 28, 14)),
        (1.7, 4, (28, 28, 14, 7)),
        (2.0, 3, (28, 14, 7)),
        (1.2, 4, (28, 28, 28, 28)),
        (1.5, 4, (28, 28, 14, 9)),
    ],
)
def test_the_pyramid_is_the_studys(base: float, levels: int, sides: tuple[int, ...]) -> None:
    model: Any = network("dss_v2", form="study", channels=4, base=base, levels=levels)
    images, answers = pictures(), []
    for side in sides:
        x = functional.interpolate(images, (side, side), mode="bilinear", align_corners=False)
        for conv in (model.conv1, model.conv2):
            x = functional.conv2d(x, conv.weight[:, :, 0], padding=1)
        answers.append(normed(functional.max_pool2d(x, 2).relu(), model.block2.norm.module))
    smallest = answers[-1].shape[2]
    pooled = [functional.max_pool2d(y, y.shape[2] // smallest) for y in answers]
    if base == 1.5:  # 7 cells, by windows of ⌊7/4⌋, would stay 7: no network of the study
        pooled[2] = functional.adaptive_max_pool2d(answers[2], smallest)
    best = torch.stack(pooled).amax(dim=0).relu()
    expected = functional.linear(best.flatten(1), model.logits.classify.weight, model.logits.classify.bias)
    torch.testing.assert_close(model(images), expected)
    assert smallest == 14 // math.floor(base ** (levels - 1))
    assert count_parameters(model) == 4 * 9 + 16 * 9 + 8 + 10 * (4 * smallest**2 + 1)


@pytest.mark.parametrize(("channels", "groups"), [(20, 10), (4, 1)])
def test_the_deformable_scale_space_is_the_studys(channels: int, groups: int) -> None:
    from torchvision.ops import deform_conv2d

    options = {"form": "study", "channels": channels, "deformable_groups": groups, "base": 1.3, "levels": 3}
    model: Any = network("deform_dss", **options)
    x = ScaleSpaceLift(1.3, 0.5, 3).double()(pictures())
    conv = model.block1.conv.module
    levels = [functional.conv2d(level, conv.weight, conv.bias, padding=1).relu() for level in x.unbind(2)]
    levels = [normed(level, model.block1.norm.module) for level in levels]
    for stage in (model.conv2, model.conv3):
        layer = stage.conv.module
        assert layer.offset.weight.any(), "the study's offsets do not start at zero"
        assert layer.offset.weight.shape[0] == 18 * groups
        moved_levels = [
            deform_conv2d(y, layer.offset(y), layer.weight, layer.bias, padding=1).relu() for y in levels
        ]
        stack = torch.stack(moved_levels, dim=2)
        maps = [normed(stack[:, c], stage.norm) for c in range(stack.shape[1])]
        levels = [functional.max_pool2d(level, 2) for level in torch.stack(maps, dim=1).unbind(2)]
    best = torch.stack(levels).amax(dim=0).relu().flatten(1)
    expected = functional.linear(best, model.logits.classify.weight, model.logits.classify.bias)
    torch.testing.assert_close(model(pictures()), expected)
    assert model.logits.classify.in_features == 4 * channels * 49


def test_the_norm_over_levels_takes_one_channel_after_the_other() -> None:
    ours, theirs = LevelNorm(3).double(), nn.BatchNorm2d(3).double()
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
            norm.bias.copy_(torch.tensor([0.1, 0.0, -0.2]))
    for seed in range(2):
        x = torch.randn(4, 5, 3, 6, 6, generator=torch.Generator().manual_seed(seed)).double() + seed
        expected = torch.stack([theirs(x[:, c]) for c in range(5)], dim=1)
        torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    expected = torch.stack([theirs.eval()(x[:, c]) for c in range(5)], dim=1)
    torch.testing.assert_close(ours.eval()(x), expected)


def test_four_layers_have_no_norm() -> None:
    model: Any = network("dss_v1", layers=4, channels=3, base=2.0, levels=3)
    assert list(model.taps) == [
        "lift",
        "conv1",
        "conv2",
        "block1",
        "conv3",
        "conv4",
        "block2",
        "pool",
        "logits",
    ]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    x = ScaleSpaceLift(2.0, 0.5, 3).double()(pictures())
    levels = list(x.unbind(2))
    for i, conv in enumerate((model.conv1, model.conv2, model.conv3, model.conv4)):
        kernel = conv.weight[:, :, 0]
        levels = [functional.conv2d(y, kernel, padding=2**k, dilation=2**k) for k, y in enumerate(levels)]
        if i % 2:
            levels = [functional.avg_pool2d(y, 2) for y in levels]
    best = torch.stack(levels).amax(dim=0).relu().flatten(1)
    expected = functional.linear(best, model.logits.classify.weight, model.logits.classify.bias)
    torch.testing.assert_close(model(pictures()), expected)
    assert count_parameters(model) == 9 * (3 + 9 + 18 + 36) + 10 * (6 * 49 + 1)


@pytest.mark.parametrize("name", ["dss_v1", "deform_dss"])
@pytest.mark.parametrize(("interaction", "truncated"), [(1, (0, 0)), (2, (0, 1)), (3, (1, 3))])
def test_levels_that_are_not_kept_still_feed_the_first_convolution(
    name: str, interaction: int, truncated: tuple[int, int]
) -> None:
    options = {"base": 1.5, "levels": 5, "interaction": interaction, "channels": 2}
    whole, few = network(name, **options), network(name, **options, io_levels=4)
    moved(few)
    few.load_state_dict(whole.state_dict())
    there, here = whole.features(pictures()), few.features(pictures())
    assert isinstance(there["conv1"], Tensor)
    assert torch.equal(here["lift"], there["lift"])  # type: ignore[arg-type]
    torch.testing.assert_close(here["conv1"], there["conv1"][:, :, :4])
    fields = [few.taps[tap] for tap in ("conv1", "conv2", "block2")]
    assert all(isinstance(field, ScaleSpace) and len(field.scales) == 4 for field in fields)
    assert [field.truncated for field in fields] == [*truncated, truncated[1]]  # type: ignore[attr-defined]


def test_all_levels_are_kept_by_default_and_then_nothing_is_another_network() -> None:
    plain, same = (build("dss_v1", {"base": 1.3, **more}) for more in ({}, {"io_levels": 4}))
    assert torch.equal(plain(pictures().float()), same(pictures().float()))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dss_v1", {"io_levels": 5}, "model dss_v1: io_levels = 5: the lift has 4 levels; raise levels"),
        ("dss_v1", {"io_levels": 0}, "io_levels = 0: input should be greater than or equal to 1"),
        ("dss_v1", {"io_levels": 2, "drop_top": True}, "io_levels and drop_top exclude each other"),
        ("dss_v1", {"io_levels": 2, "interaction": 3}, "interaction must be 1 to 2 (the levels), not 3"),
        ("dss_v1", {"layers": 3}, "layers = 3: input should be 2 or 4"),
        ("dss_v2", {"form": "paper"}, "form = 'paper': input should be 'ours' or 'study'"),
        (
            "dss_v2",
            {"form": "study", "interaction": 2},
            "form=study has no interaction; leave interaction = 2 out",
        ),
        ("dss_v2", {"form": "study", "base": 3.0}, "leaves the coarsest one a single cell"),
        (
            "deform_dss",
            {"form": "study", "dilation": "exact"},
            "form=study has no dilation; leave dilation = exact",
        ),
        ("deform_dss", {"form": "study", "io_levels": 2}, "form=study has no io_levels"),
        (
            "deform_dss",
            {"form": "study", "deformable_groups": 10},
            "groups 10 do not divide the 16 input channels",
        ),
    ],
)
def test_what_a_form_does_not_have_is_refused_in_one_line(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        build(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dss_v2", {"form": "study"}),
        ("dss_v2", {"form": "study", "base": 1.3}),
        ("deform_dss", {"form": "study", "base": 1.3, "levels": 3, "channels": 4}),
        ("dss_v1", {"layers": 4, "io_levels": 3}),
    ],
)
def test_they_are_measured_and_trained(name: str, options: dict[str, Any]) -> None:
    model = build(name, options)
    images = pictures(4).float()
    torch.autograd.backward(functional.cross_entropy(model(images), torch.arange(4)))
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    frame = secli.measure(model.eval(), images, factors=(1.0, 0.5), border=0)
    assert set(frame["tap"]) == set(model.taps)
    assert frame[frame["factor"] == 1.0]["mean"].max() < 1e-10


def test_levels_of_one_size_are_alike_to_the_ruler() -> None:
    field = Pyramid((1.0, 1.0, 0.5))
    assert field.lattice == (0.5,)
    assert [field.source(k, 0.5) for k in range(3)] == [2, 2, None]
    with pytest.raises(ValueError, match="never increase"):
        Pyramid((0.5, 1.0))


@pytest.mark.parametrize("base", [1.3, 1.5, 1.7, 2.0])
def test_what_is_compared_of_a_pyramid_lies_about_the_centre(base: float) -> None:
    """With kernels that are their own mirror image, the mirrored picture gives mirrored features there."""
    model = build("dss_v2", {"form": "study", "base": base}).eval()
    for parameter in model.parameters():
        if parameter.ndim >= 4:
            parameter.data = (parameter + parameter.flip(-1)) / 2
    picture = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        plain, mirrored = model.features(picture), model.features(picture.flip(3))
    compared = 0
    for tap, field in model.taps.items():
        if isinstance(field, Invariant):
            continue
        levels = plain[tap] if isinstance(plain[tap], list) else [plain[tap]]
        others = mirrored[tap] if isinstance(mirrored[tap], list) else [mirrored[tap]]
        whole = len(levels) - getattr(field, "truncated", 0)
        for level, other in list(zip(levels, others, strict=True))[:whole]:
            torch.testing.assert_close(other.flip(3), level, rtol=1e-4, atol=1e-5)
            compared += 1
    assert compared > 12
    assert ("pool" in model.taps) == (base == 1.3)
