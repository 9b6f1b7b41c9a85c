"""Scale convolution: one tied kernel, dilated with the level it acts on.

Source: Worrall, Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019, section 4::

    y_k = Σ_{j<I} x_{k+j} ⋆ D_{b^k} w_j

with D_d the dilation of the kernel by d. Where b^k is no integer, published code takes ⌊b^k⌋, which for small
bases is not a dilation at all (b = 1.2 gives 1, 1, 1, 1); ``exact`` splats the tied kernel bilinearly instead.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from secli.layers.ses import check_levels, join_levels

Dilation = Literal["floor", "round", "exact"]

# b^k is rounded in float64: √2² must count as 2, not as just below it
_TINY = 1e-9


def dilations(base: float, levels: int, how: Dilation = "floor") -> tuple[float, ...]:
    """Return the dilation of each level: b^k, made an integer by ``floor`` or ``round``, or left as it is.

    Examples
    --------
    >>> dilations(1.5, 4)
    (1.0, 1.0, 2.0, 3.0)
    >>> dilations(1.5, 4, "exact")
    (1.0, 1.5, 2.25, 3.375)
    """
    if not base > 1:
        raise ValueError(f"the base must be greater than 1, not {base:g}")
    exact = [float(base) ** k for k in range(levels)]
    if how == "floor":
        return tuple(float(math.floor(d + _TINY)) for d in exact)
    if how == "round":
        return tuple(float(math.floor(d + 0.5 + _TINY)) for d in exact)
    return tuple(float(round(d)) if abs(d - round(d)) < _TINY * d else d for d in exact)


def splatting(size: int, dilation: float) -> Float[Tensor, "p k"]:
    """Return the matrix (2⌈r·d⌉ + 1, K) that spreads K taps, d apart, onto the integer grid that contains them.

    Tap i is at (i − r)·d, r = (K − 1)/2; its weight goes to the two neighbouring cells in proportion to their
    nearness. Sums and first moments of the kernel are kept. float64.
    """
    radius = (size - 1) // 2
    reach = math.ceil(radius * dilation - _TINY)
    positions = (np.arange(size) - radius) * dilation
    cells = np.arange(-reach, reach + 1)
    return torch.from_numpy(np.maximum(0.0, 1.0 - np.abs(cells[:, None] - positions[None, :])))


class DSSConv(nn.Module):
    """Scale convolution: level k uses the tied kernel dilated by b^k on levels k … k + I − 1.

    Parameters
    ----------
    base : float
        b > 1, the ratio of neighbouring scales.
    dilation : "floor", "round" or "exact"
        How b^k becomes a dilation; ``exact`` splats the kernel bilinearly.
    drop_top : bool
        Whether the I − 1 levels at the top, which have fewer terms, are dropped.
    stride, padding : int
        In space. The padding is that of the undilated kernel (default K//2: the size is kept); a dilated kernel
        is padded by its additional reach, too, so that all levels keep one grid.
    out_levels : int, optional
        How many levels are kept, from the lowest; S, or S − I + 1 with ``drop_top``, by default.

    Raises
    ------
    ValueError
        When the size is even, the base not above 1, the interaction or the levels kept are not within 1 … S, or levels
        to keep and ``drop_top`` are both given.

    Notes
    -----
    Weight (out, in, I, K, K), He-normal. Maps (N, C, S, H, W) to (N, C', S', H', W'), S' the levels kept.

    Examples
    --------
    >>> from secli.layers import DSSConv, ScaleSpaceLift
    >>> lift, conv = ScaleSpaceLift(1.5, 0.5, 4), DSSConv(1, 8, 3, 1.5, 4, interaction=2, dilation="exact")
    >>> conv(lift(torch.rand(2, 1, 28, 28))).shape
    torch.Size([2, 8, 4, 28, 28])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        base: float,
        levels: int,
        interaction: int = 1,
        dilation: Dilation = "floor",
        drop_top: bool = False,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        out_levels: int | None = None,
    ) -> None:
        super().__init__()
        if size % 2 == 0 or size < 1:
            raise ValueError(f"the kernel size must be odd and positive, not {size}")
        if not 1 <= interaction <= levels:
            raise ValueError(f"interaction must be 1 to {levels} (the levels), not {interaction}")
        if out_levels is not None and (drop_top or not 1 <= out_levels <= levels):
            raise ValueError(
                f"of {levels} levels {out_levels} cannot be kept"
                if not drop_top
                else "the levels to keep and drop_top exclude each other"
            )
        self.size, self.levels, self.interaction = size, levels, interaction
        self.stride, self.padding = stride, size // 2 if padding is None else padding
        self.out_levels = levels - interaction + 1 if drop_top else out_levels or levels
        self.dilations = dilations(base, self.out_levels, dilation)
        shape = (out_channels, in_channels, interaction, size, size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        for k, d in enumerate(self.dilations):
            if not d.is_integer():
                self.register_buffer(f"splat{k}", splatting(size, d).to(self.weight), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights He-normally over in · I · K² inputs; the bias starts at zero."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n o t y x"]:
        """Return the responses at every level that is kept."""
        check_levels(x, self.levels)
        levels = [self._level(x, k) for k in range(self.out_levels)]
        y = torch.stack(levels, dim=2)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1, 1)

    def _level(self, x: Float[Tensor, "n c s h w"], k: int) -> Float[Tensor, "n o y x"]:
        joined, kernel = join_levels(x, self.weight, k)
        spacing = self.dilations[k]
        step = int(spacing) if spacing.is_integer() else 1
        if not spacing.is_integer():
            splat = self.get_buffer(f"splat{k}")
            kernel = splat @ kernel @ splat.T
        reach = step * (kernel.shape[-1] // 2)
        padding = self.padding - self.size // 2 + reach
        return functional.conv2d(joined, kernel, stride=self.stride, padding=padding, dilation=step)

    def extra_repr(self) -> str:
        """Show the dilations."""
        return f"dilations={self.dilations}, interaction={self.interaction}, levels={self.levels}"
