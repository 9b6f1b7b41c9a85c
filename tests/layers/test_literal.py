"""The literal layers and networks that the fast ones are held to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from secli.layers.hermite import basis_a, basis_b
from secli.layers.literal import LiteralConv, LiteralLift, literal_twin
from secli.layers.ses import SESConv, SESLift
from secli.models.building import build

BASIS = basis_b(9, (1.0, 1.6, 2.9), 4, 1.5, 3)
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
every_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)


def values_and_gradients(
    run: Callable[[Tensor], Tensor], x: Tensor, weights: list[nn.Parameter]
) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = run(x)
    probe = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * probe).sum(), [x, *weights])]


def assert_alike(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    """Relative to each norm, or to a thousandth of the largest (a gradient may be zero but for rounding)."""
    ours, theirs = [each.detach() for each in ours], [each.detach() for each in theirs]
    largest = max(float(b.norm()) for b in theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= tolerance * max(float(b.norm()), 1e-3 * largest)


@every_dtype
@pytest.mark.parametrize(("stride", "padding", "bias"), [(1, 4, True), (2, 0, False), (1, 2, True)])
def test_a_lift_is_its_literal_form(dtype: torch.dtype, stride: int, padding: int, bias: bool) -> None:
    layer = SESLift(2, 3, BASIS, stride, padding, bias, dtype=dtype)
    x, weights = torch.randn(2, 2, 13, 11, dtype=dtype), list(layer.parameters())
    literal = LiteralLift(layer)
    assert_alike(
        values_and_gradients(layer, x, weights), values_and_gradients(literal, x, weights), TOLERANCE[dtype]
    )


@every_dtype
@pytest.mark.parametrize("interaction", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding", "bias"), [(1, 4, True), (2, 0, False), (1, 2, True)])
def test_a_group_convolution_is_its_literal_form(
    dtype: torch.dtype, stride: int, padding: int, bias: bool, interaction: int
) -> None:
    layer = SESConv(2, 3, BASIS, interaction, stride, padding, bias, dtype=dtype)
    x, weights = torch.randn(2, 2, 3, 13, 11, dtype=dtype), list(layer.parameters())
    literal = LiteralConv(layer)
    assert_alike(
        values_and_gradients(layer, x, weights), values_and_gradients(literal, x, weights), TOLERANCE[dtype]
    )
    # the check can fail
    wrong = [each.flip(0) for each in values_and_gradients(literal, x, weights)]
    with pytest.raises(AssertionError):
        assert_alike(values_and_gradients(layer, x, weights), wrong, 0.1)


def test_the_formula_itself() -> None:
    """Loops straight from the paper, on one small case."""
    layer = SESConv(2, 2, basis_a(5, (0.8, 1.4), 2), 2, padding=2, dtype=torch.float64)
    kernels = torch.einsum(
        "ocib,bkyx->ocikyx", layer.weight, torch.from_numpy(basis_a(5, (0.8, 1.4), 2).padded())
    )
    assert layer.bias is not None
    x = torch.randn(1, 2, 2, 6, 6, dtype=torch.float64)
    padded = functional.pad(x, (2, 2, 2, 2))
    y = LiteralConv(layer)(x)
    for out in range(2):
        for k in range(2):
            for row, column in ((0, 0), (3, 5)):
                total = layer.bias[out]
                for j in range(2):
                    if k + j < 2:
                        window = padded[0, :, k + j, row : row + 5, column : column + 5]
                        total = total + (kernels[out, :, j, k] * window).sum()
                torch.testing.assert_close(y[0, out, k, row, column], total)


def test_it_is_one_convolution_on_the_full_support() -> None:
    layer = LiteralConv(SESConv(2, 3, BASIS, 2, padding=4))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, 2, 3, 10, 10))
    counts = {str(key): count for key, count in counter.get_flop_counts()["Global"].items()}
    assert counts["aten.convolution"] == 2 * 3 * (2 * 2 * 3) * 9**2 * 10 * 10


@every_dtype
@pytest.mark.parametrize("name", ["mnist_ses_scalar_28", "mnist_ses_vector_28"])
def test_a_network_is_its_literal_twin(name: str, dtype: torch.dtype) -> None:
    model = build(name, {"dropout": 0.0}).to(dtype)
    twin = literal_twin(model)
    assert twin is not None
    assert [name for name, _ in twin.named_parameters()] == [name for name, _ in model.named_parameters()]
    shared = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(one is other for one, other in shared)
    assert not any(isinstance(module, SESLift | SESConv) for module in twin.modules())
    weights, x = list(model.parameters()), torch.rand(4, 1, 28, 28, dtype=dtype)
    for training in (False, True):
        ours = values_and_gradients(model.train(training), x, weights)
        theirs = values_and_gradients(twin.train(training), x, weights)
        assert_alike(ours, theirs, 100 * TOLERANCE[dtype])
    statistics = zip(
        model.buffers(), [b for n, b in twin.named_buffers() if not n.endswith("full")], strict=False
    )
    assert all(one is not other for one, other in statistics)


def test_a_network_without_such_layers_has_no_twin() -> None:
    assert literal_twin(build("mnist_cnn_28")) is None
    assert isinstance(literal_twin(SESLift(1, 2, BASIS)), LiteralLift)
