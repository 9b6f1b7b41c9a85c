"""The steerable layers as their formulas are written: every kernel on the largest support, one group per scale.

Only tests and ``secli bench`` use them, as the reference of the fast layers' values and times.

Source: Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, section 4::

    lift   y_k = f ⋆ κ_k,               κ_k = Σ_b w_b ψ_b^{σ_k} on the full K×K grid
    group  y_k = Σ_{j<I} x_{k+j} ⋆ κ_{j,k}                          (levels past the end are zero)

A lift is one convolution with C'·S output channels, a group convolution one with S groups of C·I → C' channels.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from secli.layers.fast.chain import Chain
from secli.layers.pooling import ScalePool
from secli.layers.ses import SESConv, SESLift, SteerableFilters


class _Literal(nn.Module):
    """The parameters of a fast layer, shared, and its basis with the zeros around each support."""

    full: Tensor

    def __init__(self, layer: SteerableFilters, stride: int, padding: int) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.size, self.levels, self.stride, self.padding = layer.size, len(layer.sides), stride, padding
        self.register_buffer("full", _padded(layer), persistent=False)

    def kernels(self) -> Tensor:
        """Return all kernels at once, (out, in[, interaction], S, K, K)."""
        kernels = torch.matmul(self.weight, self.full)
        return kernels.reshape(*self.weight.shape[:-1], self.levels, self.size, self.size)


class LiteralLift(_Literal):
    """:class:`secli.layers.SESLift` as one convolution with all kernels on the full support; parameters are shared."""

    def __init__(self, layer: SESLift) -> None:
        super().__init__(layer, layer.stride, layer.padding)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o s y x"]:
        """Return the responses at every scale."""
        kernels = self.kernels().transpose(1, 2).flatten(0, 1)
        bias = None if self.bias is None else self.bias.repeat_interleave(self.levels)
        y = functional.conv2d(x, kernels, bias, self.stride, self.padding)
        return y.reshape(y.shape[0], -1, self.levels, *y.shape[2:])


class LiteralConv(_Literal):
    """:class:`secli.layers.SESConv` as one convolution with a group per scale, all kernels on the full support."""

    def __init__(self, layer: SESConv) -> None:
        super().__init__(layer, layer.stride, layer.padding)
        self.interaction = layer.interaction

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n o s y x"]:
        """Return the responses at every scale."""
        levels = self.levels
        # levels first; group k holds levels k … k + I − 1, those past the end are zero
        tall = functional.pad(x.transpose(1, 2), (0, 0, 0, 0, 0, 0, 0, self.interaction - 1))
        joined = torch.stack([tall[:, j : j + levels] for j in range(self.interaction)], dim=3)
        kernels = self.kernels().permute(3, 0, 1, 2, 4, 5).flatten(2, 3).flatten(0, 1)
        bias = None if self.bias is None else self.bias.repeat(levels)
        y = functional.conv2d(joined.flatten(1, 3), kernels, bias, self.stride, self.padding, groups=levels)
        return y.reshape(y.shape[0], levels, -1, *y.shape[2:]).transpose(1, 2).contiguous()


class LiteralScalePool(nn.Module):
    """:class:`secli.layers.ScalePool` over the stacked levels, as torch computes it."""

    def __init__(self, layer: ScalePool) -> None:
        super().__init__()
        self.how = layer.how

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n c h w"]:
        """Return the pooled features."""
        return x.max(dim=2).values if self.how == "max" else x.mean(dim=2)


def literal_twin(model: nn.Module) -> nn.Module | None:
    """Return the same network with every steerable layer in its literal form; None where it has none.

    The model is unchanged. The twin shares its parameters; buffers (statistics of batch norms) are copies.
    """
    shared = {id(parameter): parameter for parameter in model.parameters()}
    twin = copy.deepcopy(model, shared)
    found = False
    for name, module in list(twin.named_modules()):
        if isinstance(module, Chain):
            module.literal = True
        literal = _literal(module)
        if literal is None:
            continue
        found = found or isinstance(literal, _Literal)
        if not name:
            return literal
        parent, _, own = name.rpartition(".")
        setattr(twin.get_submodule(parent), own, literal)
    return twin if found else None


def _literal(module: nn.Module) -> nn.Module | None:
    """Return the literal form of a module; None where it stays."""
    if isinstance(module, SESLift):
        return LiteralLift(module).train(module.training)
    if isinstance(module, SESConv):
        return LiteralConv(module).train(module.training)
    if isinstance(module, ScalePool):
        return LiteralScalePool(module).train(module.training)
    return None


def _padded(layer: SteerableFilters) -> Tensor:
    """Return the basis on the full grid, flattened: (b, S·K·K)."""
    full = []
    for line, side in zip(
        torch.split(layer.basis, [s**2 for s in layer.sides], dim=1), layer.sides, strict=True
    ):
        margin = (layer.size - side) // 2
        full.append(functional.pad(line.reshape(-1, side, side), (margin,) * 4))
    return torch.stack(full, dim=1).flatten(1)
