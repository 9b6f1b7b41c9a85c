"""Discrete scale convolutions (DISCO) on MNIST-scale.

Source: Sosnovik, Moskalev, Smeulders, "DISCO: accurate Discrete Scale Convolutions", BMVC 2021.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from secli.action.fields import ScaleSpace
from secli.layers.disco import disco_basis
from secli.layers.fast.projection import ScaleProjection
from secli.layers.pooling import ScalePool, SpatialPool
from secli.layers.ses import SESConv, SESLift
from secli.models import options
from secli.models.contract import StagedModel
from secli.models.entrance import chain, entrance
from secli.models.grid import Grid
from secli.models.mnist_body import CHANNELS, Block, Pooled, mnist_body
from secli.models.sesn import EffectiveSize, MaxOrder, Mult

DiscoSize = Annotated[int, Field(ge=3, le=31, description="side K of the kernels in pixels, odd")]
DiscoScales = Annotated[
    tuple[Annotated[float, Field(ge=1, le=64)], ...],
    Field(
        min_length=1,
        max_length=8,
        description="scales, increasing from 1; exact where whole, fitted to the pixel grid elsewhere",
    ),
]
Sigma = Annotated[
    float, Field(gt=0, le=20, description="scale σ of the Hermite–Gauss functions at scale 1, in pixels")
]


def mnist_disco(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 2,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
    size: DiscoSize = 15,
    scales: DiscoScales = (1.0, 1.26, 1.59, 2.0),
    effective_size: EffectiveSize = 7,
    sigma: Sigma = 1.9,
    mult: Mult = 1.5,
    max_order: MaxOrder = 4,
    interaction: options.Interaction = 1,
    scale_pool: options.ScalePoolOption = "max",
) -> StagedModel:
    """Return DISCO in the shared body: levels kept up to the third convolution, filters on bases of the pixel grid.

    Average-pooling in the first two blocks; the third takes the maximum over scale, ReLU, a maximum over
    overlapping windows, then averages of 2×2.

    Raises
    ------
    ValueError
        When a size is even, the scales do not increase from 1, the kernel is too small for the largest scale, or
        the interaction exceeds the levels.
    """
    basis = disco_basis(size, scales, effective_size, sigma, "B", mult, max_order)
    padding = size // 2
    first, second, third = CHANNELS

    def space(at: Grid, truncated: int = 0) -> ScaleSpace:
        return at.scale_space(basis.scales, truncated=min(truncated, len(scales)))

    lift = SESLift(in_channels, first, basis, padding=padding)
    middle = SESConv(first, second, basis, interaction, padding=padding)
    last = ScaleProjection(SESConv(second, third, basis, interaction, padding=padding), ScalePool(scale_pool))
    blocks = [
        Block(lift, first, space, pool=disco_pool),
        Block(middle, second, lambda at: space(at, truncated=interaction - 1), pool=disco_pool),
        Block(last, third, pool=disco_pool),
    ]
    before = entrance(in_channels, mean, std, upsampling, upsample)
    grid = Grid.of_image(image_size).upsampled(upsampling)
    return mnist_body(blocks, before, grid, classes, dropout)


def disco_pool(grid: Grid, last: bool) -> Pooled:
    """Return the pooling of a block: averages of 2×2, or behind the last the two steps that leave 2×2 cells.

    On the 14×14 cells of the published network these are a maximum over 7×7 at stride 1 and averages of 2×2 at
    stride 4. The remaining cells are not centred on the image, as the grid records.
    """
    if not last:
        return Pooled(SpatialPool(2, how="mean"), grid.pooled(2))
    window = grid.size // 2
    largest = grid.windowed(window, 1)
    stride = largest.size // 2
    module = chain(largest=nn.MaxPool2d(window, 1), average=nn.AvgPool2d(2, stride))
    return Pooled(module, largest.windowed(2, stride))
