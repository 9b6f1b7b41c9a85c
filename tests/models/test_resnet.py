"""ResNet-50 as a deep scale space: its shape, its places, and what its options do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secli.action.fields import Canvas, Field, Invariant, Plane, ScaleSpace
from secli.action.images import rescale
from secli.catalogue import MODELS
from secli.errors import InputError
from secli.layers.deform_dss import DeformableDSSConv
from secli.layers.dss import DSSConv
from secli.layers.pooling import BatchNorm
from secli.layers.ses import SESPointwise
from secli.models.building import build, count_parameters
from secli.models.contract import StagedModel
from secli.models.resnet import Bottleneck

NAMES = ["dss_resnet50", "deform_dss_resnet50"]
TAPS = ["lift", "stem", "group1", "group2", "group3", "group4", "pool", "logits"]

every_name = pytest.mark.parametrize("name", NAMES)


def narrow(name: str, **options: Any) -> StagedModel:
    """A network of the same depth with few channels, in evaluation mode."""
    return build(name, {"channels": 2, **options}).eval()


def features(model: StagedModel, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        found = model.features(images)
    return {tap: tensor for tap, tensor in found.items() if isinstance(tensor, Tensor)}


def expected_parameters(n: int, inputs: int, classes: int, interaction: int, groups: int | None) -> int:
    """Count from the published architecture: 3, 4, 6, 3 bottlenecks of widths n, 2n, 4n, 8n."""

    def spatial(channels: int, width: int, each: int | None) -> int:
        offsets = 0 if each is None else 2 * 9 * each * (9 * channels + 1)
        return 9 * interaction * channels * width + offsets

    total = spatial(inputs, n, None if groups is None else 1) + 2 * n
    channels = n
    for group, count in enumerate((3, 4, 6, 3)):
        width = n * 2**group
        for block in range(count):
            total += channels * width + 2 * width + spatial(width, width, groups) + 2 * width
            total += width * 4 * width + 8 * width
            if block == 0:
                total += channels * 4 * width + 8 * width
            channels = 4 * width
    return total + channels * classes + classes


@pytest.mark.parametrize(("name", "groups"), [(NAMES[0], None), (NAMES[1], 1)])
def test_parameters(name: str, groups: int | None) -> None:
    assert (
        count_parameters(build(name)) == expected_parameters(64, 1, 10, 1, groups) == MODELS[name].parameters
    )
    other = {"channels": 4, "in_channels": 3, "classes": 7, "interaction": 2}
    assert count_parameters(build(name, other)) == expected_parameters(4, 3, 7, 2, groups)
    if groups is not None:
        count = expected_parameters(4, 3, 7, 2, 2)
        assert count_parameters(build(name, {**other, "deformable_groups": 2})) == count


def test_without_a_scale_axis_it_counts_as_resnet50_does() -> None:
    """25 557 032 parameters with 1000 classes and a 7×7 stem of three channels (He et al. 2016, torchvision)."""
    ours = expected_parameters(64, 3, 1000, 1, None)
    assert ours + (7 * 7 - 3 * 3) * 3 * 64 == 25_557_032


@every_name
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (41, 1)])
def test_taps_have_the_shapes_of_their_fields(name: str, size: int, channels: int) -> None:
    model = narrow(name, image_size=size, in_channels=channels, levels=3)
    images = torch.rand(2, channels, size, size)
    found = features(model, images)
    assert list(found) == TAPS == list(model.taps)
    side = size
    for tap, width in zip(TAPS[:6], (channels, 2, 8, 16, 32, 64), strict=True):
        if tap in ("group2", "group3", "group4"):
            side = (side + 1) // 2
        assert found[tap].shape == (2, width, 3, side, side)
        field = model.taps[tap]
        assert isinstance(field, ScaleSpace)
        assert (field.scales, field.base_blur, field.truncated) == ((1.0, 2.0, 4.0), 0.5, 0)
        assert field.stride == {"group2": 2, "group3": 4, "group4": 8}.get(tap, 1)
    assert found["pool"].shape == (2, 64, side, side)
    assert found["logits"].shape == (2, 10)
    assert model.taps["logits"] == Invariant()
    current = images
    with torch.no_grad():
        for tap, module in model.stages:
            current = module(current)
            assert torch.equal(current, found[tap])
        assert torch.equal(model(images), current)


@pytest.mark.parametrize("size", [176, 177])
@every_name
def test_cells_lie_where_their_fields_say(name: str, size: int) -> None:
    """All filters symmetric and positive: the centroid of what a cell sees is its place."""
    model = narrow(name, image_size=size, levels=2, base=1.5, channels=1, scale_pool="mean").double()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 2 and "offset" not in key:
                parameter.fill_(1 / parameter[0].numel())
    image = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    found = model.features(image)
    for tap, stride in (("stem", 1), ("group2", 2), ("group3", 4), ("group4", 8), ("pool", 8)):
        field, tensor = model.taps[tap], found[tap]
        assert isinstance(field, (Plane, ScaleSpace))
        assert isinstance(tensor, Tensor)
        centred = stride == 1 or (size - 1) % stride == 0
        assert (field.stride, field.origin) == (stride, None if centred else 0.0)
        cell = tensor.shape[-1] // 2
        (gradient,) = torch.autograd.grad(tensor[..., cell, cell].sum(), image, retain_graph=True)
        mass = gradient[0, 0].sum(0)
        assert mass[0] == 0 == mass[-1], "the image is too small for what the cell sees"
        place = float((mass * torch.arange(size)).sum() / mass.sum())
        assert place == pytest.approx(stride * cell, abs=1e-6)


def test_a_block_is_its_formula() -> None:
    block = Bottleneck(3, 2, 2, lambda i, o, stride: DSSConv(i, o, 3, 2.0, 2, stride=stride)).double().eval()
    for module in block.modules():
        if isinstance(module, BatchNorm):
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.uniform_(0.5, 1.5)

    def bn(norm: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(norm, BatchNorm)
        assert isinstance(norm.running_mean, Tensor)
        assert isinstance(norm.running_var, Tensor)
        mean, variance, weight, bias = (
            values.view(1, -1, 1, 1)
            for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    x = torch.randn(2, 3, 2, 9, 9, dtype=torch.float64)
    shortcut = block.shortcut
    assert isinstance(shortcut, nn.Sequential)
    project, norm = shortcut
    assert isinstance(project, SESPointwise)
    with torch.no_grad():
        ours = block(x)
        for level, dilation in enumerate((1, 2)):
            plane = x[:, :, level]
            y = bn(block.norm1, functional.conv2d(plane, block.conv1.weight)).clamp(min=0)
            kernel = block.conv2.weight[:, :, 0]
            y = functional.conv2d(y, kernel, stride=2, padding=dilation, dilation=dilation)
            y = bn(block.norm3, functional.conv2d(bn(block.norm2, y).clamp(min=0), block.conv3.weight))
            y = y + bn(norm, functional.conv2d(plane, project.weight, stride=2))
            torch.testing.assert_close(ours[:, :, level], y.clamp(min=0))


@every_name
def test_every_3x3_is_a_scale_convolution_and_every_1x1_shared(name: str) -> None:
    options = {"base": 1.5, "dilation": "exact", "levels": 3}
    model = narrow(name, **options)
    spatial = [m for m in model.modules() if isinstance(m, DSSConv) and m.size == 3]
    main = [m for m in spatial if type(m) in (DSSConv, DeformableDSSConv)]
    assert len(main) == 17
    assert all(layer.dilations == (1, 1.5, 2.25) for layer in main)
    assert all(isinstance(layer, DeformableDSSConv) for layer in main) is (name == NAMES[1])
    assert sum(isinstance(m, SESPointwise) for m in model.modules()) == 2 * 16 + 4
    assert not any(isinstance(m, (nn.Conv2d, nn.Conv3d)) for m in model.modules())


def test_interaction_truncates_one_level_per_convolution() -> None:
    model = narrow("dss_resnet50", interaction=2, levels=6, base=1.2)
    truncated = {tap: field.truncated for tap, field in model.taps.items() if isinstance(field, ScaleSpace)}
    assert truncated == {"lift": 0, "stem": 1, "group1": 4, "group2": 6, "group3": 6, "group4": 6}
    more = narrow("dss_resnet50", interaction=2, levels=8, base=1.2)
    more.load_state_dict(model.state_dict())
    short, long = (features(each, torch.rand(1, 1, 28, 28).fill_(0.3).tril()) for each in (model, more))
    # a longer stack changes nothing below the truncated levels, and all of those
    for tap, cut in (("stem", 1), ("group1", 4)):
        known = 6 - cut
        torch.testing.assert_close(short[tap][:, :, :known], long[tap][:, :, :known])
        for k in range(known, 6):
            assert not torch.allclose(short[tap][:, :, k], long[tap][:, :, k], atol=1e-4), (tap, k)


def test_the_deformable_one_starts_as_the_other() -> None:
    plain, deformable = narrow("dss_resnet50"), narrow("deform_dss_resnet50")
    weights = {key: value for key, value in deformable.state_dict().items() if "offset" not in key}
    plain.load_state_dict(weights)
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(plain(images), deformable(images), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        for key, parameter in deformable.named_parameters():
            if "offset" in key:
                parameter.normal_(0, 0.5)
    assert not torch.allclose(plain(images), deformable(images), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("offsets", ["absolute", "scaled"])
def test_offsets_and_groups_reach_the_layers(offsets: str) -> None:
    model = narrow("deform_dss_resnet50", channels=4, offsets=offsets, deformable_groups=4)
    layers = [module for module in model.modules() if isinstance(module, DeformableDSSConv)]
    assert [layer.offsets for layer in layers] == [offsets] * 17
    assert [layer.groups for layer in layers] == [1] + [4] * 16
    assert layers[0].offset.dilations == ((1, 1, 1, 1) if offsets == "absolute" else (1, 2, 4, 8))


def test_scale_pool_option_changes_the_network() -> None:
    images = torch.rand(1, 1, 28, 28)
    found = {how: features(narrow("dss_resnet50", scale_pool=how), images) for how in ("max", "mean")}
    last = found["max"]["group4"]
    torch.testing.assert_close(found["max"]["pool"], last.amax(2))
    torch.testing.assert_close(found["mean"]["pool"], last.mean(2))


def error(model: StagedModel, tap: str, field: Field, images: Tensor) -> float:
    """‖L_s Φ(f) − Φ(L_s f)‖² / ‖L_s Φ(f)‖² at s = 1/2, the field's masks heeded, Φ of the black picture subtracted."""
    size = images.shape[-1]
    current = torch.cat([torch.zeros_like(images), images, rescale(images, 0.5)])
    with torch.no_grad():
        for reached, module in model.stages:
            current = module(current)
            if reached == tap:
                break
    black, seen, right = current.chunk(3)
    moved = field.act(seen - black, 0.5, Canvas(size, size))
    left, right = moved.features[0], right - black
    mask = torch.ones_like(left) if moved.masks[0] is None else moved.masks[0].expand_as(left).float()
    return float((mask * (left - right) ** 2).sum() / (mask * left**2).sum())


@every_name
def test_taps_obey_their_field_better_than_a_plane(name: str) -> None:
    size = 64
    grid = torch.arange(size) - (size - 1) / 2
    rings = torch.cos((grid[:, None] ** 2 + 2 * grid[None, :] ** 2).sqrt() / 2)
    window = torch.outer(torch.exp(-((grid / 12) ** 2)), torch.exp(-((grid / 12) ** 2)))
    images = (rings * window).view(1, 1, size, size)
    model = narrow(name, image_size=size, channels=4, mean=0.0, std=1.0)
    for tap in ("lift", "stem", "group1"):
        field = model.taps[tap]
        assert error(model, tap, field, images) < 0.1 * error(model, tap, Plane(), images), tap


@every_name
def test_every_parameter_learns_and_a_few_steps_lower_the_loss(name: str) -> None:
    model = build(name, {"channels": 4, "levels": 2, "image_size": 24})
    images = torch.rand(8, 1, 24, 24)
    # not SGD: on eight pictures the gradients of fifty layers are as large as those of a plain ResNet-50
    optimiser = torch.optim.Adam(model.parameters(), lr=0.001)
    losses = []
    for step in range(10):
        loss = functional.cross_entropy(model(images), torch.arange(8))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if step == 0:
            assert all(p.grad is not None and p.grad.any() for p in model.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.6 * losses[0], losses


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dss_resnet50", {"interaction": 5}, "interaction must be 1 to 4 (the levels), not 5"),
        ("dss_resnet50", {"base": 1}, "base = 1: input should be greater than 1"),
        ("dss_resnet50", {"offsets": "scaled"}, "unknown key 'offsets'"),
        ("deform_dss_resnet50", {"offsets": "relative"}, "input should be 'absolute' or 'scaled'"),
        (
            "deform_dss_resnet50",
            {"deformable_groups": 5},
            "deformable groups 5 do not divide the 64 input channels",
        ),
        ("dss_resnet50", {"image_size": 8}, "image_size = 8: input should be greater than or equal to 16"),
    ],
)
def test_bad_options_are_one_line_that_names_them(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
