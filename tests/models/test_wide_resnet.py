"""The wide residual body: its arithmetic, its places, and what three families put into it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from secli.action.fields import Canvas, Field, Invariant, Plane, ScaleSpace
from secli.action.images import rescale
from secli.catalogue import MODELS
from secli.errors import InputError
from secli.layers.dss import DSSConv
from secli.layers.pooling import BatchNorm
from secli.layers.ses import SESConv, SESLift, SESPointwise
from secli.models.building import build, count_parameters
from secli.models.contract import StagedModel
from secli.models.entrance import chain
from secli.models.wide_resnet import ConvPosition, WideBlock, WideFamily, fan_out_normal, wide_resnet
from secli.models.wrn_dss import delta_
from secli.models.wrn_plain import conv, pointwise

NAMES = ["wrn_16_8", "wrn_16_8_ses_a", "wrn_16_8_ses_b", "wrn_16_8_ses_c", "wrn_16_8_dss"]
NARROW = {"widths": [3, 4, 6, 8], "in_channels": 1, "mean": 0.4, "std": 0.3}

every_name = pytest.mark.parametrize("name", NAMES)


def narrow(name: str, **options: Any) -> StagedModel:
    """A network of the same shape with few channels, for grey images of 32 pixels, in evaluation mode."""
    return build(name, {**NARROW, "image_size": 32, **options}).eval()


def blocks_of(model: nn.Module) -> list[WideBlock]:
    return [module for module in model.modules() if isinstance(module, WideBlock)]


def features(model: StagedModel, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        found = model.features(images)
    assert all(isinstance(tensor, Tensor) for tensor in found.values())
    return {tap: tensor for tap, tensor in found.items() if isinstance(tensor, Tensor)}


@pytest.mark.parametrize(
    ("name", "count"),
    list(zip(NAMES, [10_961_370, 10_961_370, 10_961_370, 10_979_802, 10_939_482], strict=True)),
)
def test_published_parameters(name: str, count: int) -> None:
    assert count_parameters(build(name)) == count
    assert MODELS[name].parameters == count


@pytest.mark.parametrize(
    ("name", "levels"),
    [(NAMES[0], None), *((name, [3, 3, 3, 3]) for name in NAMES[1:4]), (NAMES[4], [4, 3, 2, 2])],
)
def test_taps_have_the_shapes_and_levels_of_the_paper(name: str, levels: list[int] | None) -> None:
    model = narrow(name, in_channels=3, image_size=96)
    found = features(model, torch.rand(1, 3, 96, 96))
    for i, (tap, width, side) in enumerate(
        zip(("stem", "group1", "group2", "group3"), (3, 4, 6, 8), (96, 96, 48, 24), strict=True)
    ):
        stack = [] if levels is None else [levels[i]]
        assert list(found[tap].shape) == [1, width, *stack, side, side]
        field = model.taps[tap]
        assert isinstance(field, Plane if levels is None else ScaleSpace)
        assert not isinstance(field, ScaleSpace) or len(field.scales) == levels[i]  # type: ignore[index]
    assert list(found)[-1] == "logits"
    assert model.taps["logits"] == Invariant()


@every_name
@pytest.mark.parametrize("size", [24, 33])
def test_stages_in_a_row_give_the_logits_at_any_size(name: str, size: int) -> None:
    model = narrow(name, image_size=size)
    current = images = torch.rand(2, 1, size, size)
    found = features(model, images)
    with torch.no_grad():
        for tap, module in model.stages:
            current = module(current)
            assert torch.equal(current, found[tap])
            assert torch.isfinite(current).all()
        assert torch.equal(current, model(images))
    assert current.shape == (2, 10)


# where the cells lie


def symmetric(model: nn.Module) -> nn.Module:
    """Give every convolution one symmetric positive filter, in float64."""
    with torch.no_grad():
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and weight.ndim > 2:
                weight.fill_(0 if hasattr(module, "basis") else 1)
                if hasattr(module, "basis"):
                    weight[..., 0] = 1  # the Gaussian of the basis
    return model.double()


def seen_from(model: StagedModel, tap: str, size: int) -> tuple[float, int]:
    """Return the image coordinate of the centroid of what the middle cell of a tap sees, and the cell's index."""
    image = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    tensor = model.features(image)[tap]
    assert isinstance(tensor, Tensor)
    cell = tensor.shape[-1] // 2
    (gradient,) = torch.autograd.grad(tensor[..., cell, cell].sum(), image)
    mass = gradient[0, 0].sum(0)
    assert mass[0] == 0 == mass[-1], "the image is too small for what the cell sees"
    return float((mass * torch.arange(size)).sum() / mass.sum()), cell


@pytest.mark.parametrize("name", [NAMES[0], NAMES[2], NAMES[3], NAMES[4]])
@pytest.mark.parametrize("size", [200, 201])
def test_cells_lie_where_their_fields_say(name: str, size: int) -> None:
    options = {} if name == NAMES[0] else {"scale_pool": "mean"}
    model = symmetric(narrow(name, image_size=size, widths=[1, 1, 1, 1], **options))
    assert isinstance(model, StagedModel)
    for tap, stride in (("group1", 1.0), ("group2", 2.0), ("group3", 4.0)):
        field = model.taps[tap]
        assert isinstance(field, (Plane, ScaleSpace))
        assert field.stride == stride
        # an even side halved by windows about every other cell loses half a step at its end
        centred = stride == 1 or size % 2 == 1
        assert field.origin == (None if centred else 0.0)
        place, cell = seen_from(model, tap, size)
        assert place == pytest.approx(stride * cell, abs=1e-9)
        if not centred:
            cells = math.ceil(size / stride)
            assert abs(place - ((size - 1) / 2 + stride * (cell - (cells - 1) / 2))) > 0.4


# the block


def literal_block(block: WideBlock, x: Tensor, shared: bool) -> Tensor:
    def bn(norm: nn.Module, values: Tensor) -> Tensor:
        assert isinstance(norm, BatchNorm)
        shape = (1, -1, 1, 1)
        assert isinstance(norm.running_mean, Tensor)
        assert isinstance(norm.running_var, Tensor)
        scaled = (values - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
        return scaled * norm.weight.view(shape) + norm.bias.view(shape)

    active = bn(block.norm1, x).clamp(min=0)
    between = functional.conv2d(active, block.conv1.weight, stride=2, padding=1)  # type: ignore[arg-type]
    y = functional.conv2d(
        functional.dropout(bn(block.norm2, between).clamp(min=0), 0.4, block.dropout.training),
        block.conv2.weight,  # type: ignore[arg-type]
        padding=1,
    )
    assert isinstance(block.shortcut, nn.Conv2d)
    return y + functional.conv2d(active if shared else x, block.shortcut.weight, stride=2)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dropping", [True, False])
def test_a_block_is_its_formula(shared: bool, dropping: bool) -> None:
    family = WideFamily(stem=lambda i, o: nn.Conv2d(i, o, 3), conv=conv, shortcut=pointwise)
    block = WideBlock(family, ConvPosition(3, 5, 2, 2, 1, 1), 0.4, shared).double().eval()
    for norm in (block.norm1, block.norm2):
        for tensor in norm.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    block.dropout.train(dropping)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.manual_seed(1)
        ours = block(x)
        torch.manual_seed(1)
        torch.testing.assert_close(ours, literal_block(block, x, shared))
        torch.manual_seed(1)
        assert not torch.allclose(ours, literal_block(block, x, not shared))


def test_a_block_of_equal_widths_adds_its_input() -> None:
    second = blocks_of(narrow("wrn_16_8"))[1]
    assert second.shortcut is None
    x = torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        for parameter in second.conv2.parameters():
            parameter.zero_()
        assert torch.equal(second(x), x)


def test_dropout_stands_in_every_block_only() -> None:
    model = build("wrn_16_8", NARROW)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.3] * 6
    assert [block.dropout.p for block in blocks_of(build("wrn_16_8", {**NARROW, "dropout": 0.0}))] == [
        0.0
    ] * 6


def test_weights_are_drawn_with_the_fan_out() -> None:
    for layer, fan_out in (
        (nn.Conv2d(40, 60, 3, stride=2), 9 * 60),
        (SESPointwise(50, 70), 70),
        (DSSConv(30, 40, 3, 2.0, 4, interaction=2), 2 * 9 * 40),
    ):
        fan_out_normal(layer)
        weight = layer.weight
        assert isinstance(weight, Tensor)
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        # normal, not uniform: a few weights lie beyond three deviations
        assert 0.0005 < (weight.abs() > 3 * math.sqrt(2 / fan_out)).float().mean() < 0.006
        bias = layer.bias
        assert bias is None or not bias.any()
    model = build("wrn_16_8_ses_a")
    last = blocks_of(model)[-1].conv2
    assert isinstance(last, SESConv)
    assert last.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 512)), rel=0.01)


def columns(count: int, pools: bool) -> WideFamily:
    """A family of columns side by side in the channels, whose stride is a pooling: every hook that is not default."""

    def grouped(place: ConvPosition) -> nn.Module:
        plain = nn.Conv2d(count * place.inputs, count * place.outputs, 3, padding=1, bias=False, groups=count)
        return chain(conv=plain, pool=nn.MaxPool2d(place.stride)) if pools else plain

    def short(place: ConvPosition) -> nn.Module:
        plain = nn.Conv2d(count * place.inputs, count * place.outputs, 1, bias=False, groups=count)
        return chain(conv=plain, pool=nn.MaxPool2d(place.stride))

    class Largest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(x.shape[0], count, -1).amax(1)

    return WideFamily(
        stem=lambda inputs, outputs: nn.Conv2d(inputs, count * outputs, 3, padding=1, bias=False),
        conv=grouped,
        shortcut=short,
        norm=lambda width: BatchNorm(count * width),
        before_linear=Largest(),
        strided=lambda grid: grid.pooled(2),
    )


def test_families_may_have_columns_and_pool_instead_of_striding() -> None:
    model = wide_resnet(columns(3, pools=True), 1, 10, 0.5, 0.5, 32, 0.3, (2, 3, 4, 5)).eval()
    found = features(model, torch.rand(2, 1, 32, 32))
    assert [tuple(tensor.shape[1:]) for tensor in found.values()] == [
        (6, 32, 32),
        (9, 32, 32),
        (12, 16, 16),
        (15, 8, 8),
        (10,),
    ]
    assert list(model.taps.values()) == [Plane(), Plane(), Plane(2.0), Plane(4.0), Invariant()]
    assert [name for name, _ in model.named_parameters()][:5] == [
        "stem.conv.weight",
        "group1.block1.norm1.weight",
        "group1.block1.norm1.bias",
        "group1.block1.conv1.conv.weight",
        "group1.block1.norm2.weight",
    ]


def test_places_say_group_block_and_layer() -> None:
    seen: list[ConvPosition] = []

    def recording(place: ConvPosition) -> nn.Module:
        seen.append(place)
        return conv(place)

    family = WideFamily(stem=lambda i, o: nn.Conv2d(i, o, 3, padding=1), conv=recording, shortcut=pointwise)
    wide_resnet(family, 1, 10, 0.5, 0.5, 32, 0.3, (2, 3, 4, 5))
    assert seen[:4] == [(2, 3, 1, 1, 1, 1), (3, 3, 1, 1, 1, 2), (3, 3, 1, 1, 2, 1), (3, 3, 1, 1, 2, 2)]
    assert seen[8] == (4, 5, 2, 3, 1, 1)
    assert [place.opens for place in seen] == [True, False, False, False] * 3
    assert [place.stride for place in seen] == [1, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1]


# steerable filters


@pytest.mark.parametrize(("variant", "smallest"), [("a", 0.9), ("b", 0.9), ("c", 1.1)])
def test_published_scales_and_supports(variant: str, smallest: float) -> None:
    layers = [m for m in narrow(f"wrn_16_8_ses_{variant}").modules() if isinstance(m, (SESLift, SESConv))]
    assert len(layers) == 13
    for layer in layers:
        assert layer.scales == pytest.approx((smallest, 1.41 * smallest, 1.41**2 * smallest))
        assert layer.sides == (3, 5, 7)
        assert layer.weight.shape[-1] == 9
        assert layer.bias is None
    lifts = [isinstance(layer, SESLift) for layer in layers]
    assert [i for i, lift in enumerate(lifts) if lift] == ([0, 5, 9] if variant == "b" else [0])
    mixing = [layer.interaction for layer in layers if isinstance(layer, SESConv)]
    assert mixing == ([2] + [1] * 11 if variant == "c" else [1] * len(mixing))


@pytest.mark.parametrize(("variant", "reached"), [("a", [2]), ("c", [1, 2])])
def test_only_the_interaction_lets_levels_know_of_each_other(variant: str, reached: list[int]) -> None:
    """What the top level of the stem changes behind group 1: the truncated levels are these, no others."""
    model = narrow(f"wrn_16_8_ses_{variant}")
    stem = features(model, torch.rand(1, 1, 32, 32))["stem"]
    other = stem.clone()
    other[:, :, 2] += torch.rand(32, 32)
    group = model.get_submodule("group1")
    with torch.no_grad():
        changed = (group(stem) - group(other)).abs().amax((0, 1, 3, 4))
    assert [k for k in range(3) if changed[k] > 1e-4] == reached
    field = model.taps["group1"]
    assert isinstance(field, ScaleSpace)
    assert field.truncated == len(reached) - 1


@pytest.mark.parametrize("name", ["wrn_16_8_ses_a", "wrn_16_8_ses_b", "wrn_16_8_disco"])
def test_where_the_scale_axis_is_pooled_and_lifted_again(name: str) -> None:
    """Inside the first convolution of groups 2 and 3: what stands before it and beside it sees every level."""
    x = torch.randn(1, 4, 3, 8, 8)
    for block in blocks_of(narrow(name, widths=[4, 4, 4, 4])):
        norm1, conv1, shortcut = block.norm1, block.conv1, block.shortcut
        with torch.no_grad():
            assert norm1(x).shape == x.shape
            pooled = torch.allclose(conv1(x.amax(2, keepdim=True).expand_as(x)), conv1(x), atol=1e-6)
            assert pooled is (name != "wrn_16_8_ses_a" and shortcut is not None and conv1(x).shape[-1] == 4)
            for level in range(3 if shortcut is not None else 0):
                assert shortcut is not None
                alone = shortcut(x[:, :, level : level + 1])
                torch.testing.assert_close(shortcut(x)[:, :, level : level + 1], alone)


@every_name
def test_the_scale_axis_goes_where_it_is_published_to(name: str) -> None:
    head = [key for key, _ in build(name, NARROW).get_submodule("logits").named_children()]
    end = ["average", "classify"]
    if name == "wrn_16_8":
        assert head == ["norm", "relu", *end]
    elif name == "wrn_16_8_dss":
        assert head == ["norm", "relu", "before_average", *end]
    else:
        assert head == ["before_norm", "norm", "relu", *end]


# deep scale spaces


def test_which_scale_convolutions_mix_levels() -> None:
    layers = [module for module in narrow("wrn_16_8_dss").modules() if isinstance(module, DSSConv)]
    assert [layer.interaction for layer in layers] == [1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1]
    assert [layer.levels for layer in layers] == [4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2]
    assert [layer.out_levels for layer in layers] == [4, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2]
    assert [layer.stride for layer in layers] == [1] * 5 + [2] + [1] * 3 + [2] + [1] * 3
    fields = narrow("wrn_16_8_dss", base=1.5).taps
    assert fields["group2"] == ScaleSpace((1.0, 1.5), base_blur=0.5, stride=2.0, origin=0.0)


def test_no_level_is_fed_by_fewer_terms() -> None:
    """More levels in the lift change nothing in the levels that are there."""
    short, long = narrow("wrn_16_8_dss"), narrow("wrn_16_8_dss", levels=5)
    long.load_state_dict(short.state_dict())
    images = torch.rand(1, 1, 32, 32)
    first, second = features(short, images), features(long, images)
    for tap in ("stem", "group1", "group2", "group3"):
        torch.testing.assert_close(first[tap], second[tap][:, :, : first[tap].shape[2]])


@given(
    inputs=st.integers(1, 12),
    outputs=st.integers(1, 12),
    terms=st.integers(0, 3),
    size=st.sampled_from([1, 3]),
)
def test_delta_is_its_formula(inputs: int, outputs: int, terms: int, size: int) -> None:
    axes = [terms] if terms else []
    weight = delta_(torch.full((outputs, inputs, *axes, size, size), math.nan))
    g = math.gcd(inputs, outputs)
    for b in range(outputs):
        for a in range(inputs):
            kernel = weight[b, a].clone()
            if math.floor(a * g / inputs) == math.floor(b * g / outputs):
                for term in kernel if terms else [kernel]:
                    assert term[size // 2, size // 2].item() == pytest.approx(g / outputs)
                    term[size // 2, size // 2] = 0
            assert (kernel.abs() <= 0.01).all()


def test_delta_starts_every_convolution_near_the_identity() -> None:
    layers = [m for m in build("wrn_16_8_dss").modules() if isinstance(m, (DSSConv, SESPointwise))]
    assert len(layers) == 16
    for layer in layers:
        outputs, inputs = layer.weight.shape[:2]
        middle = layer.weight.shape[-1] // 2
        centre = layer.weight.detach()[..., middle, middle]
        passing = (centre - math.gcd(inputs, outputs) / outputs).abs() < 1e-6
        assert (passing.sum(1) == inputs // math.gcd(inputs, outputs)).all()
        assert layer.weight.abs().median().item() == pytest.approx(0.005, rel=0.1)


# laws


def spots(size: int, count: int = 2) -> Tensor:
    """Smooth pictures on black: sums of Gaussian spots near the middle."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.arange(size) - (size - 1) / 2
    images = torch.zeros(count, 1, size, size)
    for n in range(count):
        for _ in range(12):
            y, x, sigma = (torch.rand(3, generator=generator) - 0.5) * torch.tensor([size / 2, size / 2, 0])
            sigma = 1.5 + 3 * torch.rand(1, generator=generator)
            spot = torch.outer(
                (-((grid - y) ** 2) / 2 / sigma**2).exp(), (-((grid - x) ** 2) / 2 / sigma**2).exp()
            )
            images[n, 0] += (torch.rand(1, generator=generator) - 0.5) * spot
    return images


def error(model: StagedModel, tap: str, field: Field, factor: float, size: int) -> float:
    """‖L_s Φ(f) − Φ(L_s f)‖² / ‖L_s Φ(f)‖², the field's masks heeded, Φ of the black picture subtracted."""
    images = spots(size)
    black = features(model, torch.zeros(1, 1, size, size))[tap]
    blur = max(0.5, field.base_blur)
    moved = field.act(features(model, images)[tap] - black, factor, Canvas(size, size, blur))
    shrunk = features(model, rescale(images, factor, blur=blur))[tap] - black
    left = moved.features[0]
    mask = torch.ones_like(left) if moved.masks[0] is None else moved.masks[0].expand_as(left).float()
    return float((mask * (left - shrunk) ** 2).sum() / (mask * left**2).sum())


@pytest.mark.parametrize(
    ("name", "factor", "least"), [("wrn_16_8_ses_a", 1 / 1.41, 0.6), ("wrn_16_8_dss", 0.5, 0.02)]
)
@pytest.mark.parametrize("tap", ["stem", "group1"])
def test_taps_obey_their_field_better_than_a_plane(name: str, factor: float, least: float, tap: str) -> None:
    """Fine detail, in the middle: on what is smooth, all levels of the small steerable filters see the same."""
    right, wrong = 0.0, 0.0
    for seed in range(3):
        model = build(name, {**NARROW, "image_size": 64, "mean": 0.0, "std": 1.0}, seed).eval()
        field = model.taps[tap]
        assert isinstance(field, ScaleSpace)
        right += error(model, tap, field, factor, 64)
        wrong += error(model, tap, Plane(), factor, 64)
    assert right < least * wrong


# learning


def bars(size: int) -> Tensor:
    grid = torch.arange(size) - (size - 1) / 2
    angles = torch.arange(8) * math.pi / 8
    distance = angles.cos().view(-1, 1, 1) * grid.view(1, -1, 1) + angles.sin().view(-1, 1, 1) * grid
    return (distance.abs() < 2).float().unsqueeze(1)


@every_name
def test_every_parameter_learns_and_a_few_steps_lower_the_loss(name: str) -> None:
    model = narrow(name, widths=[8, 8, 12, 16], image_size=24, dropout=0.0).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    losses = []
    for _ in range(10):
        loss = functional.cross_entropy(model(bars(24)), torch.arange(8))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and p.grad.any() for p in model.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.6 * losses[0], losses


@every_name
def test_in_bfloat16_and_float64(name: str) -> None:
    model = narrow(name)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            low = model(images)
        torch.testing.assert_close(low.float(), model(images), rtol=0.2, atol=0.2)
        precise = narrow(name).double()(images.double())
        torch.testing.assert_close(precise.float(), model(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wrn_16_8", {"widths": [16, 128, 256]}, "widths = [16, 128, 256]:"),
        ("wrn_16_8", {"widths": [16, 128, 256, 0]}, "input should be greater than or equal to 1"),
        ("wrn_16_8", {"image_size": 8}, "image_size = 8: input should be greater than or equal to 16"),
        ("wrn_16_8", {"in_channels": 1}, "mean has 3 values for 1 channels; give one per channel"),
        ("wrn_16_8_ses_a", {"variant": "d"}, "variant = 'd': input should be 'a', 'b' or 'c'"),
        ("wrn_16_8_ses_c", {"levels": 1}, "interaction must be 1 to 1 (the levels), not 2"),
        ("wrn_16_8_ses_a", {"size": 6}, "the kernel size must be odd and positive, not 6"),
        ("wrn_16_8_dss", {"levels": 2}, "2 convolutions with interaction 2 leave no level of 2"),
    ],
)
def test_bad_options_are_one_line_that_names_them(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
