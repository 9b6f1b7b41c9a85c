"""Maxima taken one after the other, against torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.nn import functional

from secli.layers.fast.running_max import neighbour_max
from secli.layers.pooling import ScalePool, SpatialPool


def grouped(x: torch.Tensor, axis: int, count: int) -> torch.Tensor:
    return x.reshape(*x.shape[:axis], -1, count, *x.shape[axis + 1 :])


DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


@given(
    axis=st.integers(0, 2),
    groups=st.integers(1, 3),
    count=st.integers(1, 5),
    dtype=DTYPES,
    ties=st.booleans(),
)
def test_values_and_gradients_are_those_of_torch(
    axis: int, groups: int, count: int, dtype: torch.dtype, ties: bool
) -> None:
    shape = [3, 4, 5]
    shape[axis] = groups * count
    x = torch.randn(shape).round() if ties else torch.randn(shape)
    x = x.to(dtype).requires_grad_()
    ours = neighbour_max(x, axis, count)
    theirs = grouped(x, axis, count).max(dim=axis + 1)
    assert torch.equal(ours, theirs.values)
    probe = torch.randn_like(ours)
    gradient = torch.autograd.grad(ours, x, probe)[0]
    # of equal neighbours the first has the gradient
    first = (grouped(x, axis, count) == theirs.values.unsqueeze(axis + 1)).float().argmax(axis + 1)
    expected = grouped(torch.zeros_like(x), axis, count)
    expected.scatter_(axis + 1, first.unsqueeze(axis + 1), probe.unsqueeze(axis + 1))
    assert torch.equal(gradient, expected.reshape(shape))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_its_derivatives_are_those_of_differences() -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: neighbour_max(t, 2, 2), (x,), check_forward_ad=True)


def test_what_is_not_a_number_stays_seen() -> None:
    x = torch.tensor([[1.0, float("nan"), 2.0, 3.0]])
    assert neighbour_max(x, 1, 2).isnan().tolist() == [[True, False]]


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_the_scale_axis_is_taken_away(levels: int) -> None:
    x = torch.randn(2, 3, levels, 6, 7, requires_grad=True)
    assert torch.equal(ScalePool("max")(x), x.amax(dim=2))
    assert ScalePool("max")(x.transpose(3, 4)).shape == (2, 3, 7, 6)


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 3, 4, 12, 6), (2, 3, 7, 6), (2, 3, 6, 9)])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (2, 0), (3, 0), (4, 2)])
def test_windows_are_those_of_torch(shape: tuple[int, ...], kernel: int, padding: int) -> None:
    x = torch.randn(shape, requires_grad=True)
    planes = x.flatten(1, -3)
    theirs = functional.max_pool2d(planes, kernel, padding=padding)
    ours = SpatialPool(kernel, padding)(x)
    assert torch.equal(ours.flatten(1, -3), theirs)
    probe = torch.randn_like(ours)
    gradients = [torch.autograd.grad(y, x, p)[0] for y, p in ((ours, probe), (theirs, probe.view_as(theirs)))]
    assert torch.equal(*gradients)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_a_direction_is_followed_without_a_graph() -> None:
    x, direction = torch.randn(1, 2, 3, 4, 4), torch.randn(1, 2, 3, 4, 4)
    with torch.no_grad(), forward_ad.dual_level():
        ad: Any = forward_ad
        dual = SpatialPool(2)(ScalePool("max")(ad.make_dual(x, direction)))
        tangent = ad.unpack_dual(dual).tangent
    chosen = x.max(dim=2)
    along = direction.gather(2, chosen.indices.unsqueeze(2)).squeeze(2)
    values, where = functional.max_pool2d(chosen.values, 2, return_indices=True)
    assert torch.equal(tangent, along.flatten(2).gather(2, where.flatten(2)).view_as(values))


def test_less_is_kept_for_the_backward_pass() -> None:
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    x = torch.randn(4, 8, 4, 16, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ScalePool("max")(x)
    assert sum(kept) == 3 * x[:, :, 0].numel()  # a byte for each comparison
