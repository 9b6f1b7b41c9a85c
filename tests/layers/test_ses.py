from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from secli.layers.bilinear import bilinear_operator
from secli.layers.hermite import Basis, basis_a, basis_b
from secli.layers.ses import SESConv, SESLift, SESPointwise

Golden = Callable[[str], Mapping[str, np.ndarray]]
Difference = Callable[[Any, Any], float]

DTYPES = {torch.float32: 2e-5, torch.float64: 1e-12}
GEOMETRY = {
    "height": st.integers(9, 14),
    "width": st.integers(9, 14),
    "stride": st.integers(1, 3),
    "padding": st.integers(0, 6),
    "dtype": st.sampled_from(list(DTYPES)),
    "seed": st.integers(0, 1000),
}


def full_kernels(weight: Tensor, basis: Basis) -> Tensor:
    """Σ_b w_b ψ_b at every scale, on the full zero-padded K×K grid: (…, S, K, K)."""
    return torch.einsum("...b,bsxy->...sxy", weight, torch.from_numpy(basis.padded()).to(weight.dtype))


def literal_lift(x: Tensor, layer: SESLift, basis: Basis) -> Tensor:
    kernels = full_kernels(layer.weight, basis)
    levels = [
        functional.conv2d(x, kernels[:, :, k], layer.bias, layer.stride, layer.padding)
        for k in range(len(basis.scales))
    ]
    return torch.stack(levels, dim=2)


def literal_conv(x: Tensor, layer: SESConv, basis: Basis) -> Tensor:
    kernels = full_kernels(layer.weight, basis)
    levels = []
    for k in range(len(basis.scales)):
        y = 0 if layer.bias is None else layer.bias.view(-1, 1, 1)
        for j in range(layer.interaction):
            if k + j < len(basis.scales):
                y = y + functional.conv2d(
                    x[:, :, k + j], kernels[:, :, j, k], None, layer.stride, layer.padding
                )
        levels.append(y)
    return torch.stack([level for level in levels if isinstance(level, Tensor)], dim=2)


@given(bias=st.booleans(), **GEOMETRY)
def test_lift_is_the_formula(
    height: int, width: int, stride: int, padding: int, dtype: torch.dtype, seed: int, bias: bool
) -> None:
    torch.manual_seed(seed)
    basis = basis_b(9, (1.0, 1.6, 2.9), 4, 1.5, 3)
    assert basis.sides == (3, 5, 9)  # a padding of 0 or 2 crops the image at the smaller scales
    layer = SESLift(2, 3, basis, stride, padding, bias, dtype=dtype)
    x = torch.randn(2, 2, height, width, dtype=dtype)
    torch.testing.assert_close(
        layer(x), literal_lift(x, layer, basis), rtol=DTYPES[dtype], atol=DTYPES[dtype]
    )


@given(interaction=st.integers(1, 3), bias=st.booleans(), **GEOMETRY)
def test_group_convolution_is_the_formula(
    height: int,
    width: int,
    stride: int,
    padding: int,
    dtype: torch.dtype,
    seed: int,
    bias: bool,
    interaction: int,
) -> None:
    torch.manual_seed(seed)
    basis = basis_b(9, (1.0, 1.6, 2.9), 4, 1.5, 3)
    layer = SESConv(2, 3, basis, interaction, stride, padding, bias, dtype=dtype)
    x = torch.randn(2, 2, 3, height, width, dtype=dtype)
    torch.testing.assert_close(
        layer(x), literal_conv(x, layer, basis), rtol=DTYPES[dtype], atol=DTYPES[dtype]
    )


def test_gradients_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    basis = basis_b(9, (1.0, 1.6, 2.9), 4, 1.5, 3)
    layer = SESConv(2, 3, basis, 2, padding=2, dtype=torch.float64)
    x = torch.randn(2, 2, 3, 10, 11, dtype=torch.float64, requires_grad=True)
    assert layer.bias is not None
    inputs = (x, layer.weight, layer.bias)
    ours = torch.autograd.grad(layer(x).square().sum(), inputs)
    theirs = torch.autograd.grad(literal_conv(x, layer, basis).square().sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def load(layer: torch.nn.Module, arrays: Mapping[str, np.ndarray], key: str) -> None:
    names = [name for name in ("weight", "bias") if f"{key}_{name}" in arrays]
    layer.load_state_dict({name: torch.from_numpy(arrays[f"{key}_{name}"]) for name in names})


@pytest.fixture
def golden_basis(golden: Golden) -> Basis:
    return basis_a(7, golden("ses_conv")["lift_scales"].tolist(), 3)


def test_lift_agrees_with_the_golden_vectors(
    golden: Golden, difference: Difference, golden_basis: Basis
) -> None:
    z = golden("ses_conv")
    layer = SESLift(3, 4, golden_basis, padding=3)
    load(layer, z, "lift")
    assert difference(layer(torch.from_numpy(z["lift_x"])), z["lift_y"]) < 1e-5


@pytest.mark.parametrize("interaction", [1, 2, 3])
def test_group_convolution_agrees_with_the_golden_vectors(
    golden: Golden, difference: Difference, golden_basis: Basis, interaction: int
) -> None:
    z = golden("ses_conv")
    layer = SESConv(4, 5, golden_basis, interaction, padding=3)
    load(layer, z, f"group{interaction}")
    y = layer(torch.from_numpy(z[f"group{interaction}_x"]))
    assert difference(y, z[f"group{interaction}_y"]) < 1e-5
    # the check can fail: levels in another order are another function
    assert difference(y.flip(2), z[f"group{interaction}_y"]) > 0.1


def test_strides_agree_with_the_golden_vectors(
    golden: Golden, difference: Difference, golden_basis: Basis
) -> None:
    z = golden("ses_conv")
    layer = SESConv(4, 5, golden_basis, 1, stride=2, padding=3, bias=False)
    load(layer, z, "group1_stride2")
    assert difference(layer(torch.from_numpy(z["lift_y"])), z["group1_stride2_y"]) < 1e-5
    pointwise = SESPointwise(4, 6, stride=2, bias=False)
    load(pointwise, z, "pointwise")
    assert difference(pointwise(torch.from_numpy(z["lift_y"])), z["pointwise_y"]) < 1e-5


def test_pointwise_commutes_with_a_shift_of_the_levels() -> None:
    torch.manual_seed(0)
    layer = SESPointwise(3, 4)
    x = torch.randn(2, 3, 5, 6, 7)
    torch.testing.assert_close(layer(x.roll(1, dims=2)), layer(x).roll(1, dims=2))


def test_group_convolution_does_not_commute_with_a_shift_of_the_levels() -> None:
    """The control of the test above: there each level has a kernel of its own."""
    torch.manual_seed(0)
    layer = SESConv(3, 4, basis_a(7, (0.9, 1.3, 1.8), 3), padding=3)
    x = torch.randn(2, 3, 3, 9, 9)
    assert not torch.allclose(layer(x.roll(1, dims=2)), layer(x).roll(1, dims=2), atol=0.01)


def test_a_blob_twice_as_wide_answers_one_level_higher() -> None:
    """(L_s f ⋆ ψ^{σ/s})(0) = (f ⋆ ψ^σ)(0): on the lattice a lift sees a rescaled blob at another level."""
    torch.manual_seed(0)
    layer = SESLift(1, 6, basis_a(49, (2.0, 4.0), 3), padding=24, bias=False, dtype=torch.float64)
    axis = torch.arange(-32, 33, dtype=torch.float64)

    def blob(width: float) -> Tensor:
        skewed = torch.exp(-((axis / width) ** 2)) * (1 + 0.5 * axis / width)
        return torch.outer(skewed, skewed).view(1, 1, 65, 65)

    narrow, wide = layer(blob(3.0))[0, :, :, 32, 32], layer(blob(6.0))[0, :, :, 32, 32]
    torch.testing.assert_close(wide[:, 1], narrow[:, 0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(wide[:, 0], narrow[:, 0], rtol=0.05)


def test_only_learned_weights_are_in_a_checkpoint() -> None:
    basis = basis_a(7, (0.9, 1.3), 3)
    assert set(SESLift(1, 2, basis).state_dict()) == {"weight", "bias"}
    assert set(SESConv(1, 2, basis, bias=False).state_dict()) == {"weight"}


def test_weights_are_kaiming_uniform() -> None:
    torch.manual_seed(0)
    layer = SESConv(16, 32, basis_a(7, (0.9, 1.3), 5), interaction=2)
    assert layer.weight.shape == (32, 16, 2, 25)
    bound = 1 / np.sqrt(16 * 2 * 25)
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert layer.bias is not None
    assert layer.bias.abs().max() <= bound


@pytest.mark.parametrize("interaction", [0, 3])
def test_an_impossible_interaction_is_refused(interaction: int) -> None:
    with pytest.raises(ValueError, match=f"interaction must be 1 to 2 .the levels., not {interaction}"):
        SESConv(1, 1, basis_a(5, (1.0, 1.5), 2), interaction)


def test_a_wrong_number_of_levels_is_refused() -> None:
    layer = SESConv(1, 1, basis_a(5, (1.0, 1.5), 2))
    with pytest.raises(ValueError, match="the layer has 2 levels, its input 3"):
        layer(torch.zeros(1, 1, 3, 8, 8))


def test_layers_follow_dtype_and_device() -> None:
    layer = SESLift(1, 2, basis_a(5, (1.0, 1.5), 2), padding=2).to(torch.float64)
    assert layer(torch.zeros(1, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64
    assert SESLift(1, 2, basis_a(5, (1.0,), 2), device="meta").basis.device.type == "meta"


def test_only_the_taps_of_the_support_are_multiplied() -> None:
    """Multiply–adds of level k: K_k² taps and the levels that exist, whatever K and I say."""
    basis = basis_b(15, (1.7, 2.45, 3.54, 5.1), 7, 1.5)
    x = torch.randn(2, 3, 4, 14, 14)
    layer = SESConv(3, 5, basis, interaction=2, padding=7)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(x)
    convolutions = sum(
        count for key, count in counter.get_flop_counts()["Global"].items() if "convolution" in str(key)
    )
    taps = sum(side**2 * min(2, 4 - k) for k, side in enumerate((5, 7, 11, 15)))
    assert convolutions == 2 * taps * 3 * 5 * 2 * 14 * 14


def test_kernels_are_kept_in_evaluation_until_the_weights_change() -> None:
    layer = SESLift(2, 3, basis_a(5, (1.0, 1.5), 2), padding=2).eval()
    x = torch.randn(1, 2, 8, 8)

    def fresh() -> Tensor:
        y: Tensor = copy.deepcopy(layer)(x)
        return y

    torch.testing.assert_close(fresh(), literal_lift(x, layer, basis_a(5, (1.0, 1.5), 2)))
    with torch.no_grad():
        assert layer.kernels()[0] is layer.kernels()[0]
        for change in (
            lambda: layer.weight.add_(1),
            lambda: layer.load_state_dict({"weight": torch.randn(3, 2, 4), "bias": torch.randn(3)}),
            lambda: setattr(layer, "weight", torch.nn.Parameter(torch.randn(3, 2, 4))),
            lambda: setattr(layer.weight, "data", torch.randn(3, 2, 4)),
            lambda: torch.optim.SGD(layer.parameters(), lr=0.5).step(),
            lambda: layer.weight.data.mul_(2.0),
            lambda: torch.optim.Adam(layer.parameters(), lr=0.5, fused=True).step(),
            lambda: layer.basis.data.mul_(-1.0),
            lambda: layer.basis.data.mul_(-1.0),
        ):
            before = layer(x)
            if layer.weight.grad is None:
                layer.weight.grad = torch.ones_like(layer.weight)
            change()
            torch.testing.assert_close(layer(x), fresh())
            assert not torch.allclose(layer(x), before)
        double = copy.deepcopy(layer).double()
        assert double(x.double()).dtype == torch.float64
        assert double._kept is not None
        assert copy.deepcopy(double)._kept is None
        assert pickle.loads(pickle.dumps(double))._kept is None
    # with a graph they are expanded in it
    assert layer.kernels()[0].requires_grad
    assert layer._kept is None
    with torch.no_grad():
        assert layer.train().kernels()[0] is not layer.kernels()[0]
        layer.eval().kernels()
        layer.train()
        assert layer._kept is None


COMPILED = """
import copy, torch
from torch import nn
from secli.layers import ScalePool, SESConv, SESLift, basis_a

torch.manual_seed(0)
basis = basis_a(5, (1.0, 1.5), 2)
network = nn.Sequential(
    SESLift(1, 2, basis, padding=2), SESConv(2, 4, basis), ScalePool("max"), nn.Flatten(), nn.Linear(64, 6)
)
step = torch.compile(network, backend="eager", dynamic=False)
optimizer = torch.optim.Adam(network.parameters(), lr=0.05, fused=True)
x, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
for _ in range(2):
    network.train()
    optimizer.zero_grad()
    nn.functional.cross_entropy(step(x), labels).backward()
    optimizer.step()
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(x), copy.deepcopy(network)(x))
"""


def test_evaluation_follows_a_fused_optimiser_under_the_compiler() -> None:
    """Such a step changes weights without raising their version; here without the shape hook, which it cannot trace."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_kept_of_a_fake_mode() -> None:
    layer = SESLift(2, 3, basis_a(5, (1.0, 1.5), 2), padding=2).eval()
    x = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert type(layer(x)) is FakeTensor
            assert type(bilinear_operator(5, 7, torch.float32, torch.device("cpu"))) is FakeTensor
        assert type(layer(x)) is torch.Tensor
        with torch.device("meta"):
            assert bilinear_operator(5, 7, torch.float32, torch.device("cpu")).device.type == "cpu"
        assert type(bilinear_operator(5, 7, torch.float32, torch.device("cpu"))) is torch.Tensor


# other functions in the place of the layer's own


def zero_outside(functions: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Let each level of (b, s, K, K) be zero beyond a centred square of its side."""
    kept = torch.zeros_like(functions)
    for level, side in enumerate(sides):
        inner = slice((functions.shape[-1] - side) // 2, (functions.shape[-1] + side) // 2)
        kept[:, level, inner, inner] = functions[:, level, inner, inner]
    return kept


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_a_basis_that_is_set_is_used_and_cropped(kind: str) -> None:
    functions = zero_outside(torch.randn(9, 3, 7, 7, dtype=torch.float64), (1, 5, 7))
    layer = SESLift(2, 4, basis_a(7, (0.9, 1.27, 1.79), 3), padding=3, dtype=torch.float64).eval()
    x = torch.randn(1, 2, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        layer(x)  # its kernels are kept from here on
        layer.set_basis(functions if kind == "tensor" else functions.numpy())
        assert layer.sides == (1, 5, 7)
        kernels = torch.einsum("oib,bskl->soikl", layer.weight, functions)
        expected = torch.stack([functional.conv2d(x, kernel, layer.bias, padding=3) for kernel in kernels], 2)
        torch.testing.assert_close(layer(x), expected)
    assert "basis" not in layer.state_dict()


def test_one_corner_decides_the_support_of_a_level() -> None:
    functions = torch.zeros(9, 3, 7, 7)
    functions[8, 1, 1, 3] = 1e-30
    layer = SESConv(2, 2, basis_a(7, (0.9, 1.27, 1.79), 3), padding=3)
    layer.set_basis(functions)
    assert layer.sides == (1, 5, 1)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        (torch.zeros(8, 3, 7, 7), r"the basis must have the shape \(9, 3, 7, 7\), not \(8, 3, 7, 7\)"),
        (torch.zeros(9, 3, 5, 5), r"the basis must have the shape \(9, 3, 7, 7\), not \(9, 3, 5, 5\)"),
        (torch.full((9, 3, 7, 7), torch.nan), "the basis has values that are not finite"),
    ],
)
def test_another_basis_must_fit(functions: Tensor, message: str) -> None:
    layer = SESLift(2, 4, basis_a(7, (0.9, 1.27, 1.79), 3), padding=3)
    with pytest.raises(ValueError, match=message):
        layer.set_basis(functions)
    assert layer.sides == (3, 5, 7)
