"""Deformable convolution: a parallel branch moves the taps of the kernel, pixel by pixel.

Sources: Dai et al., "Deformable Convolutional Networks", ICCV 2017, section 2.1 (v1); Zhu et al., "Deformable
ConvNets v2", CVPR 2019, section 3.2 (v2: each tap also gets a mask in [0, 1])::

    y(p) = Σ_i w_i · m_i(p) · x(p + p_i + Δ_i(p))

with Δ (and, through a sigmoid, m) predicted from x by a convolution that starts at zero.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.layers.sampling import in_forward_mode, sample_bilinear


class DeformConv(nn.Module):
    """Deformable convolution v1 or v2; at the start it is the plain one (v2: half of it, as sigmoid(0) = ½).

    Parameters
    ----------
    stride, padding, dilation : int
        In space, also of the branch that predicts the offsets.
    groups : int
        Deformable groups: the input channels of one group share their offsets.
    modulated : bool
        v2: whether the branch also predicts a mask per tap.
    bias : bool
        Whether a bias per output channel is learned (the branch always has one).

    Raises
    ------
    ValueError
        When the groups do not divide the input channels.

    Notes
    -----
    Weights: ``weight`` (out, in, K, K); ``offset`` predicts (2 or 3)·K²·groups channels: first 2K² offsets per
    group (row, column in turn), then K² masks per group. Maps (N, C, H, W) to (N, C', H', W').

    Examples
    --------
    >>> DeformConv(8, 16, 3, stride=2, padding=1, modulated=True)(torch.rand(2, 8, 28, 28)).shape
    torch.Size([2, 16, 14, 14])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        modulated: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups:
            raise ValueError(f"deformable groups {groups} do not divide the {in_channels} input channels")
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.shifts = 2 * groups * size**2
        self.modulated = modulated
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, size, size, device=device, dtype=dtype)
        )
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        predicted = self.shifts + (groups * size**2 if modulated else 0)
        self.offset = nn.Conv2d(
            in_channels, predicted, size, stride, padding, dilation, device=device, dtype=dtype
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias as torch draws a convolution's; the branch starts at zero."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)
        nn.init.zeros_(self.offset.weight)
        if self.offset.bias is not None:
            nn.init.zeros_(self.offset.bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o y x"]:
        """Return the convolution at the predicted positions."""
        predicted = self.offset(x)
        shifts, masks = predicted[:, : self.shifts], predicted[:, self.shifts :]
        mask = masks.sigmoid() if self.modulated else None
        how = (self.stride, self.padding, self.dilation)
        return deformed_conv2d(x, shifts, self.weight, self.bias, *how, mask)


def deformed_conv2d(
    x: Float[Tensor, "n c h w"],
    shifts: Float[Tensor, "n shifts y x"],
    weight: Float[Tensor, "o c k l"],
    bias: Float[Tensor, "o"] | None,
    stride: int,
    padding: int,
    dilation: int,
    mask: Float[Tensor, "n masks y x"] | None,
) -> Float[Tensor, "n o y x"]:
    """Convolve with moved taps: by torchvision's operator on a GPU, by ours elsewhere and for forward-mode tangents."""
    if x.device.type != "cuda" or in_forward_mode(x, shifts, weight):
        return sampled_deform_conv2d(x, shifts, weight, bias, stride, padding, dilation, mask)
    from torchvision.ops import deform_conv2d  # here, because its import takes seconds and only GPUs need it

    # the operator has no bfloat16, and positions need float32
    dtype = torch.promote_types(shifts.dtype, torch.float32)
    given = [None if tensor is None else tensor.to(dtype) for tensor in (x, shifts, weight, bias, mask)]
    y: Tensor = deform_conv2d(*given[:4], stride, padding, dilation, given[4])
    return y.to(x.dtype)


def sampled_deform_conv2d(
    x: Float[Tensor, "n c h w"],
    shifts: Float[Tensor, "n shifts y x"],
    weight: Float[Tensor, "o c k l"],
    bias: Float[Tensor, "o"] | None,
    stride: int,
    padding: int,
    dilation: int,
    mask: Float[Tensor, "n masks y x"] | None,
) -> Float[Tensor, "n o y x"]:
    """Compute ``torchvision.ops.deform_conv2d`` from bilinear samples and one matrix product.

    The same function with the same gradients, and with a forward-mode derivative, which torchvision's lacks; off the
    GPU torchvision's is also an order of magnitude slower in the backward pass.
    """
    taps = weight.shape[2] * weight.shape[3]
    groups = shifts.shape[1] // (2 * taps)
    n, channels = x.shape[:2]
    rows, columns = shifts.shape[2:]
    # in bfloat16 a pixel of a large image has no coordinate of its own
    dtype = torch.promote_types(x.dtype, torch.float32)
    down, right = _positions(shifts.to(dtype), (weight.shape[2], weight.shape[3]), stride, padding, dilation)
    samples = sample_bilinear(
        x.to(dtype).reshape(n * groups, channels // groups, *x.shape[2:]),
        down.reshape(n * groups, taps * rows, columns),
        right.reshape(n * groups, taps * rows, columns),
    )
    samples = samples.to(weight.dtype).reshape(n, groups, channels // groups, taps, rows * columns)
    if mask is not None:
        samples = samples * mask.reshape(n, groups, 1, taps, rows * columns)
    y = torch.matmul(weight.flatten(1), samples.reshape(n, channels * taps, rows * columns))
    y = y.reshape(n, -1, rows, columns)
    return y if bias is None else y + bias.view(-1, 1, 1)


def _positions(
    shifts: Float[Tensor, "n shifts y x"], kernel: tuple[int, int], stride: int, padding: int, dilation: int
) -> tuple[Float[Tensor, "n g k l y x"], Float[Tensor, "n g k l y x"]]:
    """Return the row and the column at which each tap of the kernel is read."""
    n, _, rows, columns = shifts.shape
    offsets = shifts.reshape(n, -1, kernel[0], kernel[1], 2, rows, columns)

    def whole(count: int, step: int, start: int = 0) -> Tensor:
        return torch.arange(start, start + count * step, step, device=shifts.device, dtype=shifts.dtype)

    down = whole(kernel[0], dilation, -padding).view(-1, 1, 1, 1) + whole(rows, stride).view(-1, 1)
    right = whole(kernel[1], dilation, -padding).view(-1, 1, 1) + whole(columns, stride)
    return down + offsets[:, :, :, :, 0], right + offsets[:, :, :, :, 1]
