"""Bases for scale-equivariant convolutions that respect the pixel grid, for the layers of ``secli.layers.ses``.

Source: Sosnovik, Moskalev, Smeulders, "DISCO: accurate Discrete Scale Convolutions", BMVC 2021::

    ψ_b^s = Σ_p W_bp κ_p^s

W holds Hermite–Gauss functions on a small grid, p runs over the cells of that grid, and κ_p^s is the unit impulse
at p at scale s: itself on a dilated grid where s is an integer, a fitted kernel elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from secli.layers.basis_cache import cached_array
from secli.layers.disco_fit import (
    CELLS,
    KEYS,
    NOISE_MEAN,
    NOISE_SIDE,
    PICTURE_BLUR,
    Array,
    Images,
    fit_proxies,
    is_integer,
)
from secli.layers.hermite import Basis, basis_a, basis_b

Kind = Literal["A", "B"]

FIT_VERSION = 2  # goes into the cache's key: raise it when the same parameters give other kernels


def disco_basis(
    size: int,
    scales: Sequence[float],
    effective_size: int,
    sigma: float,
    kind: Kind = "A",
    mult: float = 2.0,
    max_order: int = 4,
    images: Images = "noise",
) -> Basis:
    """Return the basis ψ_b^s = Σ_p W_bp κ_p^s, each function divided by its L2 norm at the first scale.

    Parameters
    ----------
    size : int
        Side K of the kernels, odd; at least (e − 1)·s + 1 for the largest scale s.
    scales : sequence of float
        Increasing, the first of them 1. At integer scales the functions are those at scale 1 on a dilated grid,
        exactly; elsewhere they are fitted (:func:`secli.layers.disco_fit.fit_proxies`).
    effective_size : int
        e, odd; the basis has e² functions.
    sigma : float
        σ > 0 of the Hermite–Gauss functions on the e×e grid, in pixels.
    kind : "A" or "B"
        W as :func:`secli.layers.hermite.basis_a` (all orders below e) or ``basis_b`` (low orders, sub-scales).
    mult, max_order
        Of kind B.
    images : "noise" or "blurred"
        The pictures that the fit is made on: white noise, as published, or smooth ones.

    Raises
    ------
    ValueError
        When a size is even, the scales do not increase from 1, the kernel is too small for the largest scale, or
        ``mult`` is not above 1.

    Notes
    -----
    The proxies κ depend only on the size, the scales, e and the pictures. They are fitted once, then cached in
    memory and on disk (in the folder ``disco`` of ``SECLI_CACHE``, else of the user's cache) under a hash of these.
    Each scale is cropped to its support: e at scale 1, (e − 1)·s + 1 at an integer scale. Under
    ``torch.device("meta")`` nothing is fitted: the functions are zeros of the right shapes.

    Examples
    --------
    >>> from secli.layers import SESLift, disco_basis
    >>> basis = disco_basis(5, (1.0, 1.41, 2.0), 3, sigma=0.9)
    >>> SESLift(3, 8, basis, padding=2)(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 8, 3, 16, 16])
    """
    _check(size, scales, effective_size)
    grid = (
        basis_a(effective_size, [sigma], effective_size)
        if kind == "A"
        else basis_b(effective_size, [sigma], effective_size, mult, max_order)
    )
    # the functions at scale 1 are W itself, which is divided by its norms already
    mixing = grid.functions[0].reshape(grid.count, -1)
    steps = tuple(float(scale) for scale in scales)
    if torch.get_default_device().type == "meta":  # only shapes are needed: a fit takes seconds to minutes
        kernels = np.zeros((len(steps), effective_size**2, size, size))
    else:
        kernels = proxies(size, steps, effective_size, images)
    functions = [
        _cropped(np.tensordot(mixing, each, axes=1), scale, effective_size)
        for scale, each in zip(steps, kernels, strict=True)
    ]
    return Basis(size, steps, tuple(functions))


@lru_cache(maxsize=32)
def proxies(size: int, scales: tuple[float, ...], effective_size: int, images: Images = "noise") -> Array:
    """Return the kernels κ_p^s of the e² unit impulses, float64 (scale, e², K, K), read-only; fitted once."""
    parameters = {
        "version": FIT_VERSION,
        "size": size,
        "scales": scales,
        "effective_size": effective_size,
        "images": [NOISE_MEAN, NOISE_SIDE, KEYS] if images == "noise" else PICTURE_BLUR,
        "cells": CELLS,
    }
    kernels = cached_array("disco", parameters, lambda: fit_proxies(size, scales, effective_size, images))
    kernels.setflags(write=False)
    return kernels


def _check(size: int, scales: Sequence[float], effective_size: int) -> None:
    if effective_size % 2 == 0 or effective_size < 1:
        raise ValueError(f"the effective size must be odd and positive, not {effective_size}")
    if size % 2 == 0 or size < 1:
        raise ValueError(f"the kernel size must be odd and positive, not {size}")
    if not scales or scales[0] != 1 or list(scales) != sorted(set(scales)):
        raise ValueError(f"the scales must increase from 1, not {tuple(scales)}")
    if not np.isfinite(scales[-1]) or (effective_size - 1) * scales[-1] + 1 > size:
        raise ValueError(
            f"{effective_size} taps at scale {scales[-1]:g} do not fit in a kernel of size {size}"
        )


def _cropped(functions: Array, scale: float, effective_size: int) -> Array:
    """Remove the zeros around a dilated grid."""
    if not is_integer(scale):
        return functions
    middle, reach = functions.shape[-1] // 2, effective_size // 2 * round(scale)
    return functions[:, middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
