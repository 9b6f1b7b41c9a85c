"""A scale-channel ensemble on MNIST-scale: one plain network on every level of a pyramid of the picture.

Source: Jansson, Lindeberg, "Scale-invariant scale-channel networks: deep networks that generalise to previously unseen
scales", JMIV 2022. The architecture is ours: the shared body with 7×7 convolutions.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import nn

from secli.action.fields import Invariant, Pyramid
from secli.action.images import SAMPLING_BLUR
from secli.layers.pyramid import PyramidBatchNorm, PyramidConv, PyramidPool
from secli.layers.scale_channels import EachLevel, ScaleChannelHead
from secli.layers.spline_pyramid import SplinePyramidLift
from secli.models import options
from secli.models.contract import Stage, StagedModel
from secli.models.entrance import chain, entrance
from secli.models.mnist_body import CHANNELS, POOLED, body_head

Base = Annotated[float, Field(gt=1, le=4, description="ratio b of neighbouring levels")]
Levels = Annotated[int, Field(ge=1, le=16, description="number S of levels, the scale channels")]
Lowest = Annotated[
    int, Field(ge=-4, le=0, description="finest level l; it sees the picture enlarged by b^−l, 0: as it is")
]

BASE = math.sqrt(2)
POOLING = 4  # two poolings by 2


def mnist_pyramid(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
    base: Base = BASE,
    levels: Levels = 4,
    lowest: Lowest = -1,
    aggregate: options.AggregateOption = "logsumexp",
) -> StagedModel:
    """Return a plain network of the shared body, used on every level of a pyramid; the levels' logits are joined.

    No mean is subtracted by default: what lies outside a level is zero, and so is then an empty canvas. The last
    pooling leaves the maximum of each quadrant; quadrants meet in the centre at every level.
    """
    # even after two poolings, so that quadrants meet in the centre and all levels are pooled in one phase
    lift = SplinePyramidLift(base, levels, lowest, multiple=POOLING * POOLED)

    def pyramid(stride: int) -> Pyramid:
        return Pyramid(lift.factors, stride / upsampling, base_blur=SAMPLING_BLUR / upsampling)

    def conv(inputs: int, outputs: int) -> PyramidConv:
        return PyramidConv(inputs, outputs, 7, base, levels, bias=True)

    def behind(channels: int) -> dict[str, nn.Module]:
        return {"relu": EachLevel(nn.ReLU()), "pool": PyramidPool(2), "norm": PyramidBatchNorm(channels)}

    first, second, third = CHANNELS
    before = entrance(in_channels, mean, std, upsampling, upsample)
    head = chain(
        relu=EachLevel(nn.ReLU()),
        pool=EachLevel(nn.AdaptiveMaxPool2d(POOLED)),
        norm=PyramidBatchNorm(third),
        channels=ScaleChannelHead(body_head(third, classes, dropout), aggregate),
    )
    return StagedModel(
        [
            Stage("lift", chain(**before, lift=lift), pyramid(1)),
            Stage("conv1", conv(in_channels, first), pyramid(1)),
            Stage("block1", chain(**behind(first)), pyramid(2)),
            Stage("block2", chain(conv=conv(first, second), **behind(second)), pyramid(4)),
            Stage("conv3", conv(second, third), pyramid(4)),
            Stage("logits", head, Invariant()),
        ]
    )
