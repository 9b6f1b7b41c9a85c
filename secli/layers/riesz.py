"""Riesz transforms as a convolution: filters without a scale, which commute with every rescaling.

Source: Barisin, Schladitz, Redenbach, "Riesz networks: scale invariant neural networks in a single forward pass",
2023. On the plane the transforms of order one and two have the symbols (u the frequency)::

    R_j ↔ −i u_j/|u|,      R_jk = R_j R_k ↔ −u_j u_k/|u|²
    y = Σ_j C_j R_j x + Σ_{j≤k} C_jk R_jk x + b

The symbols are homogeneous of degree zero, hence R(L_s f) = L_s(R f) for every s. Since R_11 + R_22 = −1 up to the
mean, order zero is among these combinations.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

TRANSFORMS = 5
"""R_1, R_2, R_11, R_12, R_22, axis 1 along rows' index."""


def riesz_symbols(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> Complex[Tensor, "5 h v"]:
    """Return the symbols of R_1, R_2, R_11, R_12, R_22 on the half-plane of frequencies that a real transform has.

    Parameters
    ----------
    height, width : int
        Sides of the canvas, odd: the frequency π, of which an even side has one sign alone, would leave an odd symbol
        no real filter.
    dtype : torch.dtype
        Of the real numbers.

    Raises
    ------
    ValueError
        When a side is even.
    """
    if height % 2 == 0 or width % 2 == 0:
        raise ValueError(f"the sides of the canvas must be odd, not {height}×{width}")
    down = torch.fft.fftfreq(height, device=device, dtype=dtype)[:, None]
    across = torch.fft.rfftfreq(width, device=device, dtype=dtype)[None, :]
    size = (down**2 + across**2).sqrt()
    size = torch.where(size == 0, 1.0, size)  # the mean has no direction: the symbol is 0 there
    first, second = (down / size).expand(size.shape), (across / size).expand(size.shape)
    nothing = torch.zeros_like(first)
    real = torch.stack([nothing, nothing, -first * first, -first * second, -second * second])
    imaginary = torch.stack([-first, -second, nothing, nothing, nothing])
    return torch.complex(real, imaginary)


def riesz_transforms(x: Float[Tensor, "*batch h w"]) -> Float[Tensor, "5 *batch h w"]:
    """Return R_1, R_2, R_11, R_12, R_22 of planes, zeros outside.

    The canvas has 2n + 1 cells along a side of n, so that what lies beyond one edge is not met beyond the other.

    Examples
    --------
    >>> riesz_transforms(torch.rand(2, 3, 8, 6)).shape
    torch.Size([5, 2, 3, 8, 6])
    """
    planes = x.to(torch.promote_types(x.dtype, torch.float32))
    height, width = x.shape[-2:]
    canvas = (2 * height + 1, 2 * width + 1)
    symbols = riesz_symbols(*canvas, planes.dtype, planes.device)
    spectra = torch.fft.rfft2(planes, canvas)
    filtered = torch.stack([torch.fft.irfft2(spectra * symbol, canvas) for symbol in symbols])
    return filtered[..., :height, :width]


class RieszConv(nn.Module):
    """Combine the Riesz transforms of orders 1 and 2 of all channels: y = Σ C_j R_j x + Σ C_jk R_jk x + b.

    Parameters
    ----------
    bias : bool
        Whether a constant is added to every output channel.

    Notes
    -----
    Weight (out, 5 · in, 1, 1), the transforms one after the other. Maps (N, C, H, W) to (N, C', H, W). A transform
    reaches across the whole plane, its filter falling as 1/r²; what a finite canvas cuts off is the layer's error.

    Examples
    --------
    >>> RieszConv(1, 8)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 8, 28, 28])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.mix = nn.Conv2d(TRANSFORMS * in_channels, out_channels, 1, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h w"]:
        """Return the responses."""
        transforms = riesz_transforms(x).to(x.dtype)
        y: Tensor = self.mix(transforms.transpose(0, 1).flatten(1, 2))
        return y
