"""Scale-steerable convolution: one set of complex coefficients gives a kernel of every size; the largest wins.

Source: Ghosh, Gupta, "Scale Steerable Filters for Locally Scale-Invariant Convolutional Neural Networks", 2019,
sections 3 and 4. With the log-radial harmonics S_kj of :mod:`secli.layers.log_radial`, sizes K and s = K/K_ref::

    κ_K = Re Σ_kj c_kj e^{−ik' ln s} S_kj        (the central K×K pixels)
    y = max_K x ⋆ κ_K

As S_kj falls as 1/r and is not renormalised, κ at scale s is that at scale 1 magnified and divided by s, not by
s²: in the continuum the response to a picture magnified by s is s times the magnified response. As published, the
law holds only approximately: the real and imaginary filters have norms of their own, the centre counts as r = 1,
and the largest kernel is cut to a disk while the smaller ones are squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.layers.fast.running_max import largest
from secli.layers.log_radial import log_radial_filters, radial_frequencies, turned_filters
from secli.layers.ses import cropped_conv2d


class ScaleSteerableConv(nn.Module):
    """Scale-steerable convolution: y = max_K x ⋆ κ_K, its kernels κ_K steered to every size K.

    Parameters
    ----------
    sizes : sequence of int
        Sides K of the kernels in pixels, odd, increasing; the filters are built on the grid of the largest.
    orders : sequence of float
        k of the radial harmonics, in periods from the centre to the corner of that grid.
    angles : int
        Number of directions, equally spaced in [0, π], both ends included.
    sigma_phi : float
        Angular width σ_φ > 0 in radians.
    phase : float
        β in radians.
    reference_size : int
        K_ref: the size of scale s = 1.
    stride, padding : int
        In space. The padding is that of the largest kernel (default: half of it, which keeps the size), less for a
        smaller one by the difference of their reach, so that all sizes keep one grid.
    maximum : bool
        Whether the largest response over sizes is taken, or all are returned on a scale axis.
    relu : bool
        Whether a ReLU follows.
    device, dtype
        As for any torch module; the filters are computed in float64 and rounded once.

    Raises
    ------
    ValueError
        When the sizes are not odd, at least 3 or not increasing, or the filters' arguments are out of range.

    Notes
    -----
    Weights ``real`` and ``imag`` (order, out, in, angle): the coefficients c = real + i·imag; no bias. Maps
    (N, C, H, W) to (N, C', H', W'), or to (N, C', S, H', W') with ``maximum=False``.

    Sizes are a scale axis: content of scale s that answers at size K answers at size K·s when it is magnified.

    Examples
    --------
    >>> layer = ScaleSteerableConv(1, 8, sizes=(5, 7, 9, 11, 13))
    >>> layer(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 8, 28, 28])
    >>> ScaleSteerableConv(1, 8, sizes=(3, 5, 7), orders=(1,), maximum=False)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 8, 3, 28, 28])
    """

    basis: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        sizes: Sequence[int],
        orders: Sequence[float] = (0.5, 1.0, 2.0),
        angles: int = 9,
        sigma_phi: float = math.pi / 16,
        phase: float = -math.pi / 4,
        reference_size: int = 11,
        stride: int = 1,
        padding: int | None = None,
        maximum: bool = True,
        relu: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.sizes = checked_sizes(sizes)
        if reference_size < 1:
            raise ValueError(f"the reference size must be positive, not {reference_size}")
        self.scales = tuple(size / reference_size for size in self.sizes)
        self.stride, self.padding = stride, self.sizes[-1] // 2 if padding is None else padding
        self.maximum, self.relu = maximum, relu
        basis = steered_basis(self.sizes, self.scales, orders, angles, sigma_phi, phase)
        shape = (len(orders), out_channels, in_channels, angles)
        self.real = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.imag = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.register_buffer("basis", basis.to(self.real), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both parts of the coefficients uniformly in ±√(2/(9 · in · out)), as published code does.

        The kernels are then small and shrink with both widths; batch norms behind them make up for that.
        """
        _, outputs, inputs, _ = self.real.shape
        bound = math.sqrt(2 / (9 * inputs * outputs))
        nn.init.uniform_(self.real, -bound, bound)
        nn.init.uniform_(self.imag, -bound, bound)

    def kernels(self) -> list[Tensor]:
        """Return the kernels, one (out, in, K, K) per size."""
        # (order, out, in, angle) → (out, in, part · order · angle), the order of the basis's rows
        coefficients = torch.stack([self.real, self.imag]).permute(2, 3, 0, 1, 4).flatten(2)
        areas = [size**2 for size in self.sizes]
        lines = torch.split(torch.matmul(coefficients, self.basis), areas, dim=-1)
        return [
            line.reshape(*line.shape[:2], size, size) for line, size in zip(lines, self.sizes, strict=True)
        ]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o *s y x"]:
        """Return the largest response over sizes, or all of them."""
        responses = (
            cropped_conv2d(x, kernel, self.sizes[-1], self.stride, self.padding) for kernel in self.kernels()
        )
        y = largest(responses) if self.maximum else torch.stack(list(responses), dim=2)
        return torch.relu(y) if self.relu else y

    def extra_repr(self) -> str:
        """Show channels, orders, angles and sizes."""
        orders, out_channels, in_channels, angles = self.real.shape
        return f"{in_channels}, {out_channels}, sizes={self.sizes}, orders={orders}, angles={angles}"


def checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes as a tuple; raise ``ValueError`` unless they are odd, at least 3 and increasing."""
    wrong = not sizes or min(sizes) < 3 or any(size % 2 == 0 for size in sizes)
    if wrong or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"the sizes must be odd, at least 3 and increasing, not {tuple(sizes)}")
    return tuple(sizes)


def steered_basis(
    sizes: Sequence[int],
    scales: Sequence[float],
    orders: Sequence[float],
    angles: int,
    sigma_phi: float,
    phase: float,
) -> Float[Tensor, "b pixels"]:
    """Return the factors of the real and imaginary coefficients for all sizes, float64 (2 · orders · angles, Σ K²).

    As Re[(a + ib)(P + iQ)] = aP − bQ, the rows are P of every order and angle, then −Q; the columns are the
    pixels of the K×K kernels, size after size.
    """
    filters = log_radial_filters(sizes[-1], orders, angles, sigma_phi, phase)
    frequencies = radial_frequencies(sizes[-1], orders)
    turned = [
        torch.from_numpy(turned_filters(filters, frequencies, size, scale)).flatten(2).flatten(0, 1)
        for size, scale in zip(sizes, scales, strict=True)
    ]
    joined = torch.cat(turned, dim=1)
    return torch.cat([joined.real, -joined.imag])
