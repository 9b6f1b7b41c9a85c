"""Gaussian derivatives as a convolution: a learned combination of the 2-jet of every channel, at every scale.

Source: Lindeberg, "Scale-covariant and scale-invariant Gaussian derivative networks", JMIV 2022. With scale-normalised
derivatives ``L_{ξ^a η^b} = σ^{a+b} ∂_x^a ∂_y^b (g_σ ⋆ x)``::

    y = C₀ L + C_ξ L_ξ + C_η L_η + C_ξξ L_ξξ + C_ξη L_ξη + C_ηη L_ηη + b

The C are matrices (out, in) that all scale channels share. On the grid g_σ is the discrete Gaussian, and a derivative a
central difference of it (Lindeberg, "Discrete derivative approximations with scale-space properties", JMIV 1993)::

    δ_x L(i) = (L(i + 1) − L(i − 1))/2,      δ_xx L(i) = L(i + 1) − 2L(i) + L(i − 1)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from secli.action.images import apply_axes
from secli.layers.fast.levels import stack_levels
from secli.layers.gaussian import discrete_gaussian
from secli.layers.toeplitz import filter_matrix

JET = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))
"""Orders of the derivatives along rows' and columns' index, up to two together."""


def derivative_kernels(sigma: float) -> NDArray[np.float64]:
    """Return σ^a δ^a of the discrete Gaussian of deviation σ pixels, for a = 0, 1, 2: an array (3, taps).

    Examples
    --------
    >>> derivative_kernels(1.0).shape
    (3, 11)
    """
    gaussian = np.pad(discrete_gaussian(sigma**2), 2)
    ahead, here, behind = gaussian[2:], gaussian[1:-1], gaussian[:-2]
    return np.stack([here, sigma * (ahead - behind) / 2, sigma**2 * (ahead - 2 * here + behind)])


class GaussianDerivativeConv(nn.Module):
    """Combine the scale-normalised Gaussian derivatives of orders 0 to 2 of all channels, at every scale.

    Parameters
    ----------
    scales : sequence of float
        σ_k of the S scale channels, increasing, in cells of the input.
    residual : bool
        Whether the input is added: its channels to the first of the output. A plane is not added.
    bias : bool
        Whether a constant is added to every output channel.

    Raises
    ------
    ValueError
        When the scales are not positive and increasing, a residual layer has fewer outputs than inputs, or (on use) a
        scale space has other levels.

    Notes
    -----
    Weight (out, 6 · in, 1, 1), the six derivatives one after the other. Maps an image (N, C, H, W), which every scale
    channel sees, or a scale space (N, C, S, H, W) to (N, C', S, H, W); zeros outside. No channel sees another, so that
    a shift of the levels of the input shifts those of the output.

    Examples
    --------
    >>> layer = GaussianDerivativeConv(1, 8, scales=(1.0, 1.41, 2.0))
    >>> layer(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 8, 3, 28, 28])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scales: Sequence[float],
        residual: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.scales = tuple(float(sigma) for sigma in scales)
        if not self.scales or self.scales[0] <= 0 or list(self.scales) != sorted(set(self.scales)):
            raise ValueError(f"the scales must be positive and increasing, not {self.scales}")
        if residual and out_channels < in_channels:
            raise ValueError(
                f"a residual layer cannot have fewer outputs than inputs, {out_channels} of {in_channels}"
            )
        self.residual = residual
        self.mix = nn.Conv2d(len(JET) * in_channels, out_channels, 1, bias=bias, device=device, dtype=dtype)
        for k, sigma in enumerate(self.scales):
            kernels = torch.from_numpy(derivative_kernels(sigma)).to(self.mix.weight)
            self.register_buffer(f"kernels{k}", kernels, persistent=False)

    def jet(self, x: Float[Tensor, "n c h w"], level: int) -> Float[Tensor, "n d h w"]:
        """Return the six derivatives of every channel at one scale, D = 6 · C."""
        kernels = self.get_buffer(f"kernels{level}")
        down, across = ([filter_matrix(kernel, size) for kernel in kernels] for size in x.shape[2:])
        return torch.cat([apply_axes(down[a], x, across[b]) for a, b in JET], dim=1)

    def forward(self, x: Float[Tensor, "n c *s h w"]) -> Float[Tensor, "n o k h w"]:
        """Return the responses at every scale."""
        if x.dim() == 5 and x.shape[2] != len(self.scales):
            raise ValueError(f"the layer has {len(self.scales)} scales, its input {x.shape[2]} levels")
        levels = x.unbind(2) if x.dim() == 5 else [x] * len(self.scales)
        y = stack_levels(self.mix(self.jet(level, k)) for k, level in enumerate(levels))
        if not self.residual or x.dim() == 4:
            return y
        return torch.cat([y[:, : x.shape[1]] + x, y[:, x.shape[1] :]], dim=1)

    def extra_repr(self) -> str:
        """Show the scales."""
        return f"scales={self.scales}, residual={self.residual}"
