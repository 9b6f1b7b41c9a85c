"""What acts on vectors by their magnitudes: the published functions, taken literally, and blind to angles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from secli.layers.vectors import Magnitude, VectorNorm, VectorPool

Golden = Callable[[str], Mapping[str, np.ndarray]]
Difference = Callable[[Any, Any], float]


def turn(x: Tensor, angle: float) -> Tensor:
    u, v = x.unbind(2)
    c, s = math.cos(angle), math.sin(angle)
    return torch.stack([c * u - s * v, s * u + c * v], dim=2)


def test_they_agree_with_the_golden_vectors(golden: Golden, difference: Difference) -> None:
    z = golden("sevf")
    field = torch.stack([torch.from_numpy(z["vec_u"]), torch.from_numpy(z["vec_v"])], dim=2)
    norm = VectorNorm(2)
    for module, key in ((VectorPool(2), "pool"), (norm, "norm")):
        u, v = module(field).unbind(2)
        assert difference(u, z[f"{key}_u"]) < 1e-5
        assert difference(v, z[f"{key}_v"]) < 1e-5
    assert difference(norm.running_var, z["norm_running_var"].reshape(-1)) < 1e-5
    # the check can fail: evaluation divides by something else
    assert difference(norm.eval()(field)[:, :, 0], z["norm_u"]) > 1e-3


@given(
    shape=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kernel=st.integers(1, 4),
    stride=st.sampled_from([None, 1, 3]),
    padded=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_longest_vector_of_each_window_goes_on(
    shape: tuple[int, int], kernel: int, stride: int | None, padded: bool, dtype: torch.dtype
) -> None:
    padding = kernel // 2 if padded else 0
    x = torch.randn(2, 3, 2, *shape, dtype=dtype)
    y = VectorPool(kernel, stride, padding)(x)
    step = stride or kernel
    for n in range(2):
        for c in range(3):
            for row in range(y.shape[3]):
                for column in range(y.shape[4]):
                    top, left = row * step - padding, column * step - padding
                    window = [
                        x[n, c, :, i, j]
                        for i in range(max(top, 0), min(top + kernel, shape[0]))
                        for j in range(max(left, 0), min(left + kernel, shape[1]))
                    ]
                    longest = max(window, key=lambda vector: float(vector.square().sum()))
                    assert torch.equal(y[n, c, :, row, column], longest)


def test_pooling_passes_the_gradient_to_the_longest_vector_only() -> None:
    x = torch.randn(1, 1, 2, 4, 4, requires_grad=True)
    VectorPool(4)(x).sum().backward()
    assert x.grad is not None
    longest = x.detach().square().sum(2).flatten().argmax()
    expected = torch.zeros(16)
    expected[longest] = 1
    assert torch.equal(x.grad.flatten(3)[0, 0, 0], expected)
    assert torch.equal(x.grad.flatten(3)[0, 0, 1], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_norm_divides_by_the_deviation_of_the_length(dtype: torch.dtype) -> None:
    norm = VectorNorm(3, dtype=dtype)
    x = torch.randn(4, 3, 2, 5, 6, dtype=dtype) * torch.tensor([0.1, 1, 7], dtype=dtype).view(3, 1, 1, 1)
    y = norm(x)
    running = []
    for c in range(3):
        lengths = [math.hypot(*pair) for pair in x[:, c].movedim(1, -1).reshape(-1, 2).tolist()]
        mean = sum(lengths) / len(lengths)
        squares = sum((length - mean) ** 2 for length in lengths)
        expected = x[:, c] / math.sqrt(squares / len(lengths) + 1e-5)
        torch.testing.assert_close(y[:, c], expected)
        running.append(0.5 * 1 + 0.5 * squares / (len(lengths) - 1))
    torch.testing.assert_close(norm.running_var, torch.tensor(running, dtype=dtype))
    evaluated = norm.eval()(x)
    assert norm.running_var.tolist() == pytest.approx(running)
    scale = torch.tensor(running, dtype=dtype).add(1e-5).sqrt().view(3, 1, 1, 1)
    torch.testing.assert_close(evaluated, x / scale)


def test_the_norm_learns_nothing_and_remembers_its_variance() -> None:
    norm = VectorNorm(3)
    assert not list(norm.parameters())
    assert set(norm.state_dict()) == {"running_var"}


def test_the_norms_gradient_is_that_of_the_formula() -> None:
    norm = VectorNorm(2, dtype=torch.float64)
    x = torch.randn(2, 2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (x,))


def test_one_vector_has_no_variance() -> None:
    with pytest.raises(ValueError, match="more than one vector per channel in training"):
        VectorNorm(2)(torch.rand(1, 2, 2, 1, 1))
    assert VectorNorm(2).eval()(torch.rand(1, 2, 2, 1, 1)).shape == (1, 2, 2, 1, 1)


@pytest.mark.parametrize("module", [VectorPool(3, 2, 1), VectorNorm(3)])
@given(angle=st.floats(-3, 3))
def test_they_commute_with_turning_every_vector(module: nn.Module, angle: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(module(turn(x, angle)), turn(module(x), angle), rtol=1e-6, atol=1e-6)


def test_norming_each_component_alone_would_not() -> None:
    x = torch.randn(2, 3, 2, 7, 6)
    alone = nn.BatchNorm3d(3, affine=False)  # the mean goes, which no turn leaves alone
    assert not torch.allclose(alone(turn(x + 1, 0.3)), turn(alone(x + 1), 0.3), atol=0.1)


def test_the_length_has_a_gradient_at_zero() -> None:
    x = torch.zeros(1, 1, 2, 2, 2, requires_grad=True)
    with torch.no_grad():
        x[0, 0, :, 0, 0] = torch.tensor([3.0, -4.0])
    y = Magnitude()(x)
    y.sum().backward()
    assert y.flatten().tolist() == [5, 0, 0, 0]
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0, 0, :, 0, 0], torch.tensor([0.6, -0.8]))
    assert not x.grad.flatten(3)[..., 1:].any()


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (4, 4, 2), (2, 1, 0)])
def test_ties_in_a_window_go_to_the_first_and_nothing_else_changes(
    kernel: int, stride: int, padding: int
) -> None:
    x = torch.randn(2, 3, 2, 11, 12, generator=torch.Generator().manual_seed(5)).double()
    first = VectorPool(kernel, stride, padding, ties="first")
    torch.testing.assert_close(first(x), VectorPool(kernel, stride, padding)(x), rtol=2e-4, atol=2e-3)
    # vectors of one length, each at another angle
    angles = torch.arange(144.0).view(1, 1, 12, 12) / 50
    for dtype in (torch.float32, torch.float64):
        ring = torch.stack([angles.cos(), angles.sin()], dim=2).to(dtype)
        assert torch.equal(first(ring)[0, 0, :, 1, 1], ring[0, 0, :, stride - padding, stride - padding])
