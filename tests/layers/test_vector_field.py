"""Vector fields: the published function, its formula taken literally, and what scale does to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from secli.action.fields import Canvas, VectorField
from secli.action.images import rescale
from secli.layers.bilinear import bilinear_matrix, bilinear_operator
from secli.layers.vector_field import Resizings, ScalarFieldConv, Turn, VectorFieldConv, VectorFieldLift

Golden = Callable[[str], Mapping[str, np.ndarray]]
Difference = Callable[[Any, Any], float]

DTYPES = {torch.float32: 5e-5, torch.float64: 1e-10}
STEP = 2 * math.pi / 21


def read(row: Tensor, place: float) -> Tensor:
    """A row between its cells, the edge cell beyond them."""
    place = min(max(place, 0.0), len(row) - 1.0)
    left = min(int(place), len(row) - 2) if len(row) > 1 else 0
    return row[left] + (place - left) * (row[min(left + 1, len(row) - 1)] - row[left])


def resized(plane: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, corners not aligned: output cell i lies at (i + ½)n/m − ½."""
    rows, columns = plane.shape
    tall = torch.stack([read(plane, (i + 0.5) * rows / height - 0.5) for i in range(height)])
    wide = [read(tall.T, (i + 0.5) * columns / width - 0.5) for i in range(width)]
    return torch.stack(wide).T


def literal(x: Tensor, layer: Resizings, kernels: Callable[[float], Tensor]) -> tuple[Tensor, Tensor]:
    """Magnitude and angle of each channel and cell: one picture, plane and resizing at a time."""
    size, wider = layer.size, max(layer.padding - layer.size // 2, 0)
    narrower = max(layer.size // 2 - layer.padding, 0)
    x = functional.pad(x, [wider] * 4)
    height, width = x.shape[2:]
    best = torch.full((), -math.inf, dtype=x.dtype)
    angles = torch.zeros((), dtype=x.dtype)
    for j in range(layer.levels[0], layer.levels[1] + 1):
        factor, angle = layer.base**j, j * layer.angle_step
        small = (max(1, round(height * factor)), max(1, round(width * factor)))
        planes = torch.stack([torch.stack([resized(p, *small) for p in picture]) for picture in x])
        answer = functional.conv2d(planes, kernels(angle), padding=size // 2)
        back = torch.stack([torch.stack([resized(p, height, width) for p in picture]) for picture in answer])
        better = back > best
        angles = torch.where(better, angle, angles)
        best = torch.where(better, back, best)
    kept = slice(narrower, -narrower or None, layer.stride)
    return best.clamp(min=0)[:, :, kept, kept], angles[:, :, kept, kept]


def as_vectors(magnitude: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([magnitude * angle.cos(), magnitude * angle.sin()], dim=2)


def turned(layer: VectorFieldConv, angle: float) -> Tensor:
    """The pair (W_u, W_v) as complex numbers, turned; its real and imaginary parts, channel by channel."""
    pair = torch.complex(layer.weight_u.double(), layer.weight_v.double())
    pair = pair * complex(math.cos(layer.sense * angle), math.sin(layer.sense * angle))
    return torch.stack([pair.real, pair.imag], dim=2).flatten(1, 2).to(layer.weight_u.dtype)


geometry = given(
    shape=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    size=st.sampled_from([1, 3, 5]),
    base=st.sampled_from([1.26, 1.5]),
    levels=st.sampled_from([(-4, 3), (-1, 1), (0, 2)]),
    stride=st.integers(1, 2),
    padding=st.sampled_from([None, 0, 3]),
    dtype=st.sampled_from(list(DTYPES)),
)


def agree(ours: Tensor, magnitude: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare vectors; where two resizings answer alike in this arithmetic, any of their angles will do."""
    torch.testing.assert_close(ours.norm(dim=2), magnitude, rtol=tolerance, atol=tolerance)
    far = (ours - expected).norm(dim=2) > tolerance * (1 + magnitude)
    assert far.double().mean() < 0.01


@geometry
def test_the_lift_is_the_formula(
    shape: tuple[int, int],
    size: int,
    base: float,
    levels: tuple[int, int],
    stride: int,
    padding: int | None,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"base": base, "levels": levels, "stride": stride, "padding": padding}
    lift = VectorFieldLift(2, 3, size, dtype=dtype, **arguments)
    scalar = ScalarFieldConv(2, 3, size, dtype=dtype, **arguments)
    scalar.load_state_dict(lift.state_dict())
    x = torch.randn(2, 2, *shape, dtype=dtype)
    with torch.no_grad():
        magnitude, angle = literal(x, lift, lambda _: lift.weight)
        agree(lift(x), magnitude, as_vectors(magnitude, angle), DTYPES[dtype])
        torch.testing.assert_close(scalar(x), magnitude, rtol=DTYPES[dtype], atol=DTYPES[dtype])


@pytest.mark.parametrize("turn", ["against", "along"])
@geometry
def test_the_vector_convolution_is_the_formula(
    turn: Turn,
    shape: tuple[int, int],
    size: int,
    base: float,
    levels: tuple[int, int],
    stride: int,
    padding: int | None,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    layer = VectorFieldConv(2, 3, size, base, levels, stride=stride, padding=padding, turn=turn, dtype=dtype)
    x = torch.randn(2, 2, 2, *shape, dtype=dtype)
    with torch.no_grad():
        magnitude, angle = literal(x.flatten(1, 2), layer, lambda at: turned(layer, at))
        agree(layer(x), magnitude, as_vectors(magnitude, angle), DTYPES[dtype])


def test_the_layers_agree_with_the_golden_vectors(golden: Golden, difference: Difference) -> None:
    z = golden("sevf")
    lift = VectorFieldLift(2, 3, 7)
    assert lift.factors == pytest.approx(z["scales"])
    assert lift.angles == pytest.approx(z["angles"])
    lift.load_state_dict({"weight": torch.from_numpy(z["lift_weight"])})
    u, v = lift(torch.from_numpy(z["lift_x"])).unbind(2)
    assert difference(u, z["lift_u"]) < 1e-5
    assert difference(v, z["lift_v"]) < 1e-5
    field = torch.stack([torch.from_numpy(z["vec_u"]), torch.from_numpy(z["vec_v"])], dim=2)
    weights = {name: torch.from_numpy(z[f"vec_{name}"]) for name in ("weight_u", "weight_v")}
    for turn, agrees in (("against", True), ("along", False)):
        layer = VectorFieldConv(2, 3, 7, turn=turn)  # type: ignore[arg-type]
        layer.load_state_dict(weights)
        u, v = layer(field).unbind(2)
        assert (difference(u, z["vec_out_u"]) < 1e-5) is agrees
        assert (difference(v, z["vec_out_v"]) < 1e-5) is agrees
    # the check can fail: of another base it is another function
    other = VectorFieldLift(2, 3, 7, base=1.2)
    other.load_state_dict(lift.state_dict())
    assert difference(other(torch.from_numpy(z["lift_x"]))[:, :, 0], z["lift_u"]) > 0.01


@given(cells=st.integers(1, 30), out=st.integers(1, 60))
def test_the_matrix_is_bilinear_resizing(cells: int, out: int) -> None:
    x = torch.randn(1, 1, cells, 2, dtype=torch.float64)
    matrix = bilinear_matrix(cells, out)
    expected = functional.interpolate(x, (out, 2), mode="bilinear", align_corners=False)
    torch.testing.assert_close(matrix @ x, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(matrix.sum(1), torch.ones(out, dtype=torch.float64))
    if out == cells:
        assert torch.equal(matrix, torch.eye(cells, dtype=torch.float64))


def test_a_kept_matrix_meets_gradients_after_inference() -> None:
    with torch.inference_mode():
        bilinear_operator(17, 23, torch.float32, torch.device("cpu"))
    layer = VectorFieldLift(1, 1, 3, levels=(-1, 1))
    with torch.inference_mode():
        layer(torch.rand(1, 1, 19, 19))
    x = torch.rand(1, 1, 19, 19, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None


# what scale does to vectors

SIDE = 72
BASE = 1.26


def blobs(count: int = 3) -> Tensor:
    """Smooth pictures on black, near the centre: sums of blobs of several sizes."""
    generator = torch.Generator().manual_seed(1)
    grid = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    pictures = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.float64)
    for picture in pictures:
        for _ in range(6):
            row, column = (torch.rand(2, generator=generator, dtype=torch.float64) - 0.5) * 32
            width = 2.5 + 3 * torch.rand(1, generator=generator, dtype=torch.float64)
            picture += torch.exp(-((grid[:, None] - row) ** 2 + (grid - column) ** 2) / (2 * width**2))
    return pictures


def smooth(layer: Resizings) -> None:
    """Give a layer filters that a grid can hold: random ones, blurred."""
    line = torch.arange(-3, 4, dtype=torch.float64)
    matrix = torch.exp(-((line[:, None] - line) ** 2) / 2)
    window = torch.exp(-(line**2) / 8)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_((matrix @ torch.randn_like(weight) @ matrix) * window * window[:, None])
            weight.sub_(weight.mean(dim=(2, 3), keepdim=True))


def error(layer: Resizings, plain: Tensor, shrunk: Tensor, base: float, factor: float) -> float:
    """Δ of one layer at a factor, given what it sees of the pictures and of the shrunk ones."""
    field = VectorField(base, layer.angle_step, layer.levels)
    with torch.no_grad():
        acted = field.act(layer(plain), factor, Canvas(SIDE, SIDE))
        (moved,), (mask,) = acted.features, acted.masks
        assert mask is not None
        seen = layer(shrunk)
        # the field masks vectors that leave the range; those that come from beyond its other end stand in ``seen``
        turn = math.log(factor, base) * layer.angle_step
        source = torch.atan2(seen[:, :, 1], seen[:, :, 0]) - turn
        low, high = (level * layer.angle_step for level in layer.levels)
        known = (source >= low - 1e-6) & (source <= high + 1e-6) | ~seen.any(dim=2)
        mask = mask & known.unsqueeze(2)
        difference = ((moved - seen) * mask).square().sum()
        return float(difference / (moved * mask).square().sum())


@pytest.mark.parametrize("steps", [1, 2])
def test_shrinking_the_picture_turns_the_lift_by_plus_theta(steps: int) -> None:
    lift = VectorFieldLift(1, 8, 7, dtype=torch.float64)
    smooth(lift)
    factor = BASE**-steps
    pictures = blobs()
    shrunk = rescale(pictures, factor)
    right = error(lift, pictures, shrunk, 1 / BASE, factor)
    wrong = error(lift, pictures, shrunk, BASE, factor)
    assert right < 0.04
    assert wrong > 10 * right


@pytest.mark.parametrize("steps", [1, 2])
def test_weights_turned_along_are_equivariant_and_the_published_are_not(steps: int) -> None:
    """The second layer alone, on a field and on the very same field shrunk and turned."""
    factor = BASE**-steps
    planes = blobs(6).view(3, 2, SIDE, SIDE)
    angle = torch.tensor([-0.3, 0.0]).view(1, 2, 1, 1) * STEP
    plain = torch.stack([planes * angle.cos(), planes * angle.sin()], dim=2)
    small = rescale(planes, factor)
    angle = angle + steps * STEP
    shrunk = torch.stack([small * angle.cos(), small * angle.sin()], dim=2)
    found = {}
    for turn in ("along", "against"):
        torch.manual_seed(0)
        layer = VectorFieldConv(2, 8, 7, turn=turn, dtype=torch.float64)
        smooth(layer)
        found[turn] = error(layer, plain, shrunk, 1 / BASE, factor)
        assert error(layer, plain, shrunk, BASE, factor) > 0.2
    assert found["along"] < 0.03
    assert found["against"] > 10 * found["along"]


def test_no_picture_gives_no_vector_and_a_defined_gradient() -> None:
    lift = VectorFieldLift(1, 2, 3)
    x = torch.zeros(1, 1, 6, 6, requires_grad=True)
    y = lift(x)
    assert not y.any()
    y.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_only_learned_weights_are_in_a_checkpoint() -> None:
    assert set(VectorFieldLift(1, 1, 3).state_dict()) == {"weight"}
    assert [name for name, _ in VectorFieldConv(1, 1, 3).named_parameters()] == ["weight_u", "weight_v"]
    assert set(VectorFieldConv(1, 1, 3).state_dict()) == {"weight_u", "weight_v"}


def test_weights_are_kaiming_uniform() -> None:
    layer = VectorFieldConv(16, 32, 7)
    for weight in layer.parameters():
        assert weight.shape == (32, 16, 7, 7)
        assert float(weight.detach().abs().max()) == pytest.approx(1 / math.sqrt(16 * 49), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 4}, "kernel size must be odd and positive, not 4"),
        ({"size": 3, "base": 1.0}, "base must be greater than 1, not 1"),
        ({"size": 3, "levels": (2, 2)}, "at least two resizings are needed, not j = 2 to 2"),
        ({"size": 3, "levels": (0, 3), "angle_range": 3.2}, "angles must increase within ±π; .* 3.2 rad"),
        ({"size": 3, "angle_range": 0.0}, "angles must increase within ±π"),
    ],
)
@pytest.mark.parametrize("layer", [VectorFieldLift, ScalarFieldConv, VectorFieldConv])
def test_bad_arguments_are_refused(
    layer: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        layer(1, 1, **arguments)
