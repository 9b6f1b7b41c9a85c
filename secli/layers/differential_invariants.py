"""Derivatives that a change of scale leaves as they are: each order divided by its supremum over the picture.

Source: Li, Qiu, Chen, He, Lin, "Affine Equivariant Networks Based on Differential Invariants", CVPR 2024
(InvarPDEs-Net, InvarLayer). With the supremum over all channels, components and pixels of one picture::

    T(u) = [ u/‖u‖,  (u_x, u_y)/‖(u_x, u_y)‖,  (u_xx, u_xy, u_yy)/‖(u_xx, u_xy, u_yy)‖ ]

A derivative of order n of L_s u is s^{−n} times L_s of that of u, everywhere alike, and so is its supremum: T commutes
with L_s. It also forgets how bright a picture is.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.action.images import apply_axes
from secli.layers.toeplitz import filter_matrix

COMPONENTS = 6
"""u, u_x, u_y, u_xx, u_xy, u_yy."""
RADIUS = 3  # derivatives of exp(−(.99 r)²) on 7×7 cells
DECAY = 0.99**2
TINY = 1e-12


def bell_derivatives(
    device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Float[Tensor, "3 7"]:
    """Return e^{−a n²} and its first and second derivative by n, a = .99², on the seven cells about the centre."""
    n = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    bell = torch.exp(-DECAY * n**2)
    kernels = torch.stack([bell, -2 * DECAY * n * bell, (4 * DECAY**2 * n**2 - 2 * DECAY) * bell])
    return kernels.to(device=device, dtype=dtype or torch.get_default_dtype())


def over_supremum(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return x/‖x‖∞, the supremum of each picture by itself; an empty picture stays empty."""
    return x / x.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=TINY)


class DifferentialInvariants(nn.Module):
    """Return T(u): every order of derivative over its supremum.

    Notes
    -----
    Derivatives by correlation with those of exp(−(.99 r)²) on 7×7 cells, zeros outside; u_xy = D_x D_y u. Nothing is
    learned. Maps (N, C, H, W) to (N, 6C, H, W): u, u_x, u_y, u_xx, u_xy, u_yy of all channels, one after the other.
    Without their supremum the filters are no equivariant ones: they have a scale of their own, about .7 cells, which
    features must be wide against.

    Examples
    --------
    >>> DifferentialInvariants()(torch.rand(2, 3, 28, 28)).shape
    torch.Size([2, 18, 28, 28])
    """

    kernels: Tensor

    def __init__(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        # a correlation is a convolution with the turned kernel
        self.register_buffer("kernels", bell_derivatives(device, dtype).flip(1), persistent=False)

    def forward(self, u: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """Return the invariants."""
        (bell, first, second), (bell_, first_, second_) = (
            [filter_matrix(kernel, size) for kernel in self.kernels] for size in u.shape[2:]
        )
        down, across = apply_axes(first, u, bell_), apply_axes(bell, u, first_)
        mixed = apply_axes(bell, down, first_)
        slopes = over_supremum(torch.cat([across, down], dim=1))
        bends = [apply_axes(bell, u, second_), mixed, apply_axes(second, u, bell_)]
        return torch.cat([over_supremum(u), slopes, over_supremum(torch.cat(bends, dim=1))], dim=1)


class InvariantLayer(nn.Sequential):
    """A convolution made of differential invariants: y = W₂ ReLU BN W₁ T(x).

    Notes
    -----
    W₁ (out, 6 · in) and W₂ (out, out) act on each cell by itself, both with a bias. Maps (N, C, H, W) to
    (N, C', H, W).

    Examples
    --------
    >>> InvariantLayer(3, 8)(torch.rand(2, 3, 28, 28)).shape
    torch.Size([2, 8, 28, 28])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.invariants = DifferentialInvariants(device, dtype)
        self.first = nn.Conv2d(COMPONENTS * in_channels, out_channels, 1, device=device, dtype=dtype)
        self.norm = nn.BatchNorm2d(out_channels, device=device, dtype=dtype)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(out_channels, out_channels, 1, device=device, dtype=dtype)


class InvariantStep(nn.Module):
    """One step of a learned partial differential equation: u ← ReLU(u + h · BN(W₂ ReLU BN(W₁ T(u)))).

    Parameters
    ----------
    size : float
        What the learned step size h starts at.

    Notes
    -----
    Maps (N, C, H, W) to itself; every operation commutes with L_s in the continuum.

    Examples
    --------
    >>> InvariantStep(4, 1 / 16)(torch.rand(2, 4, 28, 28)).shape
    torch.Size([2, 4, 28, 28])
    """

    def __init__(
        self,
        channels: int,
        size: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.change = InvariantLayer(channels, channels, device, dtype)
        self.norm = nn.BatchNorm2d(channels, device=device, dtype=dtype)
        self.size = nn.Parameter(torch.full((), size, device=device, dtype=dtype))

    def forward(self, u: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return u one step later."""
        return torch.relu(u + self.size * self.norm(self.change(u)))
