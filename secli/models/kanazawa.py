"""The locally scale-invariant network on MNIST-scale.

Source: Kanazawa, Sharma, Jacobs, "Locally Scale-Invariant Convolutional Neural Networks", NeurIPS workshop 2014, in
the body and at the scales of Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from secli.layers.locally_invariant import SIConv
from secli.models import options
from secli.models.contract import StagedModel
from secli.models.entrance import entrance
from secli.models.grid import Grid
from secli.models.mnist_body import CHANNELS, Block, mnist_body

SCALES = (0.3, 0.45, 0.67, 1.0, 1.49, 2.23, 3.33)

ResizingScales = Annotated[
    tuple[Annotated[float, Field(gt=0, le=16)], ...],
    Field(
        min_length=1,
        max_length=16,
        description="factors by which each layer's input is resized; 1: the input itself",
    ),
]


def mnist_kanazawa(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
    scales: ResizingScales = SCALES,
) -> StagedModel:
    """Return SI-ConvNet in the shared body: 7×7 convolutions, each seeing its input resized by every scale."""
    inputs = (in_channels, *CHANNELS)
    blocks = [Block(SIConv(inputs[i], width, 7, scales), width) for i, width in enumerate(CHANNELS)]
    before = entrance(in_channels, mean, std, upsampling, upsample)
    grid = Grid.of_image(image_size).upsampled(upsampling)
    return mnist_body(blocks, before, grid, classes, dropout)
