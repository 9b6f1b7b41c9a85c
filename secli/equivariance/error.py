"""The equivariance error of one feature map, image by image.

``Δ_s(f) = ‖L_s Φ(f) − Φ(L_s f)‖² / ‖L_s Φ(f)‖²``, Frobenius norms over all channels, known levels and cells
(the finite-scale form used by Worrall & Welling 2019 and Sosnovik et al. 2020, with the norms spelled out).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from secli.action.fields import Acted
from secli.metrics import METRICS

# Features this far below their size before the background was subtracted are rounding, not signal.
_ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-14}


class SquaredNorms(NamedTuple):
    """‖L_sΦ(f) − Φ(L_s f)‖², ‖L_sΦ(f)‖² and ‖Φ(L_s f)‖² of one feature map, image by image.

    The last is None where the metric does not need it.
    """

    difference: Float64[Tensor, "n"]
    expected: Float64[Tensor, "n"]
    actual: Float64[Tensor, "n"] | None = None


def compare(
    acted: Acted,
    actual: Sequence[Tensor],
    metric: str = "squared",
    expected: Float64[Tensor, "n"] | None = None,
) -> SquaredNorms:
    """Return the squared norms of a metric, from L_sΦ(f) and Φ(L_s f) in the same shapes.

    ``expected`` is ‖L_sΦ(f)‖², where it is known already.
    """
    triples = list(zip(acted.features, actual, acted.masks, strict=True))
    difference = [squared_difference(features, other, mask) for features, other, mask in triples]
    if expected is None:
        expected = torch.stack([squared_norm(features, mask) for features, _, mask in triples]).sum(0)
    reached = None
    if METRICS[metric].needs_actual:
        reached = torch.stack([squared_norm(other, mask) for _, other, mask in triples]).sum(0)
    return SquaredNorms(torch.stack(difference).sum(0), expected, reached)


def squared_difference(one: Tensor, other: Tensor, mask: Bool[Tensor, "..."] | None) -> Float64[Tensor, "n"]:
    """Return ‖one − other‖² of each image over the cells that the mask keeps."""
    levels = _levels(one, mask)
    if levels is not None:
        return squared_norm(one[:, :, levels] - other[:, :, levels])
    return squared_norm(one - other, mask)


def squared_norm(features: Tensor, mask: Bool[Tensor, "..."] | None = None) -> Float64[Tensor, "n"]:
    """Return the squared Frobenius norm of each image's features over the cells that the mask keeps.

    The norm of each plane is taken in the features' own precision, the sum over planes in float64: as exact as
    float64 throughout to some 1e-8, and forty times faster. Excluded cells do not count, not even when they are not
    finite.
    """
    levels = _levels(features, mask)
    if levels is not None:
        features = features[:, :, levels]
    elif mask is not None:
        features = torch.where(mask, features, features.new_zeros(()))
    planes = features.flatten(-2) if features.ndim > 3 else features
    norms: Tensor = torch.linalg.vector_norm(planes, dim=-1)
    return norms.double().square().flatten(1).sum(1) if norms.ndim > 1 else norms.double().square()


def _levels(features: Tensor, mask: Bool[Tensor, "..."] | None) -> slice | None:
    """Return the levels that a mask keeps, if these are consecutive whole levels (N, C, S, …): a view, no copy."""
    if mask is None or features.ndim < 5 or mask.numel() != features.shape[2] or mask.ndim != features.ndim:
        return None
    kept = [k for k, keeps in enumerate(mask.flatten().tolist()) if keeps]
    if not kept or kept != list(range(kept[0], kept[-1] + 1)):
        return None
    return slice(kept[0], kept[-1] + 1)


def measurable(
    comparison: SquaredNorms, raw: Float64[Tensor, "n"], dtype: torch.dtype
) -> tuple[Bool[Tensor, "n"], Bool[Tensor, "n"]]:
    """Return which images can be measured: (finite, alive).

    ``raw`` is ‖Φ(f)‖² before the background was subtracted, with which rounding errors scale; ``dtype`` is that of the
    features.
    """
    finite = torch.isfinite(comparison.difference) & torch.isfinite(comparison.expected)
    alive = comparison.expected > raw * _ROUNDING[dtype] ** 2
    return finite, alive
