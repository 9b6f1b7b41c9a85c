"""Gaussian-derivative networks with scale channels, in the body of MNIST-scale.

Source: Lindeberg, "Scale-covariant and scale-invariant Gaussian derivative networks", JMIV 2022. The architecture is
ours: the shared body, whose poolings by 2 stand for the ratio r = 2 of the scales from layer to layer.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import nn

from secli.action.fields import ScaleSpace
from secli.layers.gaussian_derivative import GaussianDerivativeConv
from secli.models import options
from secli.models.contract import StagedModel
from secli.models.entrance import entrance
from secli.models.grid import Grid
from secli.models.mnist_body import Block, mnist_body

CHANNELS = (75, 148, 223)
BASE = math.sqrt(2)

Sigma = Annotated[
    float,
    Field(gt=0, le=20, description="smallest scale σ_0 of the first layer, in cells of the picture it sees"),
]
Base = Annotated[float, Field(gt=1, le=4, description="ratio of neighbouring scale channels")]
Levels = Annotated[int, Field(ge=1, le=16, description="number S of scale channels")]
Ratio = Annotated[float, Field(gt=0.25, le=8, description="ratio r of the scales from layer to layer")]
Residual = Annotated[
    bool, Field(description="whether the second and the third layer add their input to their first channels")
]


def mnist_gaussder(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
    sigma: Sigma = 0.7,
    base: Base = BASE,
    levels: Levels = 4,
    ratio: Ratio = 2.0,
    residual: Residual = False,
    aggregate: options.AggregateOption = "logsumexp",
) -> StagedModel:
    """Return a network of Gaussian derivatives up to order two: scale channels that only meet in their logits.

    Layer j has the scales σ_0 r^j b^k in cells of the first layer; each pooling by 2 makes cells twice as wide.
    """
    scales = tuple(sigma * base**k for k in range(levels))

    def space(at: Grid) -> ScaleSpace:
        return at.scale_space(scales)

    blocks, inputs = [], in_channels
    for j, width in enumerate(CHANNELS):
        in_cells = [scale * (ratio / 2) ** j for scale in scales]
        conv: nn.Module = GaussianDerivativeConv(inputs, width, in_cells, residual and j > 0)
        blocks.append(Block(conv, width, space))
        inputs = width
    before = entrance(in_channels, mean, std, upsampling, upsample)
    grid = Grid.of_image(image_size).upsampled(upsampling)
    return mnist_body(blocks, before, grid, classes, dropout, aggregate=aggregate)
