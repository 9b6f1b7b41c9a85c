"""Columns of one kernel at several scales: a multi-column network whose columns share their weights.

Source: Xu, Xiao, Zhang, Yang, Zhang, "Scale-Invariant Convolutional Neural Networks", 2014, section 3::

    lift   y_k = f ⋆ D_{s_k} w
    next   y_k = x_k ⋆ D_{s_k} w

with D_s the resizing of the kernel by s, its L1 norm restored. A column sees what the column of scale 1 would see in
a picture resized by 1/s, so that the columns are the levels of a scale space, although no convolution mixes them.

The resizing is linear and separable: one fixed matrix per scale, without the rows outside the resized kernel. The
smallest of seven columns of a 7×7 kernel then costs 9 taps, not the 529 of its zero-padded form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.layers.canvas import canvas_matrix, resized
from secli.layers.ses import check_levels, cropped_conv2d


def column_side(size: int, scales: Sequence[float]) -> int:
    """Return P = K + 2⌈(⌊K·max s⌋ − K)/2⌉, the side that contains the kernel at every scale; 1 for a 1×1 kernel.

    Examples
    --------
    >>> column_side(7, (0.3, 1, 3.33)), column_side(3, (0.67, 1, 1.5)), column_side(1, (0.67, 1, 1.5))
    (23, 5, 1)
    """
    return 1 if size == 1 else size + 2 * math.ceil(max(0, resized(size, max(scales)) - size) / 2)


def column_matrix(size: int, side: int, scale: float) -> Float[Tensor, "side k"]:
    """Return the matrix (P, K) that pads an axis of K taps to P, resizes it by s and crops or pads it to P again.

    s < 1: bilinear with aligned corners, to ⌊P·s⌋ taps; s > 1: the nearest tap, tap i reading ⌊i/s⌋. Then
    (P − m)//2 zeros to the left of m taps, or as many taps cut off. float64; K and P odd; the identity for K = 1.

    Examples
    --------
    >>> column_matrix(3, 5, 1.5).int().tolist()
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
    """
    first = (side - size) // 2
    padding = torch.eye(side, dtype=torch.float64)[:, first : first + size]
    if size == 1 or scale == 1:
        return padding
    cells = resized(side, scale)
    if scale < 1:
        return canvas_matrix(side, cells) @ padding
    index = torch.arange(side) - (side - cells) // 2  # never outside: the resized axis covers the canvas
    return padding[(index / scale + 1e-9).floor().long()]


class ColumnKernels(nn.Module):
    """The kernels D_{s_k} w of one layer: a learned one, resized to every column's scale.

    Parameters
    ----------
    size : int
        Side K of the learned kernel, odd; a 1×1 kernel is the same in every column.
    scales : sequence of float
        Scales s_k of the columns, increasing.
    stride, padding : int
        In space, as for a P×P convolution (default P//2: the size is kept), P from :func:`column_side`.
    device, dtype
        As for any torch module; the matrices are computed in float64 and rounded once.

    Raises
    ------
    ValueError
        When the size is even, the scales are not positive and increasing, or one is so small that the resized
        kernel falls between its taps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        scales: Sequence[float],
        stride: int = 1,
        padding: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if size % 2 == 0 or size < 1:
            raise ValueError(f"the kernel size must be odd and positive, not {size}")
        if not scales or any(b <= a for a, b in itertools.pairwise((0.0, *scales))):
            raise ValueError(f"the scales must be positive and increasing, not {tuple(scales)}")
        self.scales, self.side = tuple(float(s) for s in scales), column_side(size, scales)
        self.stride, self.padding = stride, self.side // 2 if padding is None else padding
        shape = (out_channels, in_channels, size, size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        for k, scale in enumerate(self.scales):
            if scale == 1 or self.side == 1:
                continue
            # its values are read, also where the module is built on the meta device
            with torch.device("cpu"):
                matrix = _cropped(column_matrix(size, self.side, scale))
            # a single tap would be the corner's
            if resized(self.side, scale) < 2 or not matrix.any():
                raise ValueError(f"nothing is left of a {size}×{size} kernel at scale {scale:g}")
            self.register_buffer(f"resize{k}", matrix.to(self.weight), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights Kaiming-uniformly (a = √5)."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def kernels(self) -> list[Tensor]:
        """Return the kernels without their zero borders, one (out, in, K_k, K_k) per column."""
        norm = self.weight.abs().sum((-2, -1), keepdim=True)
        kernels: list[Tensor] = []
        for k, scale in enumerate(self.scales):
            if scale == 1 or self.side == 1:
                kernels.append(self.weight)
                continue
            matrix = self.get_buffer(f"resize{k}")
            kernel = matrix @ self.weight @ matrix.mT
            own = kernel.abs().sum((-2, -1), keepdim=True)
            # a kernel of zeros stays one
            kernels.append(kernel * (norm / own.clamp(min=torch.finfo(own.dtype).tiny)))
        return kernels

    def extra_repr(self) -> str:
        """Show the scales and the side."""
        return f"scales={self.scales}, side={self.side}, stride={self.stride}, padding={self.padding}"


class ColumnLift(ColumnKernels):
    """Lift an image to columns: y_k = f ⋆ D_{s_k} w.

    Parameters
    ----------
    size, scales, stride, padding, device, dtype
        As for :class:`ColumnKernels`.

    Notes
    -----
    Weight (out, in, K, K). Maps (N, C, H, W) to (N, C', S, H', W'), one level per column; no bias.

    Examples
    --------
    >>> ColumnLift(1, 8, 7, (0.67, 1, 1.49))(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 8, 3, 28, 28])
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o s y x"]:
        """Return the responses of every column."""
        return torch.stack(
            [cropped_conv2d(x, kernel, self.side, self.stride, self.padding) for kernel in self.kernels()],
            dim=2,
        )


class ColumnConv(ColumnKernels):
    """Convolve every column with its own size of one kernel: y_k = x_k ⋆ D_{s_k} w.

    Parameters
    ----------
    size, scales, stride, padding, device, dtype
        As for :class:`ColumnKernels`.

    Raises
    ------
    ValueError
        As for :class:`ColumnKernels`, or (on use) when the input has another number of columns.

    Notes
    -----
    Weight (out, in, K, K). Maps (N, C, S, H, W) to (N, C', S, H', W'), one level per column; no bias.

    Examples
    --------
    >>> ColumnConv(8, 16, 3, (0.67, 1, 1.5), stride=2)(torch.rand(2, 8, 3, 28, 28)).shape
    torch.Size([2, 16, 3, 14, 14])
    """

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n o s y x"]:
        """Return the responses of every column."""
        check_levels(x, len(self.scales))
        return torch.stack(
            [
                cropped_conv2d(x[:, :, k], kernel, self.side, self.stride, self.padding)
                for k, kernel in enumerate(self.kernels())
            ],
            dim=2,
        )


class ColumnNorm(nn.BatchNorm2d):
    """Batch normalisation of each of S columns' channels by themselves.

    Parameters
    ----------
    channels : int
        Channels C of each column.

    Notes
    -----
    Weight, bias and statistics have C·S entries, channel by channel, its S columns in a row. Maps (N, C, S, H, W) to
    the same shape.

    Examples
    --------
    >>> ColumnNorm(8, 3)(torch.rand(2, 8, 3, 14, 14)).shape
    torch.Size([2, 8, 3, 14, 14])
    """

    def __init__(
        self,
        channels: int,
        columns: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels * columns, device=device, dtype=dtype)
        self.columns = columns

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n c s h w"]:
        """Return the normalised columns."""
        check_levels(x, self.columns)
        y: Tensor = super().forward(x.flatten(1, 2))
        return y.view_as(x)


def _cropped(matrix: Float[Tensor, "side k"]) -> Float[Tensor, "p k"]:
    """Remove the zero rows at both ends, equally many, so that the middle stays."""
    middle = matrix.shape[0] // 2
    used = matrix.any(dim=1).nonzero().flatten()
    reach = int((used - middle).abs().max()) if len(used) else 0
    return matrix[middle - reach : middle + reach + 1]
