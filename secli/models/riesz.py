"""A Riesz network in the body of MNIST-scale: no scale axis, filters that have no scale.

Source: Barisin, Schladitz, Redenbach, "Riesz networks: scale invariant neural networks in a single forward pass", 2023.
The architecture is ours: the shared body.
"""

from __future__ import annotations

from secli.layers.riesz import RieszConv
from secli.models import options
from secli.models.contract import StagedModel
from secli.models.entrance import entrance
from secli.models.grid import Grid
from secli.models.mnist_body import Block, mnist_body

CHANNELS = (79, 156, 235)


def mnist_riesz(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
) -> StagedModel:
    """Return the shared body with Riesz transforms of orders one and two in the place of its convolutions.

    No mean is subtracted by default: an empty canvas is then zero, and a filter that reaches far meets no edge of it.
    """
    inputs = (in_channels, *CHANNELS)
    blocks = [Block(RieszConv(inputs[i], width), width) for i, width in enumerate(CHANNELS)]
    before = entrance(in_channels, mean, std, upsampling, upsample)
    grid = Grid.of_image(image_size).upsampled(upsampling)
    return mnist_body(blocks, before, grid, classes, dropout)
