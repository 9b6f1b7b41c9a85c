"""Scale-equivariant steerable convolutions: one learned combination of a fixed basis, sampled at every scale.

Source: Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, section 4::

    lift   y_k = f ⋆ Σ_b w_b ψ_b^{σ_k}
    group  y_k = Σ_{j<I} x_{k+j} ⋆ Σ_b w_{j,b} ψ_b^{σ_k}        (levels past the end are zero)

Each level is one dense convolution with the basis cropped to its support: the smallest of four scales of a
15×15 basis costs 25 taps, not 225. Neighbouring levels are taken together by joining channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from secli.layers.fast.forms import in_use
from secli.layers.fast.levels import as_planes, as_space, levels_first, stack_levels
from secli.layers.fast.size_cache import computes_at_once
from secli.layers.fast.transforms import transformed
from secli.layers.fast.wide_conv import Spectra, plain_conv2d
from secli.layers.hermite import Basis

Filters = TypeVar("Filters", bound="SteerableFilters")


class _Kept(NamedTuple):
    """Kernels, their spectra, and copies of the weight and the basis that they were expanded from."""

    sources: list[Tensor]
    kernels: list[Tensor]
    spectra: list[Spectra]

    def hold(self, *tensors: Tensor) -> bool:
        """Whether the sources have these types and contents.

        Contents, because fused optimisers and changes of ``.data`` leave ``_version`` as it is.
        """
        pairs = zip(tensors, self.sources, strict=True)
        return all(new.dtype == old.dtype and torch.equal(new, old) for new, old in pairs)


class SteerableFilters(nn.Module):
    """The filters Σ_b w_b ψ_b^{σ_k} of one layer: learned weights on a fixed basis.

    Parameters
    ----------
    shape : tuple of int
        (out, in) or (out, in, interaction), the axes of the weight before its last, b.
    basis : Basis
        The fixed functions, in a buffer that no checkpoint holds.
    device, dtype
        As for any torch module; the basis is computed in float64 and rounded once.
    """

    basis: Tensor
    _kept: _Kept | None

    def __init__(
        self,
        shape: tuple[int, ...],
        basis: Basis,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.size, self.scales = basis.size, basis.scales
        self.weight = nn.Parameter(torch.empty(*shape, basis.count, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(shape[0], device=device, dtype=dtype)) if bias else None
        self._take([torch.from_numpy(function) for function in basis.functions])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights Kaiming-uniformly (a = √5); the bias starts at zero."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def set_basis(self, functions: Float[Tensor, "b s k k"] | Float[np.ndarray, "b s k k"]) -> None:
        """Replace the functions ψ_b^{σ_k} of the layer: Σ_b w_b ψ_b^{σ_k} with the same weights.

        Each level is cropped to its support: the smallest centred square beyond which all its functions are zero.

        Parameters
        ----------
        functions : tensor or array (function, level, K, K)
            As many functions and levels as the layer has, of its own size K.

        Raises
        ------
        ValueError
            When the shape is another, or a value is not finite.

        Notes
        -----
        No checkpoint holds a basis: one that was set must be set again where the weights are loaded.

        Examples
        --------
        >>> from secli.layers import SESLift, basis_a
        >>> lift = SESLift(1, 8, basis_a(7, (0.9, 1.27, 1.79), 3), padding=3)
        >>> lift.set_basis(torch.rand(9, 3, 7, 7))
        >>> lift.sides
        (7, 7, 7)
        """
        if isinstance(functions, np.ndarray):
            functions = np.array(functions)  # torch warns of an array that is not writable
        full = torch.as_tensor(functions).detach().to("cpu", torch.float64)
        expected = (self.weight.shape[-1], len(self.scales), self.size, self.size)
        if tuple(full.shape) != expected:
            raise ValueError(f"the basis must have the shape {expected}, not {tuple(full.shape)}")
        if not torch.isfinite(full).all():
            raise ValueError("the basis has values that are not finite")
        self._take([_support(level) for level in full.unbind(1)])

    def kernels(self) -> list[Tensor]:
        """Return the cropped kernels, one (out, in[, interaction], K_k, K_k) per scale.

        On a CPU, in evaluation without gradients, they are kept until the weights change.
        """
        if torch.compiler.is_compiling():
            return self._expanded()
        if self.training or torch.is_grad_enabled() or not self._can_keep():
            self._kept = None
            return self._expanded()
        kept = self._kept
        sources = (self.weight, self.basis)
        if kept is None or not kept.hold(*sources):
            kernels = self._expanded()
            spectra: list[Spectra] = [{} for _ in kernels]
            self._kept = kept = _Kept([source.detach().clone() for source in sources], kernels, spectra)
        return kept.kernels

    def responses(self, x: Tensor, kernel: Tensor, level: int, stride: int, padding: int) -> Tensor:
        """Convolve with the kernel of one level, to which neighbours may have been joined, and add the bias."""
        kept = None if self._kept is None or torch.compiler.is_compiling() else self._kept.spectra[level]
        return cropped_conv2d(x, kernel, self.size, stride, padding, self.bias, kept)

    def _can_keep(self) -> bool:
        """Whether weights can be compared without delay: a GPU would have to be waited for, and traced ones
        have no contents.
        """
        on_cpu = self.weight.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        return in_use("kept-kernels") and on_cpu and computes_at_once() and not transformed()

    def train(self: Filters, mode: bool = True) -> Filters:
        """Set the mode and drop kept kernels."""
        self._kept = None
        return super().train(mode)

    def _take(self, functions: list[Tensor]) -> None:
        """Store these functions, (b, K_k, K_k) of each level, rounded once to the type of the weight."""
        self.sides = tuple(int(function.shape[-1]) for function in functions)
        flat = torch.cat([function.flatten(1) for function in functions], dim=1)
        self.register_buffer("basis", flat.to(self.weight), persistent=False)
        self._kept = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave kept kernels out of copies and pickles."""
        return {**self.__dict__, "_kept": None}

    def _expanded(self) -> list[Tensor]:
        lines = torch.split(torch.matmul(self.weight, self.basis), [side**2 for side in self.sides], dim=-1)
        return [
            line.reshape(*line.shape[:-1], side, side) for line, side in zip(lines, self.sides, strict=True)
        ]


def _support(functions: Float[Tensor, "b k k"]) -> Float[Tensor, "b m m"]:
    """Return the smallest centred square outside of which all functions are zero, at least its middle."""
    middle = functions.shape[-1] // 2
    away = (torch.arange(functions.shape[-1]) - middle).abs()
    used = functions.ne(0).any(0)
    reach = int((torch.maximum(away[:, None], away) * used).max())
    return functions[:, middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]


def cropped_conv2d(
    x: Float[Tensor, "n c h w"],
    kernel: Float[Tensor, "o c k k"],
    size: int,
    stride: int,
    padding: int,
    bias: Float[Tensor, "o"] | None = None,
    spectra: Spectra | None = None,
) -> Float[Tensor, "n o y x"]:
    """Convolve with a kernel cropped from its zero-padded version of side ``size``.

    The zero border of width m = (size − k)/2 is never multiplied: the padding shrinks by m, and where it is
    smaller than m the image itself loses m − padding pixels on each side. Nor are those outer taps of the kernel that
    meet no pixel of a small image at any position. ``spectra`` are kept ones of this kernel.
    """
    if not in_use("cropped-kernels"):
        margin = (size - kernel.shape[-1]) // 2
        return plain_conv2d(x, functional.pad(kernel, (margin,) * 4), bias, stride, padding, spectra)
    inner = padding - (size - kernel.shape[-1]) // 2
    if inner < 0:
        x = x[:, :, -inner : x.shape[2] + inner, -inner : x.shape[3] + inner]
    side, inner = kernel.shape[-1], max(inner, 0)
    beyond = min(side - inner - max(x.shape[2:]), inner, (side - 1) // 2)
    if beyond > 0:  # at every position these taps meet only the zeros of the padding
        width = side - 2 * beyond
        kernel, inner = kernel.narrow(2, beyond, width).narrow(3, beyond, width), inner - beyond
    return plain_conv2d(x, kernel, bias, stride, inner, spectra)


class SESLift(SteerableFilters):
    """Lift an image to a scale space: y_k = f ⋆ Σ_b w_b ψ_b^{σ_k} + bias.

    Parameters
    ----------
    basis : Basis
        From :func:`secli.layers.hermite.basis_a` or ``basis_b``.
    stride, padding : int
        In space, as for a K×K convolution.

    Notes
    -----
    Weight (out, in, b). Maps (N, C, H, W) to (N, C', S, H', W').

    Examples
    --------
    >>> from secli.layers import SESLift, basis_b
    >>> lift = SESLift(1, 8, basis_b(13, (1.5, 2.6, 4.5), 7), padding=6)
    >>> lift(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 8, 3, 28, 28])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        basis: Basis,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__((out_channels, in_channels), basis, bias, device, dtype)
        self.stride, self.padding = stride, padding

    def levels(self, x: Float[Tensor, "n c h w"]) -> Iterator[Float[Tensor, "n o y x"]]:
        """Yield the responses scale by scale."""
        for k, kernel in enumerate(self.kernels()):
            yield self.responses(x, kernel, k, self.stride, self.padding)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o s y x"]:
        """Return the responses at every scale."""
        return stack_levels(self.levels(x))


class SESConv(SteerableFilters):
    """Convolve a scale space with itself: y_k = Σ_{j<I} x_{k+j} ⋆ Σ_b w_{j,b} ψ_b^{σ_k} + bias.

    Parameters
    ----------
    basis : Basis
        Its scales are the levels of the input and of the output.
    interaction : int
        I ≥ 1, the number of neighbouring levels that are mixed; the top I − 1 levels have fewer terms.
    stride, padding : int
        In space, as for a K×K convolution.

    Raises
    ------
    ValueError
        When the interaction is below 1 or above the number of levels, or (on use) the input has other levels.

    Notes
    -----
    Weight (out, in, I, b). Maps (N, C, S, H, W) to (N, C', S, H', W').

    Examples
    --------
    >>> from secli.layers import SESConv, basis_a
    >>> conv = SESConv(8, 16, basis_a(7, (0.9, 1.27, 1.79), 3), interaction=2, stride=2, padding=3)
    >>> conv(torch.rand(2, 8, 3, 28, 28)).shape
    torch.Size([2, 16, 3, 14, 14])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        basis: Basis,
        interaction: int = 1,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not 1 <= interaction <= len(basis.scales):
            raise ValueError(f"interaction must be 1 to {len(basis.scales)} (the levels), not {interaction}")
        super().__init__((out_channels, in_channels, interaction), basis, bias, device, dtype)
        self.interaction, self.stride, self.padding = interaction, stride, padding

    def levels(self, x: Float[Tensor, "n c s h w"]) -> Iterator[Float[Tensor, "n o y x"]]:
        """Yield the responses scale by scale."""
        check_levels(x, len(self.scales))
        for k, kernel in enumerate(self.kernels()):
            joined, weight = join_levels(x, kernel, k)
            yield self.responses(joined, weight, k, self.stride, self.padding)

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n o s y x"]:
        """Return the responses at every scale."""
        return stack_levels(self.levels(x))


class SESPointwise(nn.Module):
    """A 1×1 convolution whose weight all scales share: y_k = W x_k; it commutes with a shift of the levels.

    Notes
    -----
    Weight (out, in, 1, 1). Maps (N, C, S, H, W) to (N, C', S, H', W').

    Examples
    --------
    >>> SESPointwise(8, 16)(torch.rand(2, 8, 3, 28, 28)).shape
    torch.Size([2, 16, 3, 28, 28])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights Kaiming-uniformly (a = √5), the bias uniformly in ±1/√fan-in."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight.shape[1])
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n o s y x"]:
        """Return the mixed channels at every level."""
        if levels_first(x):
            y = functional.conv2d(as_planes(x), self.weight, self.bias, self.stride)
            return as_space(y, x.shape[2])
        return functional.conv3d(x, self.weight.unsqueeze(2), self.bias, stride=(1, self.stride, self.stride))


def check_levels(x: Tensor, levels: int) -> None:
    """Raise ``ValueError`` unless the features (N, C, S, H, W) have the expected number of levels."""
    if x.shape[2] != levels:
        raise ValueError(f"the layer has {levels} levels, its input {x.shape[2]}")


def join_levels(
    x: Float[Tensor, "n c s h w"], kernel: Float[Tensor, "o c i k k"], level: int
) -> tuple[Float[Tensor, "n cj h w"], Float[Tensor, "o cj k k"]]:
    """Join levels k … k + I − 1 and their kernels along channels, so that one convolution sums over them.

    Fewer levels are joined at the top of the stack.
    """
    terms = min(kernel.shape[2], x.shape[2] - level)
    return x[:, :, level : level + terms].flatten(1, 2), kernel[:, :, :terms].flatten(1, 2)
