"""Scale equivariance in any test suite: the measure of ``secli equivariance`` as an assertion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from secli.action.fields import Canvas, Field, Plane
from secli.action.images import SAMPLING_BLUR, rescale
from secli.config import Background, check_factors
from secli.equivariance.cell_error import TapError
from secli.equivariance.evaluation_mode import full_precision
from secli.equivariance.features import minus
from secli.records.schema import CurveRow

Function = Callable[[Tensor], Tensor | list[Tensor]]

_PLANE = Plane()


def scale_equivariance_error(
    function: Function,
    images: Float[Tensor, "n c h w"],
    factor: float,
    field: Field = _PLANE,
    *,
    background: Background = "empty",
    border: float = 0.0,
) -> Float64[Tensor, "m"]:
    """Return ``Δ_s(f) = ‖L_s Φ(f) − Φ(L_s f)‖² / ‖L_s Φ(f)‖²`` of each image.

    Parameters
    ----------
    function : callable
        Φ: maps images (N, C, H, W) to features. A module is called in eval mode; its own is restored.
    images : tensor (N, C, H, W)
        Float pictures at their own scale.
    field : Field
        How L_s acts on the features (``secli.action.fields``); by default a plane of stride 1.
    background : str
        ``empty`` compares Φ(·) − Φ(0); ``none`` is the bare formula.
    border : float
        Pixels left out along the edges of picture and canvas.

    Returns
    -------
    tensor (M,)
        Float64, one number per image that can be measured; 0 is perfect.

    Raises
    ------
    ValueError
        When nothing can be measured (with the reason) or the factor is not positive.

    Examples
    --------
    >>> import torch
    >>> scale_equivariance_error(torch.nn.Identity(), torch.rand(3, 1, 16, 16), 0.5).tolist()
    [0.0, 0.0, 0.0]
    """
    values, row = _measure(function, images, factor, field, background, border)
    if row.reason is not None:
        raise ValueError(f"at factor {factor:g} nothing can be measured: {row.reason}")
    return values


def assert_scale_equivariant(
    function: Function,
    images: Float[Tensor, "n c h w"],
    *,
    factors: Sequence[float] = (0.5, 0.7, 0.85),
    field: Field = _PLANE,
    tolerance: float = 0.05,
    background: Background = "empty",
    border: float = 0.0,
) -> None:
    """Raise ``AssertionError`` unless the mean Δ is at most ``tolerance`` at every factor.

    Parameters
    ----------
    function, images, field, background, border
        As for ``scale_equivariance_error``.
    factors : sequence of float
        Scale factors s > 0. On a scale space, take those of its lattice: interpolation alone can read 0.01.
    tolerance : float
        Largest mean Δ that passes. A nonlinearity alone reads up to 0.06 on 28×28 pixels at s = 0.5.

    Raises
    ------
    AssertionError
        Names each factor that fails, with Δ, its interval and the floor of the grid.
    ValueError
        When a factor is not positive, or nothing can be measured at one.

    Examples
    --------
    >>> import torch
    >>> from secli.equivariance.testing import assert_scale_equivariant
    >>> assert_scale_equivariant(torch.nn.Identity(), torch.rand(3, 1, 16, 16))
    """
    failures = []
    for factor in check_factors(list(factors)):
        _, row = _measure(function, images, factor, field, background, border)
        if row.mean is None:
            raise ValueError(f"at factor {factor:g} nothing can be measured: {row.reason}")
        if row.mean > tolerance:
            failures.append(
                f"at s = {factor:g} Δ = {row.mean:.4g} (95 % interval {row.low:.4g} to {row.high:.4g}, "
                f"floor of the grid {row.floor:.2g}, {row.n} images)"
            )
    if failures:
        raise AssertionError(f"not scale-equivariant within {tolerance:g}: " + "; ".join(failures))


def _measure(
    function: Function,
    images: Float[Tensor, "n c h w"],
    factor: float,
    field: Field,
    background: Background,
    border: float,
) -> tuple[Float64[Tensor, "m"], CurveRow]:
    check_factors([factor])
    blur = max(SAMPLING_BLUR, field.base_blur)
    canvas = Canvas(images.shape[-2], images.shape[-1], blur, border)
    cell = TapError(field, factor, "squared")
    training = (
        {module: module.training for module in function.modules()} if isinstance(function, nn.Module) else {}
    )
    for module in training:
        module.training = False
    try:
        with torch.inference_mode(), full_precision():
            base, moved = function(images), function(rescale(images, factor, blur))
            empty = function(torch.zeros_like(images[:1])) if background == "empty" else None
            cell.add(base, moved, minus(base, empty), minus(moved, empty), canvas)
    finally:
        for module, mode in training.items():
            module.training = mode
    (reading,) = cell.readings.values()
    return reading.values(), cell.row("function", len(images))
