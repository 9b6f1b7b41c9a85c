"""Scale-equivariant steerable networks whose scales are learned, in the body of MNIST-scale.

Source: Basting et al., "Scale Learning in Scale-Equivariant Convolutional Networks", 2024, in the body of Sosnovik,
Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, with basis B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from secli.action.fields import Field, ScaleSpace
from secli.layers.learned_scales import LearnedScaleConv, LearnedScales
from secli.layers.pooling import ScalePool
from secli.models import options
from secli.models.contract import Stage, StagedModel
from secli.models.entrance import chain, entrance
from secli.models.grid import Grid
from secli.models.mnist_body import CHANNELS, Block, mnist_body
from secli.models.sesn import EffectiveSize, Factor, Levels, MaxOrder, MinScale, Mult, Size


class LearnedScaleModel(StagedModel):
    """A network whose scale spaces have the scales that it has learned so far."""

    def __init__(self, stages: Sequence[Stage], learned: LearnedScales) -> None:
        super().__init__(stages)
        self._learned = (learned,)  # held by the first convolution

    @property
    def taps(self) -> dict[str, Field]:
        """The field of every tap, at the present scales."""
        scales = self._learned[0].values()
        fields = super().taps
        return {
            tap: replace(field, scales=scales) if isinstance(field, ScaleSpace) else field
            for tap, field in fields.items()
        }


def mnist_lses(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
    size: Size = 13,
    min_scale: MinScale = 1.5,
    factor: Factor = 3.0,
    levels: Levels = 3,
    mult: Mult = 1.5,
    max_order: MaxOrder = 4,
    effective_size: EffectiveSize = 7,
    interaction: options.Interaction = 1,
    scale_pool: options.ScalePoolOption = "max",
) -> StagedModel:
    """Return SESN (vector) whose smallest scale and ratio of the largest to it are learned, from the options' start.

    Raises
    ------
    ValueError
        When the size is even, there is one level, or the interaction exceeds the levels.
    """
    learned = LearnedScales(min_scale, factor, levels)
    first, second, third = CHANNELS

    def conv(inputs: int, outputs: int, mixed: int = 1, shares: bool = True) -> LearnedScaleConv:
        return LearnedScaleConv(
            inputs, outputs, size, learned, shares, mixed, effective_size, mult, max_order
        )

    def space(at: Grid, truncated: int = 0) -> ScaleSpace:
        return at.scale_space(learned.values(), truncated=min(truncated, levels))

    last: nn.Module = chain(ses=conv(second, third, interaction), pool=ScalePool(scale_pool))
    blocks = [
        Block(conv(in_channels, first, shares=False), first, space),
        Block(conv(first, second, interaction), second, lambda at: space(at, truncated=interaction - 1)),
        Block(last, third),
    ]
    before = entrance(in_channels, mean, std, upsampling, upsample)
    grid = Grid.of_image(image_size).upsampled(upsampling)
    body = mnist_body(blocks, before, grid, classes, dropout)
    fields = body.taps
    stages = [Stage(tap, module, fields[tap]) for tap, module in body.stages]
    return LearnedScaleModel(stages, learned)
