"""The generator of L_s: d/dt at 0 of the blur-free dilation L_{e^t}, on images and on every kind of field.

L_s itself has a kink at s = 1, because only a shrunk picture is blurred. Without the blur it is a smooth group of
one parameter, and its generator on the plane is minus the radial derivative::

    (d/dt)|₀ f(e^{−t} x) = −x · ∇f(x)

taken from the very spline that L_s reads, so that it is L_s's derivative on the grid and not only in the continuum.
The Lie derivative of a network (Gruver et al., *The Lie derivative for measuring learned equivariance*, 2022)
compares it before and behind the network.
"""

from __future__ import annotations

import math
from functools import lru_cache, singledispatch
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy.linalg import solve_banded
from torch import Tensor

from secli.action.fields import (
    Canvas,
    Field,
    Invariant,
    Pair,
    Plane,
    Pyramid,
    ScaleSpace,
    VectorField,
    both,
    inside,
)
from secli.action.fields.contract import single
from secli.action.images import SPLINE_MARGIN

ANGLE_SLACK = 1e-3
"""A vector this close to an end of the range of angles, in steps, counts as on it."""


class Generated(NamedTuple):
    """The generator applied to features.

    Attributes
    ----------
    tensors
        One per resolution (one, but for a pyramid), shaped as the features themselves.
    masks
        For each of these, where the derivative is known, broadcast to it; None when everywhere.
    """

    tensors: list[Tensor]
    masks: list[Bool[Tensor, "..."] | None]


def dilation_matrix(n: int, centre: float) -> Float64[np.ndarray, "n n"]:
    """Return the generator of the dilation of one axis of n cells about c: row i reads −(i − c)·f′(i).

    f′ is the derivative of the interpolating cubic spline of the axis extended by zeros (Unser, *Splines: a perfect
    fit*, 1999): with coefficients a, f′(i) = (a_{i+1} − a_{i−1})/2. It is the derivative at t = 0 of
    ``secli.action.images.axis_matrix`` for step e^{−t} without blur.
    """
    extended = n + 2 * SPLINE_MARGIN
    bands = np.repeat(np.array([[1.0], [4.0], [1.0]]) / 6, extended, axis=1)
    embedding = np.zeros((extended, n))
    embedding[SPLINE_MARGIN : SPLINE_MARGIN + n] = np.eye(n)
    coefficients = solve_banded((1, 1), bands, embedding)
    after = coefficients[SPLINE_MARGIN + 1 : SPLINE_MARGIN + n + 1]
    before = coefficients[SPLINE_MARGIN - 1 : SPLINE_MARGIN + n - 1]
    return np.asarray(-(np.arange(n) - centre)[:, None] * (after - before) / 2)


def diffusion_matrix(n: int) -> Float64[np.ndarray, "n n"]:
    """Return the generator of the discrete Gaussian by its variance: half the second difference, zeros outside.

    (d/dt)|₀ T(·, t) = (δ_{−1} − 2δ_0 + δ_1)/2 (Lindeberg, *Scale-space for discrete signals*, 1990).
    """
    return np.asarray((np.eye(n, k=1) + np.eye(n, k=-1)) / 2 - np.eye(n))


@lru_cache(maxsize=256)
def dilation_operator(
    n: int, centre: float, variance_rate: float, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "n n"]:
    """Return ``dilation_matrix`` + rate · ``diffusion_matrix`` as a tensor, built in float64 and cached."""
    matrix = dilation_matrix(n, centre)
    if variance_rate:
        matrix = matrix + variance_rate * diffusion_matrix(n)
    # built outside inference mode, because a cached operator may later meet one that needs gradients
    with torch.inference_mode(False):
        return torch.from_numpy(matrix).to(device=device, dtype=dtype)


def generate_image(images: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch h w"]:
    """Return (d/dt)|₀ L_{e^t} f = −x · ∇f(x) of pictures, about the image centre, without L_s's blur.

    It is the direction in which the pictures move when they grow, per unit of log s.

    Examples
    --------
    >>> import torch
    >>> ramp = torch.arange(41.0).expand(1, 41, 41) - 20
    >>> torch.allclose(generate_image(ramp)[0, 20, 10:31], -ramp[0, 20, 10:31], atol=1e-3)
    True
    """
    height, width = images.shape[-2:]
    return generate_plane(images, Canvas(height, width))


def generate_plane(
    features: Float[Tensor, "*batch h w"],
    canvas: Canvas,
    stride: Pair = 1.0,
    origin: Pair | None = None,
    base_blur: float = 0.0,
) -> Float[Tensor, "*batch h w"]:
    """Return the generator of ``secli.action.fields.rescale_plane`` on feature planes.

    Parameters
    ----------
    stride, origin : float or pair
        Image pixels per cell, and the image coordinate of cell 0 (None: grid centre = image centre).
    base_blur : float
        z in pixels. A picture magnified by s has the blur s·z where the lift assumes z, so that the features gain
        the variance z²(1 − 1/s²), whose derivative is 2z²: the generator has the term z²∇²F/stride², too.
    """
    operators = []
    for axis, pixels in enumerate((canvas.height, canvas.width)):
        n = features.shape[-2 + axis]
        cell = stride[axis] if isinstance(stride, tuple) else stride
        start = origin[axis] if isinstance(origin, tuple) else origin
        centre = (n - 1) / 2 if start is None else ((pixels - 1) / 2 - start) / cell
        rate = 2 * (base_blur / cell) ** 2
        operators.append(dilation_operator(n, centre, rate, features.dtype, features.device))
    rows, columns = operators
    return rows @ features + features @ columns.mT


@singledispatch
def generate(field: Field, features: Tensor | list[Tensor], canvas: Canvas) -> Generated:
    """Return (d/dt)|₀ L_{e^t} F for features of one field, without L_s's blur of pictures.

    =============  =========================================================================================
    field          generator
    =============  =========================================================================================
    Plane          −x·∇F about the point where the image centre falls
    ScaleSpace     −x·∇F − ∂F/∂log σ (+ z²∇²F for a base blur z), from (L_s F)(σ, x) = F(σ/s, x/s)
    Pyramid        −x·∇F on each level: near s = 1 every level is its own nearest one
    VectorField    −x·∇F + (θ/ln a)·(−v, u): the vector (u, v) turns by θ·log_a s
    Invariant      0
    =============  =========================================================================================

    The level derivative is the central difference on the lattice itself, so the first and the last level of a stack
    are masked, as are truncated ones and the level below them: of fewer than three whole levels none is known. On a
    coarse lattice (levels a factor 2 apart) it is itself a rough number.

    Parameters
    ----------
    field : Field
        How L_s acts on the features; ``generate.register`` adds the generator of another kind of field.

    Raises
    ------
    TypeError
        When the field's kind has no registered generator.
    ValueError
        When the features do not have the field's shape.
    """
    raise TypeError(f"the generator of the field '{type(field).__name__}' is not known")


@generate.register
def _of_invariant(field: Invariant, features: Tensor | list[Tensor], canvas: Canvas) -> Generated:
    tensors = features if isinstance(features, list) else [features]
    return Generated([torch.zeros_like(tensor) for tensor in tensors], [None] * len(tensors))


@generate.register
def _of_plane(field: Plane, features: Tensor | list[Tensor], canvas: Canvas) -> Generated:
    tensor = single(features, f"the field '{type(field).__name__}'")
    moved = generate_plane(tensor, canvas, field.stride, field.origin)
    return Generated([moved], [inside(tensor, 1.0, canvas, field.stride, field.origin)])


@generate.register
def _of_scale_space(field: ScaleSpace, features: Tensor | list[Tensor], canvas: Canvas) -> Generated:
    """Subtract the central difference in log σ; levels without two whole neighbours are masked."""
    tensor = single(features, f"the field '{type(field).__name__}'")
    total = len(field.scales)
    if tensor.ndim < 5 or tensor.shape[2] != total:
        raise ValueError(
            f"a scale space of {total} levels is (N, C, {total}, …, H, W), not {tuple(tensor.shape)}"
        )
    mask = torch.zeros((1, 1, total, *(1 for _ in tensor.shape[3:])), dtype=torch.bool, device=tensor.device)
    moved = torch.zeros_like(tensor)
    whole = total - field.truncated
    if whole >= 3:
        inner = slice(1, whole - 1)
        planes = generate_plane(tensor[:, :, inner], canvas, field.stride, field.origin, field.base_blur)
        moved[:, :, inner] = planes - _level_derivative(tensor[:, :, :whole], field.scales[:whole])
        mask[:, :, inner] = True
    return Generated([moved], [both(mask, inside(tensor, 1.0, canvas, field.stride, field.origin))])


def _level_derivative(levels: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Return ∂F/∂log σ at the inner levels of (N, C, S, …)."""
    shape = (3, -1, *(1 for _ in levels.shape[3:]))
    below, here, above = torch.from_numpy(level_weights(scales)).to(levels).reshape(shape)
    slopes: Tensor = below * levels[:, :, :-2] + here * levels[:, :, 1:-1] + above * levels[:, :, 2:]
    return slopes


def level_weights(scales: tuple[float, ...]) -> Float64[np.ndarray, "3 inner"]:
    """Return the weights of ∂/∂log σ on a stack of levels: three-point central differences on the lattice itself.

    With the steps g below and h above level k (in log σ) the derivative is
    −h/(g(g+h))·F_{k−1} + (h−g)/(gh)·F_k + g/(h(g+h))·F_{k+1}: exact for parabolas in log σ. The rows weigh the level
    below, the level itself and the one above; the first and the last level lack a neighbour and are left out.
    """
    steps = np.diff(np.log(np.asarray(scales, dtype=np.float64)))
    g, h = steps[:-1], steps[1:]
    return np.stack([-h / (g * (g + h)), (h - g) / (g * h), g / (h * (g + h))])


@generate.register
def _of_pyramid(field: Pyramid, features: Tensor | list[Tensor], canvas: Canvas) -> Generated:
    if not isinstance(features, list) or len(features) != len(field.factors):
        raise ValueError(f"a pyramid of {len(field.factors)} levels is a list of that many tensors")
    blurs = [field.base_blur * factor / field.stride for factor in field.factors]  # in cells
    moved = [
        generate_plane(level, canvas, base_blur=blur) for level, blur in zip(features, blurs, strict=True)
    ]
    cells = [field.stride / factor for factor in field.factors]
    masks = [inside(level, 1.0, canvas, cell) for level, cell in zip(features, cells, strict=True)]
    for k in range(len(features) - field.truncated, len(features)):
        masks[k] = torch.zeros((1,) * features[k].ndim, dtype=torch.bool, device=features[k].device)
    return Generated(moved, masks)


@generate.register
def _of_vectors(field: VectorField, features: Tensor | list[Tensor], canvas: Canvas) -> Generated:
    """Add the turn of every vector; vectors at either end of the range of angles are masked."""
    tensor = single(features, f"the field '{type(field).__name__}'")
    if tensor.ndim < 5 or tensor.shape[2] != 2:
        raise ValueError(f"a vector field is (N, C, 2, …, H, W), not {tuple(tensor.shape)}")
    planes = generate_plane(tensor, canvas, field.stride, field.origin)
    u, v = tensor.unbind(2)
    turn = torch.stack([-v, u], dim=2) * (field.angle_step / math.log(field.base))
    angle = torch.atan2(v, u)
    slack = ANGLE_SLACK * abs(field.angle_step)
    low, high = sorted(level * field.angle_step for level in field.levels)
    within = (angle > low + slack) & (angle < high - slack)
    known = (within | ((u == 0) & (v == 0))).unsqueeze(2)
    return Generated([planes + turn], [both(known, inside(tensor, 1.0, canvas, field.stride, field.origin))])
