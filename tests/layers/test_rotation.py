from __future__ import annotations

import cmath
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from secli.layers.circular import circular_harmonics, highest_frequency
from secli.layers.rotation import RotationConv, RotationLift, RotationPool

DTYPES = {torch.float32: 2e-5, torch.float64: 1e-12}


def harmonic(size: int, j: int, k: int, width: float = 0.45) -> list[list[complex]]:
    """ψ_jk = τ_j(r) e^{ikφ}, pixel by pixel; for k > 0 without a centre and without a sum; mean square norm 1."""
    radius = size // 2
    values: list[list[complex]] = []
    profiles: list[list[float]] = []
    for row in range(-radius, radius + 1):
        values.append([])
        profiles.append([])
        for column in range(-radius, radius + 1):
            r, phi = math.hypot(row, column), math.atan2(-row, column)
            tau = math.exp(-((r - j) ** 2) / (2 * width**2)) if k == 0 or r > 0 else 0.0
            profiles[-1].append(tau)
            values[-1].append(tau * cmath.exp(1j * k * phi))
    if k > 0:
        share = sum(map(sum, values)) / sum(map(sum, profiles))
        values = [
            [value - share.real * tau for value, tau in zip(*rows, strict=True)]
            for rows in zip(values, profiles, strict=True)
        ]
    power = sum(abs(value) ** 2 for line in values for value in line)
    norm = math.sqrt(power if k == 0 else power / 2)
    return [[value / norm for value in line] for line in values]


def turned(coefficients: Tensor, size: int, theta: float) -> Tensor:
    """Re Σ_jk e^{−ikθ} w_jk ψ_jk, from the complex numbers w_jk that the real coefficients stand for."""
    kernel = torch.zeros(size, size, dtype=torch.float64)
    numbers = iter(coefficients.tolist())
    for j in range(size // 2 + 1):
        for k in range(2 * j + 1):
            w = complex(next(numbers), next(numbers) if k > 0 else 0.0) * cmath.exp(-1j * k * theta)
            psi = harmonic(size, j, k)
            kernel += torch.tensor(
                [[(w * value).real for value in line] for line in psi], dtype=torch.float64
            )
    assert next(numbers, None) is None
    return kernel.to(coefficients.dtype)


def literal_lift(x: Tensor, layer: RotationLift) -> Tensor:
    """y_r = f ⋆ rot_r W + bias, one angle, one pair of channels at a time."""
    out, channels, _ = layer.weight.shape
    planes = []
    for o in range(out):
        angles = []
        for r in range(layer.rotations):
            total: Any = 0.0 if layer.bias is None else layer.bias[o]
            for c in range(channels):
                kernel = turned(layer.weight[o, c], layer.size, 2 * math.pi * r / layer.rotations)
                total = total + functional.conv2d(
                    x[:, c : c + 1], kernel[None, None], None, layer.stride, layer.padding
                )
            angles.append(total[:, 0])
        planes.append(torch.stack(angles, dim=1))
    return torch.stack(planes, dim=1)


def literal_conv(x: Tensor, layer: RotationConv) -> Tensor:
    """y_r = Σ_q x_q ⋆ rot_r W_{q−r} + bias, one term at a time."""
    out, channels, rotations, _ = layer.weight.shape
    planes = []
    for o in range(out):
        angles = []
        for r in range(rotations):
            total: Any = 0.0 if layer.bias is None else layer.bias[o]
            for q in range(rotations):
                for c in range(channels):
                    kernel = turned(
                        layer.weight[o, c, (q - r) % rotations], layer.size, 2 * math.pi * r / rotations
                    )
                    total = total + functional.conv2d(
                        x[:, c : c + 1, q], kernel[None, None], None, layer.stride, layer.padding
                    )
            angles.append(total[:, 0])
        planes.append(torch.stack(angles, dim=1))
    return torch.stack(planes, dim=1)


cases = given(
    shape=st.tuples(st.integers(1, 2), st.integers(5, 9), st.integers(5, 9)),
    size=st.sampled_from([1, 3, 5]),
    rotations=st.sampled_from([1, 2, 3, 4, 8]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    bias=st.booleans(),
    dtype=st.sampled_from(list(DTYPES)),
)


@cases
def test_the_lift_is_the_formula(
    shape: tuple[int, int, int],
    size: int,
    rotations: int,
    stride: int,
    padding: int,
    bias: bool,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    layer = RotationLift(2, 2, size, rotations, stride, padding, bias, dtype=dtype)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    x = torch.randn(shape[0], 2, *shape[1:], dtype=dtype)
    torch.testing.assert_close(layer(x), literal_lift(x, layer), rtol=DTYPES[dtype], atol=DTYPES[dtype])


@cases
def test_the_group_convolution_is_the_formula(
    shape: tuple[int, int, int],
    size: int,
    rotations: int,
    stride: int,
    padding: int,
    bias: bool,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    rotations = min(rotations, 4)
    layer = RotationConv(2, 2, size, rotations, stride, padding, bias, dtype=dtype)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    x = torch.randn(shape[0], 2, rotations, *shape[1:], dtype=dtype)
    torch.testing.assert_close(layer(x), literal_conv(x, layer), rtol=DTYPES[dtype], atol=DTYPES[dtype])


# the law: a turned picture turns the planes and shifts the axis of rotations


class Backwards(RotationConv):
    """A broken control: the group index runs the wrong way, y_r = Σ_q x_q ⋆ rot_r W_{q+r}."""

    def kernels(self) -> Tensor:
        index = torch.arange(self.rotations)
        pairs = self.steered()
        rows = [pairs[:, :, (index + r) % self.rotations, r] for r in range(self.rotations)]
        return torch.stack(rows, dim=1)


class TurnedBack(RotationConv):
    """A broken control: the filters turn against the axis, y_r = Σ_q x_q ⋆ rot_{−r} W_{q−r}."""

    def kernels(self) -> Tensor:
        index = torch.arange(self.rotations)
        return super().kernels()[:, (-index) % self.rotations].roll(0, 1)


class Plain(RotationConv):
    """A broken control: a convolution of all planes that knows nothing of angles."""

    def kernels(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(super().kernels().shape, generator=generator, dtype=self.weight.dtype)


def quarter_turn_error(layer: RotationLift | RotationConv, x: Tensor) -> float:
    """‖Φ(turned x) − turned Φ(x)‖/‖Φ(x)‖ for a quarter turn, counterclockwise."""
    step = layer.rotations // 4
    moved = torch.rot90(x, 1, (-2, -1))
    if isinstance(layer, RotationConv):
        moved = moved.roll(step, 2)
    y = layer(x)
    expected = torch.rot90(y, 1, (-2, -1)).roll(step, 2)
    return float((layer(moved) - expected).norm() / y.norm())


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("rotations", [4, 8, 12])
@pytest.mark.parametrize(("side", "stride"), [(11, 1), (12, 1), (11, 2)])
def test_quarter_turns_are_exact(size: int, rotations: int, side: int, stride: int) -> None:
    lift = RotationLift(2, 3, size, rotations, stride, size // 2, dtype=torch.float64)
    conv = RotationConv(2, 3, size, rotations, stride, size // 2, dtype=torch.float64)
    with torch.no_grad():
        lifted = torch.randn(1, 2, rotations, side, side, dtype=torch.float64)
        assert quarter_turn_error(lift, lifted[:, :, 0]) < 1e-12
        assert quarter_turn_error(conv, lifted) < 1e-12


@pytest.mark.parametrize("control", [Backwards, TurnedBack, Plain])
def test_broken_group_convolutions_are_not_equivariant(control: type[RotationConv]) -> None:
    layer = control(2, 3, 5, 8, padding=2, dtype=torch.float64)
    with torch.no_grad():
        assert quarter_turn_error(layer, torch.randn(1, 2, 8, 11, 11, dtype=torch.float64)) > 0.5


def smooth_picture(theta: float, side: int = 41) -> Tensor:
    """Plane waves longer than 6 pixels under a Gaussian window, turned by θ about the centre without resampling."""
    generator = torch.Generator().manual_seed(3)
    frequency, direction, phase = torch.rand(3, 8, generator=generator, dtype=torch.float64)
    grid = torch.arange(side, dtype=torch.float64) - side // 2
    x, y = grid.view(1, -1), -grid.view(-1, 1)
    x, y = math.cos(theta) * x + math.sin(theta) * y, math.cos(theta) * y - math.sin(theta) * x
    window = torch.exp(-(x**2 + y**2) / 72)
    along = direction.mul(2 * math.pi).view(-1, 1, 1)
    waves = torch.cos(
        frequency.view(-1, 1, 1) * (along.cos() * x + along.sin() * y) + 6.3 * phase.view(-1, 1, 1)
    )
    return (window * waves.sum(dim=0)).view(1, 1, side, side)


def eighth_turn_error(lift: nn.Module, *convs: RotationConv) -> float:
    """The error at the centre of the picture, which needs no resampling: there y_r becomes y_{r−1}."""
    first, second = smooth_picture(0.0), smooth_picture(math.pi / 4)
    with torch.no_grad():
        first, second = lift(first), lift(second)
        for conv in convs:
            first, second = conv(functional.relu(first)), conv(functional.relu(second))
    centre = first.shape[-1] // 2
    first, second = first[..., centre, centre].roll(1, 2), second[..., centre, centre]
    return float((second - first).norm() / first.norm())


@pytest.mark.parametrize(("size", "bound"), [(3, 0.06), (5, 0.06), (7, 0.06)])
def test_eighth_turns_are_nearly_exact_on_smooth_pictures(size: int, bound: float) -> None:
    lift = RotationLift(1, 32, size, 8, padding=size // 2, dtype=torch.float64)
    conv = RotationConv(32, 16, size, 8, padding=size // 2, dtype=torch.float64)
    assert eighth_turn_error(lift) < bound
    assert eighth_turn_error(lift, conv) < 2 * bound


@pytest.mark.parametrize("control", [Backwards, TurnedBack, Plain])
def test_broken_group_convolutions_fail_at_eighth_turns(control: type[RotationConv]) -> None:
    lift = RotationLift(1, 32, 5, 8, padding=2, dtype=torch.float64)
    assert eighth_turn_error(lift, control(32, 16, 5, 8, padding=2, dtype=torch.float64)) > 0.3


def test_a_plain_lift_fails_at_eighth_turns() -> None:
    class PlainLift(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).reshape(1, -1, 8, *x.shape[-2:])

    assert eighth_turn_error(PlainLift(1, 256, 5, padding=2, dtype=torch.float64)) > 0.3


def test_the_maximum_over_angles_turns_with_the_picture() -> None:
    layer, pool = RotationLift(1, 4, 5, padding=2, dtype=torch.float64), RotationPool()
    x = torch.randn(1, 1, 11, 11, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            pool(layer(torch.rot90(x, 1, (-2, -1)))), torch.rot90(pool(layer(x)), 1, (-2, -1))
        )
    features = torch.randn(2, 3, 8, 4, 4)
    assert torch.equal(pool(features), features.amax(dim=2))
    assert torch.equal(RotationPool("mean")(features), features.mean(dim=2))


# the basis


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
def test_the_functions_have_unit_norm_and_no_sum(size: int) -> None:
    harmonics = circular_harmonics(size, 8)
    at_zero = torch.from_numpy(harmonics.functions)[0]
    power: dict[tuple[int, int], list[float]] = {}
    for pair, function in zip(harmonics.rings, at_zero, strict=True):
        power.setdefault(pair, []).append(float(function.square().sum()))
        if pair[1] > 0:
            assert abs(function.sum()) < 1e-12
            assert function[size // 2, size // 2] == 0
    assert all(sum(values) == pytest.approx(len(values)) for values in power.values())
    assert list(power) == [(j, k) for j in range(size // 2 + 1) for k in range(highest_frequency(j) + 1)]
    # no function is a combination of others, so that no coefficient is idle
    gram = at_zero.flatten(1) @ at_zero.flatten(1).T
    assert torch.linalg.eigvalsh(gram)[0] > 1e-3


def test_turning_by_a_step_is_a_step_along_the_axis() -> None:
    for rotations in (4, 8):
        functions = torch.from_numpy(circular_harmonics(5, rotations).functions)
        step = torch.rot90(functions, 1, (-2, -1))
        torch.testing.assert_close(step, functions.roll(-rotations // 4, 0), rtol=0, atol=1e-15)


def test_the_start_keeps_the_variance() -> None:
    layer = RotationConv(16, 32, 5, 8, padding=2)
    x = functional.relu(torch.randn(2, 16, 8, 24, 24))
    with torch.no_grad():
        inner = layer(x - x.mean())[..., 4:-4, 4:-4]
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 8 * 15)), rel=0.02)
    assert inner.var().item() == pytest.approx(2 * x.var().item(), rel=0.1)


def test_only_what_is_learned_is_in_a_checkpoint() -> None:
    assert set(RotationConv(1, 1, 3).state_dict()) == {"weight", "bias"}
    assert set(RotationLift(1, 1, 3, bias=False).state_dict()) == {"weight"}
    assert RotationLift(3, 4, 5).weight.shape == (4, 3, 15)
    assert RotationConv(3, 4, 7, 6).weight.shape == (4, 3, 6, 28)


@pytest.mark.parametrize("layer", [RotationLift, RotationConv])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 1, 4), "kernel size must be odd and positive, not 4"),
        ((1, 1, 3, 0), "there must be at least one rotation, not 0"),
    ],
)
def test_bad_arguments_are_refused(layer: Any, arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(*arguments)


def test_a_bad_width_is_refused() -> None:
    with pytest.raises(ValueError, match="width of the rings must be positive, not 0"):
        circular_harmonics(3, 8, 0.0)


def test_a_wrong_number_of_rotations_is_refused() -> None:
    with pytest.raises(ValueError, match="the layer has 8 rotations, its input 4"):
        RotationConv(1, 1, 3)(torch.zeros(1, 1, 4, 8, 8))
