"""Rotation-equivariant convolutions: steerable filters for the cyclic group C_N, in its regular representation.

Source: Weiler, Hamprecht, Storath, "Learning Steerable Filters for Rotation Equivariant CNNs", CVPR 2018, section 3.
With θ_r = 2πr/N and rot_r W the filter turned by θ_r (counterclockwise as pictures are shown)::

    lift   y_r = f ⋆ rot_r W
    group  y_r = Σ_q x_q ⋆ rot_r W_{q−r}        (indices mod N)
    turn   rot_r W = Re Σ_jk e^{−ikθ_r} w_jk ψ_jk

Turning the picture by θ_s turns every plane and shifts the rotation axis: y_r becomes rot_s y_{r−s}. On the pixel
grid this is exact for quarter turns; between them it holds as well as the sampled harmonics turn into one another.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from secli.layers.circular import circular_harmonics
from secli.layers.pooling import ScalePool


class SteeredFilters(nn.Module):
    """The filters of one layer at every angle of C_N: learned coefficients on circular harmonics.

    Parameters
    ----------
    shape : tuple of int
        (out, in) or (out, in, N), the axes of the weight before its last, the coefficients.
    bias : bool
        Whether a bias per output channel is learned, the same at every angle.
    device, dtype
        As for any torch module; the basis is computed in float64 and rounded once.
    """

    basis: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        size: int,
        rotations: int,
        bias: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        harmonics = circular_harmonics(size, rotations)
        self.size, self.rotations = size, rotations
        self.weight = nn.Parameter(torch.empty(*shape, harmonics.count, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(shape[0], device=device, dtype=dtype)) if bias else None
        turned = torch.from_numpy(harmonics.functions).transpose(0, 1).flatten(1)
        self.register_buffer("basis", turned.to(self.weight), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the coefficients so that ReLU layers keep the variance of uncorrelated inputs; the bias is zero.

        With B real coefficients on functions of unit norm, Var y = in · N · B · Var w · E[x²] (N = 1 in a lift), so
        He's argument, as Weiler et al. extend it to steerable filters, gives Var w = 2/(in · N · B).
        """
        nn.init.normal_(self.weight, std=math.sqrt(2 / self.weight[0].numel()))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def steered(self) -> Float[Tensor, "o ... r k k"]:
        """Return every filter at every angle, in one matrix product: (out, in[, N], angle, K, K)."""
        turned = torch.matmul(self.weight, self.basis)
        return turned.reshape(*self.weight.shape[:-1], self.rotations, self.size, self.size)

    def every_bias(self) -> Float[Tensor, "or"] | None:
        """Return the bias of every channel at every angle."""
        return None if self.bias is None else self.bias.repeat_interleave(self.rotations)

    def extra_repr(self) -> str:
        """Show channels, size and rotations."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, size={self.size}, rotations={self.rotations}"


class RotationLift(SteeredFilters):
    """Lift an image to the rotation group: y_r = f ⋆ rot_r W + bias.

    Parameters
    ----------
    rotations : int
        N ≥ 1, the order of the group.
    stride, padding : int
        In space, as for a K×K convolution.
    bias : bool
        Whether a bias per output channel is learned, the same at every angle.

    Raises
    ------
    ValueError
        When the size is even or there is no rotation.

    Notes
    -----
    Weight (out, in, b): b = 6, 15, 28 real coefficients for K = 3, 5, 7 (frequencies up to 2j on the ring of radius
    j; see :func:`secli.layers.circular.circular_harmonics`). Maps (N, C, H, W) to (N, C', R, H', W').

    Examples
    --------
    >>> layer = RotationLift(1, 4, size=5, rotations=8, padding=2)
    >>> tuple(layer(torch.rand(2, 1, 28, 28)).shape)
    (2, 4, 8, 28, 28)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        rotations: int = 8,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__((out_channels, in_channels), size, rotations, bias, device, dtype)
        self.stride, self.padding = stride, padding

    def kernels(self) -> Float[Tensor, "o r c k k"]:
        """Return rot_r W."""
        return self.steered().transpose(1, 2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o r y x"]:
        """Return the responses at every angle."""
        kernels = self.kernels().flatten(0, 1)
        y = functional.conv2d(x, kernels, self.every_bias(), self.stride, self.padding)
        return y.reshape(x.shape[0], -1, self.rotations, *y.shape[-2:])


class RotationConv(SteeredFilters):
    """Convolve over rotations and the plane: y_r = Σ_q x_q ⋆ rot_r W_{q−r} + bias; N angles in and out.

    Raises
    ------
    ValueError
        When the size is even, there is no rotation, or (on use) the input has other angles.

    Notes
    -----
    Weight (out, in, N, b). Maps (N, C, R, H, W) to (N, C', R, H', W').

    Examples
    --------
    >>> layer = RotationConv(4, 6, size=5, rotations=8, padding=2)
    >>> tuple(layer(torch.rand(2, 4, 8, 28, 28)).shape)
    (2, 6, 8, 28, 28)
    """

    relative: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        rotations: int = 8,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__((out_channels, in_channels, rotations), size, rotations, bias, device, dtype)
        self.stride, self.padding = stride, padding
        angles = torch.arange(rotations, device=self.weight.device)
        # the index of (q − r, r) among the pairs (index of W, angle), for every r and q
        relative = (angles - angles.unsqueeze(1)) % rotations * rotations + angles.unsqueeze(1)
        self.register_buffer("relative", relative.flatten(), persistent=False)

    def kernels(self) -> Float[Tensor, "o r c q k k"]:
        """Return rot_r W_{q−r}."""
        chosen = self.steered().flatten(2, 3).index_select(2, self.relative)
        shape = (*self.weight.shape[:2], self.rotations, self.rotations, self.size, self.size)
        return chosen.reshape(shape).transpose(1, 2)

    def forward(self, x: Float[Tensor, "n c r h w"]) -> Float[Tensor, "n o r y x"]:
        """Return the responses at every angle."""
        if x.shape[2] != self.rotations:
            raise ValueError(f"the layer has {self.rotations} rotations, its input {x.shape[2]}")
        kernels = self.kernels().flatten(2, 3).flatten(0, 1)
        y = functional.conv2d(x.flatten(1, 2), kernels, self.every_bias(), self.stride, self.padding)
        return y.reshape(x.shape[0], -1, self.rotations, *y.shape[-2:])


class RotationPool(ScalePool):
    """Project features on the rotation group to a plane, which turns with the picture: y = max_r x_r, or the mean.

    Examples
    --------
    >>> tuple(RotationPool()(torch.rand(2, 6, 8, 28, 28)).shape)
    (2, 6, 28, 28)
    """
