"""The multi-column network on MNIST-scale.

Source: Xu, Xiao, Zhang, Yang, Zhang, "Scale-Invariant Convolutional Neural Networks", 2014, in the body and at the
scales of Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from secli.action.fields import ScaleSpace
from secli.layers.columns import ColumnConv, ColumnLift, ColumnNorm
from secli.layers.pooling import ScalePool
from secli.models import options
from secli.models.contract import StagedModel
from secli.models.entrance import entrance
from secli.models.grid import Grid
from secli.models.kanazawa import SCALES
from secli.models.mnist_body import CHANNELS, Block, mnist_body

ColumnScales = Annotated[
    tuple[Annotated[float, Field(gt=0, le=16)], ...],
    Field(
        min_length=1,
        max_length=16,
        description="scales of the columns' kernels, increasing; 1: the learned kernel itself",
    ),
]


def mnist_xu(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
    scales: ColumnScales = SCALES,
    scale_pool: options.ScalePoolOption = "max",
) -> StagedModel:
    """Return SiCNN in the shared body: columns of 7×7 kernels resized to every scale, which meet behind block 3.

    Raises
    ------
    ValueError
        When the scales do not increase, or one leaves nothing of the kernel.

    Notes
    -----
    The columns are declared as levels of a scale space. That law needs kernels smooth enough to be shrunk: of random
    ones the smallest columns keep four taps of 49, at the L1 norm of all of them, and respond unlike their neighbours.
    """

    def space(at: Grid) -> ScaleSpace:
        return at.scale_space(scales)

    def norm(channels: int) -> ColumnNorm:
        return ColumnNorm(channels, len(scales))

    first, second, third = CHANNELS
    blocks = [
        Block(ColumnLift(in_channels, first, 7, scales), first, space, norm=norm),
        Block(ColumnConv(first, second, 7, scales), second, space, norm=norm),
        Block(ColumnConv(second, third, 7, scales), third, space, norm=norm),
    ]
    before = entrance(in_channels, mean, std, upsampling, upsample)
    grid = Grid.of_image(image_size).upsampled(upsampling)
    return mnist_body(blocks, before, grid, classes, dropout, ScalePool(scale_pool))
