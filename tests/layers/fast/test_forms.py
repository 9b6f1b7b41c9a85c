"""Every faster form against the literal one: each is really taken, can be left out, and changes no value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secli.layers import ses
from secli.layers.fast import fourier_conv, running_max, wide_conv
from secli.layers.fast.chain import Chain
from secli.layers.fast.forms import FORMS, Form, in_use, without_forms
from secli.layers.fast.levels import as_planes, as_space, levels_first, stack_levels
from secli.layers.fast.projection import ScaleProjection
from secli.layers.hermite import basis_b
from secli.layers.literal import literal_twin
from secli.layers.pooling import BatchNorm, ScalePool, SpatialPool
from secli.layers.ses import SESConv, SESLift, SESPointwise
from secli.models.building import build
from tests.layers.test_literal import assert_alike, every_dtype, values_and_gradients

WIDE = basis_b(15, (1.5, 2.6, 4.5), 4, 1.5, 3)


def network() -> nn.Module:
    """Wide enough, in channels and kernels, for every form to pay."""
    return Chain(
        lift=SESLift(1, 8, WIDE, padding=7),
        relu=nn.ReLU(),
        pool=SpatialPool(2),
        norm=BatchNorm(8),
        mix=SESPointwise(8, 32),
        last=ScaleProjection(SESConv(32, 64, WIDE, 2, padding=7), ScalePool("max")),
    )


@every_dtype
@pytest.mark.parametrize("left_out", [None, *FORMS])
@pytest.mark.parametrize("training", [True, False])
def test_no_form_changes_a_value_or_a_gradient(
    left_out: Form | None, dtype: torch.dtype, training: bool
) -> None:
    torch.manual_seed(0)
    model = network().to(dtype).train(training)
    with torch.no_grad():
        model(torch.rand(3, 1, 28, 28, dtype=dtype))  # statistics of a batch norm that are not the first ones
    twin = literal_twin(model)
    assert twin is not None
    x, weights = torch.rand(3, 1, 28, 28, dtype=dtype), list(model.parameters())
    theirs = values_and_gradients(twin, x, weights)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    with without_forms(*([] if left_out is None else [left_out])):
        assert_alike(values_and_gradients(model, x, weights), theirs, tolerance)
        with torch.no_grad():
            torch.testing.assert_close(model(x), theirs[0], rtol=tolerance, atol=tolerance)
    # the check can fail
    with torch.no_grad():
        weights[0][0] += 0.1
    with pytest.raises(AssertionError):
        assert_alike(values_and_gradients(model, x, weights), theirs, tolerance)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Which forms a pass goes through, told by the functions that carry them."""
    seen: set[str] = set()

    def watch(module: object, name: str, form: str, told: Callable[..., bool]) -> None:
        original = getattr(module, name)

        def watched(*arguments: object, **named: object) -> object:
            result = original(*arguments, **named)
            if told(result, *arguments):
                seen.add(form)
            return result

        monkeypatch.setattr(module, name, watched)

    always = lambda *_: True  # noqa: E731
    watch(wide_conv, "fourier_conv2d", "fourier", always)
    watch(wide_conv._WideConvolution, "apply", "wide-gradient", always)
    watch(running_max._NeighbourMax, "apply", "running-max", always)
    watch(running_max._Larger, "apply", "running-max", always)
    watch(ses, "stack_levels", "levels-first", lambda y, *_: levels_first(y))
    watch(functional, "relu", "pool-first", lambda y, *_: y.shape[-1] == 14)
    watch(ses, "plain_conv2d", "cropped-kernels", lambda _, x, kernel, *rest: kernel.shape[-1] < WIDE.size)
    return seen


def test_each_form_is_taken_where_it_pays_and_left_out_when_asked(taken: set[str]) -> None:
    model, x = network(), torch.rand(2, 1, 28, 28)
    in_training = set(FORMS) - {"kept-kernels"}
    model(x)
    assert taken == in_training
    for form in in_training:
        taken.clear()
        with without_forms(form):
            model(x)
        assert form not in taken
        assert in_use(form)


def test_kept_kernels_can_be_left_out() -> None:
    layer = SESLift(1, 2, WIDE, padding=7).eval()
    with torch.no_grad():
        assert layer.kernels()[0] is layer.kernels()[0]
        with without_forms("kept-kernels"):
            assert layer.kernels()[0] is not layer.kernels()[0]


def test_an_unknown_form_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="unknown form 'fuorier'; known: cropped-kernels, "),
        without_forms("fuorier"),
    ):
        pass


# ---- levels first


def test_levels_lie_one_behind_the_other() -> None:
    levels = [torch.randn(2, 3, 4, 5) for _ in range(3)]
    space = stack_levels(levels)
    assert space.shape == (2, 3, 3, 4, 5)
    assert all(torch.equal(space[:, :, k], level) for k, level in enumerate(levels))
    assert levels_first(space)
    assert space[:, :, 1].is_contiguous()
    planes = as_planes(space)
    assert planes.data_ptr() == space.data_ptr()
    assert torch.equal(as_space(planes, 3), space)
    with without_forms("levels-first"):
        plain = stack_levels(levels)
    assert torch.equal(plain, space)
    assert not levels_first(plain)
    assert torch.equal(as_planes(plain), planes)


@pytest.mark.parametrize(
    "layer",
    [
        BatchNorm(3),
        BatchNorm(3).eval(),
        SpatialPool(2),
        SpatialPool(4, 2),
        SpatialPool(2, how="mean"),
        ScalePool("max"),
        ScalePool("mean"),
        SESPointwise(3, 2),
        SESPointwise(3, 2, stride=2),
        Chain(relu=nn.ReLU(), pool=SpatialPool(2)),
        Chain(relu=nn.ReLU(), pool=SpatialPool(2, how="mean")),
    ],
    ids=str,
)
def test_layers_give_the_same_in_either_order_of_memory(layer: nn.Module) -> None:
    layer = layer.double()
    x = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64)
    leading = stack_levels(x.unbind(2))
    assert levels_first(leading) > levels_first(x)
    weights = list(layer.parameters())
    results = []
    for each in (x, leading):
        each = each.detach().requires_grad_()
        y = layer(each)
        probe = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
        results.append([y, *torch.autograd.grad((y * probe).sum(), [each, *weights])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


# ---- pooling first


@pytest.mark.parametrize("ties", [True, False])
def test_a_maximum_and_relu_may_change_places(ties: bool) -> None:
    x = torch.randn(2, 3, 4, 8, 8)
    x = (x.round() if ties else x).requires_grad_()
    layer = Chain(relu=nn.ReLU(), pool=SpatialPool(2))
    ours = layer(x)
    with without_forms("pool-first"):
        theirs = layer(x)
    assert torch.equal(ours, theirs)
    probe = torch.randn_like(ours)
    assert torch.equal(*[torch.autograd.grad(y, x, probe)[0] for y in (ours, theirs)])


def test_a_mean_and_relu_may_not() -> None:
    x = torch.tensor([[[[-1.0, 1.0], [1.0, 1.0]]]])
    assert Chain(relu=nn.ReLU(), pool=SpatialPool(2, how="mean"))(x).item() == 0.75
    assert SpatialPool(2, how="mean")(x).relu().item() == 0.5


class Odd(nn.ReLU):
    """Another activation that happens to inherit."""


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ("relu pool", "pool relu"),
        ("norm relu pool norm relu pool", "norm pool relu norm pool relu"),
        ("relu relu pool relu", "relu pool relu relu"),
        ("relu pool pool norm", "pool pool relu norm"),
        ("relu mean pool", "relu mean pool"),
        ("odd pool relu", "odd pool relu"),
        ("pool", "pool"),
        ("", ""),
    ],
)
def test_only_neighbours_change_places(names: str, order: str) -> None:
    kinds: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "odd": Odd,
        "norm": nn.Identity,
        "pool": lambda: SpatialPool(2),
        "mean": lambda: SpatialPool(2, how="mean"),
    }
    modules = {f"{name}{i}": kinds[name]() for i, name in enumerate(names.split())}
    chain = Chain(**modules)
    known = {module: name.rstrip("0123456789") for name, module in modules.items()}
    assert [known[module] for module in chain.in_order()] == order.split()
    assert [name for name, _ in chain.named_children()] == list(modules)
    assert list(chain[1:]) == list(modules.values())[1:]
    with without_forms("pool-first"):
        assert list(chain.in_order()) == list(modules.values())
    chain.literal = True
    assert list(chain.in_order()) == list(modules.values())


# ---- the maximum over scale, never stacked


@pytest.mark.parametrize("gradients", [True, False])
def test_a_projection_is_the_maximum_over_the_stack(gradients: bool) -> None:
    lift = SESLift(2, 3, WIDE, padding=7)
    layer = ScaleProjection(lift, ScalePool("max"))
    x = torch.randn(2, 2, 20, 20)
    with torch.set_grad_enabled(gradients):
        assert torch.equal(layer(x), lift(x).amax(dim=2))
    assert torch.equal(ScaleProjection(lift, ScalePool("mean"))(x), lift(x).mean(dim=2))
    assert list(layer.state_dict()) == ["ses.weight", "ses.bias"]


def test_a_projection_of_one_scale_is_that_scale() -> None:
    lift = SESLift(2, 3, basis_b(5, (1.0,), 3), padding=2)
    x = torch.randn(2, 2, 8, 8)
    layer = ScaleProjection(lift, ScalePool("max"))
    assert torch.equal(layer(x), lift(x)[:, :, 0])
    with torch.no_grad():
        assert torch.equal(layer(x), lift(x)[:, :, 0])
    assert build("mnist_ses_scalar_28", {"levels": 1}).eval()(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_levels_that_were_given_are_not_written_on() -> None:
    levels = [torch.randn(2, 3) for _ in range(4)]
    before = [level.clone() for level in levels]
    with torch.no_grad():
        assert torch.equal(running_max.largest(iter(levels)), torch.stack(before).amax(0))
    assert all(torch.equal(a, b) for a, b in zip(levels, before, strict=True))


def test_who_watches_a_layer_of_a_projection_sees_it() -> None:
    layer = ScaleProjection(SESLift(2, 3, WIDE, padding=7), ScalePool("max"))
    seen: list[str] = []
    x = torch.randn(2, 2, 20, 20)
    alone = layer(x)
    for name, child in layer.named_children():
        child.register_forward_hook(lambda *_, name=name: seen.append(name))
    assert torch.equal(layer(x), alone)
    assert seen == ["ses", "pool"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.parametrize("name", ["mnist_ses_scalar_28", "mnist_ses_vector_28"])
def test_torch_s_transforms_go_through_a_network(name: str) -> None:
    """Its own operations step aside: gradient, derivative in a direction, and a batch of either, as autograd has it."""
    model = build(name, {"dropout": 0.0}).double().eval().requires_grad_(False)
    x, v = torch.rand(2, 1, 28, 28, dtype=torch.float64), torch.rand(2, 1, 28, 28, dtype=torch.float64)

    def total(images: Tensor) -> Tensor:
        logits: Tensor = model(images)
        return (logits**2).sum()

    given = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(given), given)
    torch.testing.assert_close(torch.func.grad(total)(x), expected)
    slope = torch.func.jvp(total, (x,), (v,))[1]
    torch.testing.assert_close(slope, (expected * v).sum())
    each = torch.vmap(torch.func.grad(lambda image: total(image[None])))(x)
    torch.testing.assert_close(each, expected)


def test_a_projection_keeps_less_for_the_backward_pass() -> None:
    layer = ScaleProjection(SESLift(1, 16, WIDE, padding=7), ScalePool("max"))
    x = torch.randn(2, 1, 32, 32)

    def kept() -> int:
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            layer(x)
        return total

    with without_forms("running-max"):
        stacked = kept()  # 64-bit indices
    assert stacked - kept() > 4 * 2 * 16 * 32 * 32


def test_networks_of_the_registry_take_the_forms() -> None:
    model = build("mnist_ses_vector_28", {})
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(ScaleProjection) == 1
    block = model.get_submodule("block1")
    assert isinstance(block, Chain)
    assert [type(module) for module in block.in_order()] == [SpatialPool, nn.ReLU, BatchNorm]
    assert [type(m) for m in build("mnist_ses_scalar_28", {}).modules()].count(ScaleProjection) == 3
    assert fourier_conv.pays(32, 63, 14, 14, 13, 6)
