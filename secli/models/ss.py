"""Scale-steerable filters in the shared body: log-radial harmonics at several sizes, the largest response wins.

Source: Ghosh, Gupta, "Scale Steerable Filters for Locally Scale-Invariant Convolutional Neural Networks", 2019.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from secli.layers.scale_steerable import ScaleSteerableConv
from secli.models import options
from secli.models.contract import StagedModel
from secli.models.entrance import entrance
from secli.models.grid import Grid
from secli.models.mnist_body import Block, mnist_body

CHANNELS = (30, 60, 90)
SIZES = (5, 7, 9, 11, 13)
SIZES_ENLARGED = (7, 9, 11, 13, 15, 17)

Sizes = Annotated[
    tuple[Annotated[int, Field(ge=3, le=101)], ...] | None,
    Field(
        description="sides of the kernels in pixels, odd, increasing; none: 5 to 13, on enlarged images 7 to 17"
    ),
]
Orders = Annotated[
    tuple[Annotated[float, Field(ge=-1000, le=1000)], ...],
    Field(
        min_length=1, description="radial orders k: periods from the centre to the corner of the largest size"
    ),
]
Angles = Annotated[
    int,
    Field(ge=1, le=64, description="directions of the filters, equally spaced in [0, π], both ends included"),
]
SigmaPhi = Annotated[float, Field(gt=0, le=10, description="angular width of the filters in radians")]
Phase = Annotated[float, Field(ge=-10, le=10, description="phase β of the radial harmonics in radians")]
ReferenceSize = Annotated[int, Field(ge=1, le=101, description="side of the kernel of scale 1, in pixels")]


def mnist_ss(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
    sizes: Sizes = None,
    orders: Orders = (0.5, 1.0, 2.0),
    angles: Angles = 9,
    sigma_phi: SigmaPhi = math.pi / 16,
    phase: Phase = -math.pi / 4,
    reference_size: ReferenceSize = 11,
) -> StagedModel:
    """Return SS-CNN in the shared body: kernels steered to several sizes, the maximum over sizes, then ReLU.

    Channels 30, 60, 90; no bias in the convolutions, one in the first linear layer.

    Raises
    ------
    ValueError
        When the sizes are not odd, at least 3 and increasing.
    """
    if sizes is None:
        sizes = SIZES if upsampling == 1 else SIZES_ENLARGED
    inputs = (in_channels, *CHANNELS)
    blocks = [
        Block(
            ScaleSteerableConv(
                inputs[i],
                width,
                sizes,
                orders,
                angles,
                sigma_phi,
                phase,
                reference_size,
            ),
            width,
        )
        for i, width in enumerate(CHANNELS)
    ]
    before = entrance(in_channels, mean, std, upsampling, upsample)
    grid = Grid.of_image(image_size).upsampled(upsampling)
    return mnist_body(blocks, before, grid, classes, dropout, linear_bias=True)
