"""The networks of a first study, on a pyramid and with moved taps (``form=study``).

They have no paper. Their parts: Worrall, Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019; Dai et
al., "Deformable Convolutional Networks", ICCV 2017. With d_k = ⌊b^k⌋ and R_m the bilinear reduction to m×m cells::

    dss_v2       x_k = R_{⌊h/d_k⌋} f,   y_k = BN_n(ReLU(maxpool_2(v ⋆ (w ⋆ x_k)))),   max_k maxpool_{⌊h_k/h⌋} y_k
    deform_dss   x_k = T(·, t_k) ⋆ f,   y_k = BN_n(ReLU(w ⋆ x_k)),   twice  y ← maxpool_2(BN_S(ReLU(deform(y_k))))

BN_n normalises channels, level by level; BN_S normalises levels, channel by channel, which distinguishes the levels.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from secli.action.fields import Invariant, Plane, Pyramid
from secli.layers.deformable import DeformConv
from secli.layers.gaussian import ScaleSpaceLift
from secli.layers.pooling import ScalePool, ScalePooling, SpatialPool
from secli.layers.pyramid import Level, PyramidConv
from secli.layers.scale_channels import EachLevel
from secli.models.contract import Stage, StagedModel
from secli.models.dss import LevelsOfScale, scale_space
from secli.models.entrance import chain, entrance
from secli.models.grid import Grid
from secli.models.options import PerChannel

Form = Annotated[
    Literal["ours", "study"],
    Field(description="ours, or study: the network as a first study of deformable scale spaces ran it"),
]


def refuse_options(**given: tuple[object, object]) -> None:
    """Refuse options that the study's form does not have, given as (value, default), unless they have their default.

    Raises
    ------
    ValueError
        When one differs.
    """
    for name, (value, default) in given.items():
        if value != default:
            raise ValueError(f"form=study has no {name}; leave {name} = {value} out")


class Reductions(nn.Module):
    """Lift images to levels of ⌊h/d⌋×⌊w/d⌋ cells, d = ⌊b^k⌋, at least one, by bilinear reduction refuse_options a blur.

    Small bases give several levels of one size, which then hold the same.
    """

    def __init__(self, base: float, levels: int) -> None:
        super().__init__()
        self.base, self.levels = base, levels

    def forward(self, x: Float[Tensor, "n c h w"]) -> list[Level]:
        """Return the levels, from fine to coarse."""
        sizes = zip(*(reduced(side, self.base, self.levels) for side in x.shape[2:]), strict=True)
        return [
            x
            if size == tuple(x.shape[2:])
            else functional.interpolate(x, size, mode="bilinear", align_corners=False)
            for size in sizes
        ]

    def extra_repr(self) -> str:
        """Show base and levels."""
        return f"base={self.base:g}, levels={self.levels}"


def reduced(side: int, base: float, levels: int) -> list[int]:
    """Return the sides ⌊h/⌊b^k⌋⌋ of the levels, at least 1.

    Examples
    --------
    >>> reduced(28, 1.3, 4), reduced(28, 1.7, 4), reduced(28, 2.0, 6)
    ([28, 28, 28, 14], [28, 28, 14, 7], [28, 14, 7, 3, 1, 1])
    """
    # b^k is rounded in float64: √2² must count as 2
    return [max(1, side // math.floor(base**k + 1e-9)) for k in range(levels)]


class AllLevels(nn.Module):
    """Apply one module without levels to all levels of a scale space at once, as to further pictures."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n o s y x"]:
        """Return the scale space."""
        y: Tensor = self.module(x.transpose(1, 2).flatten(0, 1))
        return y.reshape(x.shape[0], x.shape[2], *y.shape[1:]).transpose(1, 2)


class LevelNorm(nn.BatchNorm2d):
    """Batch normalisation with the S levels as its features: of every channel (N, S, H, W), one after the other.

    In training each channel is normalised by its own mean and variance per level over (N, H, W); scale and shift
    are per level and shared by the channels. The running statistics take the channels one after the other::

        r ← (1 − m)^C r + Σ_c m (1 − m)^{C − 1 − c} r_c
    """

    def forward(self, input: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n c s h w"]:
        """Return the normalised scale space."""
        channels = input.shape[1]
        mean, var = self.running_mean, self.running_var
        assert mean is not None
        assert var is not None
        if not self.training:
            scale = (var + self.eps).rsqrt() * self.weight
            shift = self.bias - mean * scale
            return input * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        joined = input.flatten(1, 2)
        # from zero and with momentum 1 they become the statistics of the batch
        means, variances = (mean.new_zeros(channels * len(mean)) for _ in range(2))
        weight, bias = self.weight.repeat(channels), self.bias.repeat(channels)
        normed = functional.batch_norm(joined, means, variances, weight, bias, True, 1.0, self.eps)
        momentum = 0.1 if self.momentum is None else self.momentum
        with torch.no_grad():
            last = torch.arange(channels - 1, -1, -1, device=mean.device, dtype=mean.dtype)
            shares = momentum * (1 - momentum) ** last
            for running, seen in ((mean, means), (var, variances)):
                running.mul_((1 - momentum) ** channels).add_(shares @ seen.view(channels, -1))
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(channels)
        return normed.view_as(input)


class ToSmallest(nn.Module):
    """Max-pool every level to the size of the coarsest one, h×h, by windows of ⌊h_k/h⌋ cells, and stack them.

    Where windows of so many cells leave more than h, they are torch's adaptive ones: there the study had no network.
    """

    def forward(self, levels: list[Level]) -> Float[Tensor, "n c s h w"]:
        """Return the scale space."""
        height, width = levels[-1].shape[2:]
        return torch.stack([self._pooled(level, (height, width)) for level in levels], dim=2)

    def _pooled(self, level: Level, size: tuple[int, int]) -> Level:
        window = (level.shape[2] // size[0], level.shape[3] // size[1])
        if all(side // cells == own for side, cells, own in zip(level.shape[2:], window, size, strict=True)):
            return functional.max_pool2d(level, window)
        return functional.adaptive_max_pool2d(level, size)


def study_dss_v2(
    in_channels: int,
    classes: int,
    mean: PerChannel,
    std: PerChannel,
    image_size: int,
    channels: int,
    base: float,
    levels: int,
    scale_pool: ScalePooling,
) -> StagedModel:
    """Return the study's pyramid: two 3×3 convolutions of n channels, shared by the levels, then one max-pooling.

    Raises
    ------
    ValueError
        When the coarsest level has a single cell, which a pooling by 2 does not leave.
    """
    sides = reduced(image_size, base, levels)
    if sides[-1] < 2:
        raise ValueError(
            f"form=study: base {base:g} with {levels} levels leaves the coarsest one a single cell before the pooling "
            "by 2; lower base or levels"
        )
    factors = tuple(side / image_size for side in sides)
    coarsest = sides[-1] // 2
    # the pooling by 2 drops the last row and column of an odd side, and the level's grid is off the centre
    odd = next((k for k, side in enumerate(sides) if side % 2), levels)
    centred = odd == levels and all(side // 2 % coarsest == 0 for side in sides)

    def conv(inputs: int) -> PyramidConv:
        return PyramidConv(inputs, channels, 3, base, levels)

    block = chain(
        pool=EachLevel(SpatialPool(2)), relu=EachLevel(nn.ReLU()), norm=EachLevel(nn.BatchNorm2d(channels))
    )
    pool = chain(stack=ToSmallest(), pool=ScalePool(scale_pool), relu=nn.ReLU())
    head = {"flatten": nn.Flatten(), "classify": nn.Linear(channels * coarsest**2, classes)}
    stages = [
        Stage(
            "lift",
            chain(**entrance(in_channels, mean, std), lift=Reductions(base, levels)),
            Pyramid(factors),
        ),
        Stage("conv1", conv(in_channels), Pyramid(factors)),
        Stage("conv2", conv(channels), Pyramid(factors)),
        Stage("block2", block, Pyramid(factors, 2, truncated=levels - odd)),
    ]
    if centred:
        stages += [
            Stage("pool", pool, Plane(stride=2 / factors[-1])),
            Stage("logits", chain(**head), Invariant()),
        ]
    else:  # levels with windows about different points have no plane in common: no tap there
        stages.append(Stage("logits", chain(levels=pool, **head), Invariant()))
    return StagedModel(stages)


def study_deform_dss(
    in_channels: int,
    classes: int,
    mean: PerChannel,
    std: PerChannel,
    image_size: int,
    channels: int,
    scales: LevelsOfScale,
    deformable_groups: int,
    scale_pool: ScalePooling,
) -> StagedModel:
    """Return the study's deformable scale space: a plain convolution, then two deformable ones, shared by the levels.

    Raises
    ------
    ValueError
        When the groups do not divide n.
    """
    base, z, levels = scales[:3]

    def deformable(inputs: int) -> nn.Module:
        layer = DeformConv(inputs, 2 * inputs, 3, padding=1, groups=deformable_groups)
        layer.offset.reset_parameters()  # the study's offsets did not start at zero
        return chain(conv=AllLevels(layer), relu=nn.ReLU(), norm=LevelNorm(levels))

    grid = Grid.of_image(image_size)
    half, quarter = grid.pooled(2), grid.pooled(2).pooled(2)
    first = chain(
        conv=AllLevels(nn.Conv2d(in_channels, channels, 3, padding=1)),
        relu=nn.ReLU(),
        norm=EachLevel(nn.BatchNorm2d(channels)),
    )
    head = chain(flatten=nn.Flatten(), classify=nn.Linear(4 * channels * quarter.size**2, classes))
    lift = chain(**entrance(in_channels, mean, std), lift=ScaleSpaceLift(base, z, levels))
    return StagedModel(
        [
            Stage("lift", lift, scale_space(grid, base, z, levels)),
            Stage("block1", first, scale_space(grid, base, z, levels)),
            Stage("conv2", deformable(channels), scale_space(grid, base, z, levels)),
            Stage("block2", SpatialPool(2), scale_space(half, base, z, levels)),
            Stage("conv3", deformable(2 * channels), scale_space(half, base, z, levels)),
            Stage("block3", SpatialPool(2), scale_space(quarter, base, z, levels)),
            Stage("pool", chain(pool=ScalePool(scale_pool), relu=nn.ReLU()), quarter.plane()),
            Stage("logits", head, Invariant()),
        ]
    )
