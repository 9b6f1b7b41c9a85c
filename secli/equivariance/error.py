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

from secli.config import Metric
from secli.fields import Acted

# Features this far below what they were before the background was taken away are rounding, not signal.
_ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-14}


class Comparison(NamedTuple):
    """One feature map compared, image by image.

    Attributes
    ----------
    difference
        ‖L_sΦ(f) − Φ(L_s f)‖², shape (N,).
    expected
        ‖L_sΦ(f)‖², shape (N,).
    """

    difference: Float64[Tensor, "n"]
    expected: Float64[Tensor, "n"]


def compare(acted: Acted, actual: Sequence[Tensor]) -> Comparison:
    """Return the squared norms that every metric is made of.

    Parameters
    ----------
    acted : Acted
        L_sΦ(f) with its masks.
    actual : sequence of tensors
        Φ(L_s f), in the same shapes.
    """
    difference = [
        squared_norm(expected - other, mask)
        for expected, other, mask in zip(acted.features, actual, acted.masks, strict=True)
    ]
    expected = [
        squared_norm(features, mask) for features, mask in zip(acted.features, acted.masks, strict=True)
    ]
    return Comparison(torch.stack(difference).sum(0), torch.stack(expected).sum(0))


def squared_norm(features: Tensor, mask: Bool[Tensor, "..."] | None = None) -> Float64[Tensor, "n"]:
    """Return the squared Frobenius norm of each image's features over the cells that the mask keeps.

    Parameters
    ----------
    features : tensor (N, …)
        Any features.
    mask : bool tensor, optional
        Broadcasts to ``features``; what it excludes does not count, not even when it is not finite.
    """
    if mask is not None:
        features = torch.where(mask, features, features.new_zeros(()))
    norms: Tensor = torch.linalg.vector_norm(features.flatten(1), dim=1, dtype=torch.float64)
    return norms.square()


def measurable(
    comparison: Comparison, raw: Float64[Tensor, "n"], dtype: torch.dtype
) -> tuple[Bool[Tensor, "n"], Bool[Tensor, "n"]]:
    """Tell which images can be measured: (finite, alive).

    Parameters
    ----------
    comparison : Comparison
        The squared norms.
    raw : tensor (N,)
        ‖Φ(f)‖² before the background was taken away: the size that rounding errors scale with.
    dtype : torch.dtype
        Type of the features.
    """
    finite = torch.isfinite(comparison.difference) & torch.isfinite(comparison.expected)
    alive = comparison.expected > raw * _ROUNDING[dtype] ** 2
    return finite, alive


def metric_value(comparison: Comparison, metric: Metric) -> Float64[Tensor, "n"]:
    """Return the error of each image.

    Parameters
    ----------
    comparison : Comparison
        The squared norms.
    metric : str
        ``squared``: ‖d‖²/‖e‖², the equivariance error Δ; ``relative``: ‖d‖/‖e‖; ``absolute``: ‖d‖.

    Returns
    -------
    tensor (N,)
        0 is perfect; for ``squared`` and ``relative`` 1 is as far as the zero map, and there is no upper bound.
    """
    if metric == "absolute":
        return comparison.difference.sqrt()
    ratio = comparison.difference / comparison.expected
    return ratio.sqrt() if metric == "relative" else ratio
