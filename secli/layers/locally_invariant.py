"""Locally scale-invariant convolution: one kernel on a picture at several scales, the largest response wins.

Source: Kanazawa, Sharma, Jacobs, "Locally Scale-Invariant Convolutional Neural Networks", NeurIPS workshop 2014,
section 3::

    y = max_s T_{1/s}(T_s f ⋆ w + b)

with T_s the resizing of a picture by s on its own canvas. Where the picture is shrunk, the kernel covers more of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from secli.action.images import apply_axes
from secli.layers.canvas import canvas_operator, resized
from secli.layers.pooling import scale_pool


class SIConv(nn.Module):
    """SI-ConvNet layer: resize by every scale, convolve with one kernel, resize back, take the largest response.

    Parameters
    ----------
    scales : sequence of float
        Factors s > 0 by which the input is resized; with 1 among them, the input itself is used, too.
    stride, padding : int
        In space, as for a K×K convolution (default K//2: the size is kept).

    Raises
    ------
    ValueError
        When the size is even, there is no scale, or a scale is not positive.

    Notes
    -----
    Weight (out, in, K, K), shared by all scales. Maps (N, C, H, W) to (N, C', H', W').

    T_s resizes n cells to m = ⌊n·s⌋ (bilinear, corners aligned) and places them with (n − m)//2 cells to their left;
    T_{1/s} does so with ⌊n'/s⌋, n' the cells of the response. s = 1 changes nothing. Away from a shrunk picture its
    canvas is zero, and away from a shrunk response so is the response: there the others decide.

    The paper has no stride. Here the convolution takes it at every scale and T_{1/s} acts on the strided response,
    so that a stride of t costs 1/t² as for any convolution; at s = 1 it is the strided convolution itself.

    Examples
    --------
    >>> conv = SIConv(1, 8, 7, (0.45, 0.67, 1, 1.49, 2.23), stride=2)
    >>> conv(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 8, 14, 14])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        scales: Sequence[float],
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if size % 2 == 0 or size < 1:
            raise ValueError(f"the kernel size must be odd and positive, not {size}")
        if not scales or min(scales) <= 0:
            raise ValueError(f"the scales must be positive, not {tuple(scales)}")
        self.scales = tuple(float(s) for s in scales)
        self.stride, self.padding = stride, size // 2 if padding is None else padding
        shape = (out_channels, in_channels, size, size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights Kaiming-uniformly (a = √5), the bias uniformly in ±1/√fan-in."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o y x"]:
        """Return the largest response over the scales."""
        pictures = torch.cat([resize_on_canvas(x, scale) for scale in self.scales])
        y = functional.conv2d(pictures, self.weight, self.bias, self.stride, self.padding)
        responses = y.chunk(len(self.scales))
        back = [resize_on_canvas(r, 1 / scale) for r, scale in zip(responses, self.scales, strict=True)]
        return scale_pool(torch.stack(back, dim=2))

    def extra_repr(self) -> str:
        """Show the scales."""
        return f"scales={self.scales}, stride={self.stride}, padding={self.padding}"


def resize_on_canvas(x: Float[Tensor, "n c h w"], scale: float) -> Float[Tensor, "n c h w"]:
    """Return T_s x: the planes resized by s, in the middle of their own canvas.

    Examples
    --------
    >>> resize_on_canvas(torch.ones(1, 1, 4, 4), 0.5)[0, 0, 1].tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    if scale == 1:
        return x
    rows, columns = (canvas_operator(n, resized(n, scale), x.dtype, x.device) for n in x.shape[-2:])
    return apply_axes(rows, x, columns)
