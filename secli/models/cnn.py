"""Plain convolutional networks: the reference of the scale-equivariant ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from secli.action.fields import Invariant, Plane
from secli.layers.pooling import BatchNorm
from secli.models import options
from secli.models.contract import Stage, StagedModel
from secli.models.entrance import chain, entrance
from secli.models.grid import Grid
from secli.models.mnist_body import CHANNELS, Block, mnist_body

WIDTHS = (8, 20, 40, 64)


def cnn(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    widths: options.Widths = WIDTHS,
) -> StagedModel:
    """Return the plain network of the scale curves: four 3×3 convolutions, each ReLU then batch norm.

    Stride 1, padding 1, a bias in the second and fourth; average pool to 2×2, one linear
    layer. Any image size.
    """
    inputs = (in_channels, *widths)
    convolutions = [
        nn.Conv2d(inputs[i], inputs[i + 1], 3, padding=1, bias=i % 2 == 1) for i in range(len(widths))
    ]
    return four_blocks(convolutions, widths, in_channels, classes, mean, std)


def four_blocks(
    convolutions: Sequence[nn.Module],
    widths: Sequence[int],
    in_channels: int,
    classes: int,
    mean: options.PerChannel,
    std: options.PerChannel,
) -> StagedModel:
    """Build the network of the curves from four convolutions of these widths, which keep the plane's size."""
    stages = []
    for i, (convolution, width) in enumerate(zip(convolutions, widths, strict=True)):
        before = entrance(in_channels, mean, std) if i == 0 else {}
        block = chain(**before, conv=convolution, relu=nn.ReLU(), norm=BatchNorm(width))
        stages.append(Stage(f"block{i + 1}", block, Plane()))
    head = chain(
        pool=nn.AdaptiveAvgPool2d(2), flatten=nn.Flatten(), classify=nn.Linear(4 * widths[-1], classes)
    )
    return StagedModel([*stages, Stage("logits", head, Invariant())])


def mnist_cnn(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
) -> StagedModel:
    """Return the plain network of the MNIST-scale comparison: the shared body with 7×7 convolutions."""
    inputs = (in_channels, *CHANNELS)
    blocks = [Block(nn.Conv2d(inputs[i], width, 7, padding=3), width) for i, width in enumerate(CHANNELS)]
    before = entrance(in_channels, mean, std, upsampling, upsample)
    grid = Grid.of_image(image_size).upsampled(upsampling)
    return mnist_body(blocks, before, grid, classes, dropout)
