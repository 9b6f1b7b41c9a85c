"""A pyramid of shrunk pictures under one undilated kernel, as a list of planes (N, C, H_k, W_k).

Source: Worrall, Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019, with its scale space sampled as
coarsely as it is wide: where the dilated kernel reads every b^k-th pixel of level k, here level k holds no others::

    lift          x_k(i) = f(b^k i)                                   (bilinear, not blurred)
    convolution   y_k = Σ_{j<I} (R_j x_{k+j}) ⋆ w_j                   (R_j: bilinear enlargement by b^j)

Cells of level k are exactly b^k pixels apart and symmetric about the picture's centre, whatever its size:
rounded spacings (28 → 3 cells of 9.33 pixels) would have no common ratio, and cells counted from the corner no common
centre. Outside a level there are zeros.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from secli.action.images import apply_axes
from secli.layers.pooling import SpatialPool

Level = Float[Tensor, "n c _ _"]
Mixed = Float[Tensor, "n o _ _"]  # a level whose channels were mixed

# n/b^k is rounded in float64: 28/1.4² must not count as just above the next whole number
_TINY = 1e-9


def level_size(size: int, base: float, level: int, multiple: int = 1) -> int:
    """Return how many cells, b^k pixels apart, cover a side of ``size`` pixels: the next multiple of ``multiple``.

    Examples
    --------
    >>> [level_size(28, 2.0, k) for k in range(4)], [level_size(28, 2.0, k, multiple=4) for k in range(4)]
    ([28, 14, 7, 4], [28, 16, 8, 4])
    """
    return multiple * math.ceil(size / (multiple * base**level) - _TINY)


def bilinear_reading(n_in: int, n_out: int, step: float, like: Tensor) -> Float[Tensor, "n_out n_in"]:
    """Return the matrix that reads n_in cells bilinearly at n_out positions, ``step`` cells apart, about one centre.

    Zeros outside: a position less than one cell beyond the last one reads part of it.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    cells = torch.arange(n_in, device=like.device, dtype=dtype) - (n_in - 1) / 2
    positions = (torch.arange(n_out, device=like.device, dtype=dtype) - (n_out - 1) / 2) * step
    return (1 - (positions[:, None] - cells).abs()).clamp(min=0).to(like.dtype)


def resampled_level(x: Level, size: tuple[int, int], step: float) -> Level:
    """Read planes bilinearly on another grid about the same centre; the planes themselves where nothing moves."""
    if step == 1 and tuple(x.shape[2:]) == size:
        return x
    rows, columns = (bilinear_reading(n, m, step, x) for n, m in zip(x.shape[2:], size, strict=True))
    return apply_axes(rows, x, columns)


class PyramidLift(nn.Module):
    """Lift images to a pyramid: level k reads the image bilinearly every b^k pixels; level 0 is the image.

    Parameters
    ----------
    multiple : int
        Sides of the levels are the next multiple of this many cells that covers the image, the rest being zeros: so
        poolings that follow cut nothing off and keep the centre. Level 0 then has a margin where the image's side is
        no such multiple, and is shifted by half a pixel (and blurred as much) where that side is odd and the multiple
        even.

    Raises
    ------
    ValueError
        When the base is not above 1, or levels or multiple are below 1.

    Notes
    -----
    x_k(i) = f(b^k i), i about the centre. Nothing is learned. Where b^k divides the side this is
    ``interpolate(scale_factor=b^−k, mode="bilinear", align_corners=False)``. Maps (N, C, H, W) to S planes
    (N, C, H_k, W_k), from fine to coarse.

    Examples
    --------
    >>> [tuple(level.shape) for level in PyramidLift(base=2.0, levels=3)(torch.rand(1, 1, 28, 20))]
    [(1, 1, 28, 20), (1, 1, 14, 10), (1, 1, 7, 5)]
    """

    def __init__(self, base: float, levels: int, multiple: int = 1) -> None:
        super().__init__()
        if not base > 1:
            raise ValueError(f"the base must be greater than 1, not {base:g}")
        if levels < 1 or multiple < 1:
            raise ValueError(f"levels and multiple must be at least 1, not {levels} and {multiple}")
        self.base, self.levels, self.multiple = base, levels, multiple

    def forward(self, x: Float[Tensor, "n c h w"]) -> list[Level]:
        """Return the pyramid."""
        height, width = x.shape[2:]
        return [
            resampled_level(x, (self._side(height, k), self._side(width, k)), self.base**k)
            for k in range(self.levels)
        ]

    def _side(self, size: int, level: int) -> int:
        return level_size(size, self.base, level, self.multiple)

    def extra_repr(self) -> str:
        """Show base, levels and multiple."""
        return f"base={self.base:g}, levels={self.levels}, multiple={self.multiple}"


class PyramidConv(nn.Module):
    """Convolve a pyramid: one undilated kernel on every level and, with interaction, on the coarser ones enlarged.

    Parameters
    ----------
    interaction : int
        I, the number of neighbouring levels that are mixed; coarser ones are read bilinearly on the finer grid, so
        that the same kernel spans the same part of the picture on all of them.
    drop_top : bool
        Whether the I − 1 coarsest levels, which have fewer terms, are left out.
    stride, padding : int
        In cells of each level; the default padding K//2 keeps the sizes. A stride above 1 starts at the corner:
        it keeps the levels' common centre only where (side − 1)/stride is whole on all of them; pool instead.

    Raises
    ------
    ValueError
        When the size is even, the base not above 1, or the interaction not within 1 … S; on use, when the list has
        another length.

    Notes
    -----
    Weight (out, in, I, K, K), He-normal. Maps S planes (N, C, H_k, W_k) to S' = S or S − I + 1 of them.

    Examples
    --------
    >>> pyramid = PyramidLift(base=1.5, levels=3)(torch.rand(1, 2, 18, 18))
    >>> layer = PyramidConv(2, 4, 3, base=1.5, levels=3, interaction=2, drop_top=True)
    >>> [tuple(level.shape) for level in layer(pyramid)]
    [(1, 4, 18, 18), (1, 4, 12, 12)]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        base: float,
        levels: int,
        interaction: int = 1,
        drop_top: bool = False,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if size % 2 == 0 or size < 1:
            raise ValueError(f"the kernel size must be odd and positive, not {size}")
        if not base > 1:
            raise ValueError(f"the base must be greater than 1, not {base:g}")
        if not 1 <= interaction <= levels:
            raise ValueError(f"interaction must be 1 to {levels} (the levels), not {interaction}")
        self.base, self.levels, self.interaction = base, levels, interaction
        self.stride, self.padding = stride, size // 2 if padding is None else padding
        self.out_levels = levels - interaction + 1 if drop_top else levels
        shape = (out_channels, in_channels, interaction, size, size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights He-normally over in · I · K² inputs; the bias starts at zero."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, pyramid: list[Level]) -> list[Mixed]:
        """Return the responses at every level that is kept."""
        if len(pyramid) != self.levels:
            raise ValueError(f"the layer has {self.levels} levels, its input {len(pyramid)}")
        return [self._level(pyramid, k) for k in range(self.out_levels)]

    def _level(self, pyramid: list[Level], k: int) -> Mixed:
        terms = pyramid[k : k + self.interaction]
        size = (terms[0].shape[2], terms[0].shape[3])
        # a coarser level is read at steps below one of its cells
        joined = torch.stack([resampled_level(x, size, self.base**-j) for j, x in enumerate(terms)], dim=2)
        kernel = self.weight[:, :, : len(terms)].flatten(1, 2)
        return functional.conv2d(
            joined.flatten(1, 2), kernel, self.bias, stride=self.stride, padding=self.padding
        )

    def extra_repr(self) -> str:
        """Show base, interaction and levels."""
        return f"base={self.base:g}, interaction={self.interaction}, levels={self.levels}"


class PyramidPool(nn.Module):
    """Max- or average-pooling of every level alone: (N, C, H_k, W_k) to (N, C, ⌊H_k/K⌋, ⌊W_k/K⌋), unpadded.

    Parameters
    ----------
    kernel : int
        Side K of the window and its step, in cells of each level; cells keep their common centre where K divides
        the sides.

    Examples
    --------
    >>> pyramid = PyramidLift(base=2.0, levels=2)(torch.rand(1, 1, 8, 8))
    >>> [tuple(level.shape) for level in PyramidPool(2, how="mean")(pyramid)]
    [(1, 1, 4, 4), (1, 1, 2, 2)]
    """

    def __init__(self, kernel: int, how: Literal["max", "mean"] = "max") -> None:
        super().__init__()
        self.pool = SpatialPool(kernel, how=how)

    def forward(self, pyramid: list[Level]) -> list[Level]:
        """Return the pooled levels."""
        return [self.pool(level) for level in pyramid]


class PyramidBatchNorm(nn.BatchNorm1d):
    """Batch normalisation per channel, over the cells of all levels together: each cell counts once.

    Statistics of each level by itself would tell the levels apart, which a convolution shared by them does not.

    Examples
    --------
    >>> pyramid = PyramidLift(base=2.0, levels=2)(torch.rand(1, 3, 8, 8))
    >>> [tuple(level.shape) for level in PyramidBatchNorm(3)(pyramid)]
    [(1, 3, 8, 8), (1, 3, 4, 4)]
    """

    def forward(self, pyramid: list[Level]) -> list[Level]:  # type: ignore[override]  # a list for a tensor
        """Return the normalised levels."""
        flat = [level.flatten(2) for level in pyramid]
        normed = torch.split(
            super().forward(torch.cat(flat, dim=2)), [cells.shape[2] for cells in flat], dim=2
        )
        return [cells.reshape(level.shape) for cells, level in zip(normed, pyramid, strict=True)]


class PyramidStack(nn.Module):
    """Max-pool all levels to the size of the coarsest one and stack them to a scale space.

    Notes
    -----
    Windows are those of the coarsest level's cells. A finer level that spans less of the plane is first surrounded by
    zeros, to within its own cells, so that windows of all levels see the same part of the picture. Maps S planes
    (N, C, H_k, W_k) to (N, C, S, H_{S−1}, W_{S−1}).

    Examples
    --------
    >>> pyramid = PyramidLift(base=2.0, levels=3)(torch.rand(1, 1, 12, 12))
    >>> PyramidStack(base=2.0)(pyramid).shape
    torch.Size([1, 1, 3, 3, 3])
    """

    def __init__(self, base: float) -> None:
        super().__init__()
        self.base = base

    def forward(self, pyramid: list[Level]) -> Float[Tensor, "n c s h w"]:
        """Return the scale space."""
        size = (pyramid[-1].shape[2], pyramid[-1].shape[3])
        top = len(pyramid) - 1
        planes = [
            functional.adaptive_max_pool2d(self._widened(level, size, self.base ** (top - k)), size)
            for k, level in enumerate(pyramid)
        ]
        return torch.stack(planes, dim=2)

    def _widened(self, level: Level, size: tuple[int, int], ratio: float) -> Level:
        """Surround a level by zeros until it spans ``size`` cells that are ``ratio`` of its own wide."""
        down, right = (
            max(0, round((cells * ratio - own) / 2)) for cells, own in zip(size, level.shape[2:], strict=True)
        )
        return functional.pad(level, (right, right, down, down))

    def extra_repr(self) -> str:
        """Show the base."""
        return f"base={self.base:g}"
