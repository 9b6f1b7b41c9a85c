"""Scale-equivariant vector fields in the shared body: the resizing with the largest response becomes an angle.

Source: Marcos, Kellenberger, Lobry, Tuia, "Scale Equivariance in CNNs with Vector Fields", 2018.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from secli.action.fields import VectorField
from secli.layers.vector_field import (
    BASE,
    LEVELS,
    ScalarFieldConv,
    Turn,
    VectorFieldConv,
    VectorFieldLift,
)
from secli.layers.vectors import Magnitude, Ties, VectorNorm, VectorPool
from secli.models import options
from secli.models.contract import StagedModel
from secli.models.entrance import entrance
from secli.models.grid import Grid
from secli.models.mnist_body import CHANNELS, LAST_PADDING, Block, Pooled, last_window, mnist_body

VECTOR_CHANNELS = (23, 45, 68)

Mode = Annotated[
    Literal["scalar", "vector"],
    Field(
        description="scalar: the magnitude alone goes on; vector: the angle, which is a scale, goes on too"
    ),
]
Size = Annotated[int, Field(ge=1, le=51, description="side K of the kernels in pixels, odd")]
Base = Annotated[float, Field(gt=1, le=4, description="ratio a of neighbouring resizings")]
Lowest = Annotated[int, Field(ge=-16, le=16, description="lowest j: the picture is resized by a^j")]
Highest = Annotated[int, Field(ge=-16, le=16, description="highest j")]
TurnOption = Annotated[
    Turn,
    Field(
        description="sense in which a vector convolution turns its weights with the resizing: "
        "against (as published) or along (the equivariant one)"
    ),
]
TiesOption = Annotated[
    Ties,
    Field(
        description="what decides between resizings that answer alike, as all do on a constant background: rounding "
        "(as published), or the lowest j (first), at every precision"
    ),
]


def vector_pool(grid: Grid, last: bool, ties: Ties = "rounding") -> Pooled:
    """Return the body's pooling for vectors: of each window, the longest."""
    kernel, padding = (last_window(grid.size), LAST_PADDING) if last else (2, 0)
    return Pooled(VectorPool(kernel, padding=padding, ties=ties), grid.pooled(kernel, padding))


def mnist_sevf(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
    mode: Mode = "vector",
    size: Size = 7,
    base: Base = BASE,
    lowest: Lowest = LEVELS[0],
    highest: Highest = LEVELS[1],
    turn: TurnOption = "against",
    ties: TiesOption = "rounding",
) -> StagedModel:
    """Return SEVF in the shared body: every convolution on eight resizings, of which the largest response goes on.

    No bias in the convolutions, one in the first linear layer, a norm after the first two blocks only. The vector
    network (23, 45, 68 channels) takes magnitudes after its last pooling.

    Raises
    ------
    ValueError
        When the size is even, there are not two resizings, their angles leave ±π, or a scalar network is given
        ``turn`` or ``ties``.
    """
    before = entrance(in_channels, mean, std, upsampling, upsample)
    grid = Grid.of_image(image_size).upsampled(upsampling)
    levels = (lowest, highest)
    if mode == "scalar":
        if turn != "against":
            raise ValueError("turn needs mode=vector: a scalar network has no vectors to turn")
        if ties != "rounding":
            raise ValueError("ties needs mode=vector: a scalar network forgets which resizing won")
        inputs = (in_channels, *CHANNELS)
        blocks = [
            Block(ScalarFieldConv(inputs[i], width, size, base, levels), width, activation=nn.Identity)
            for i, width in enumerate(CHANNELS)
        ]
        blocks[-1] = blocks[-1]._replace(norm=None)
        return mnist_body(blocks, before, grid, classes, dropout, linear_bias=True)

    first, second, third = VECTOR_CHANNELS
    convolutions = (
        VectorFieldLift(in_channels, first, size, base, levels, ties=ties),
        VectorFieldConv(first, second, size, base, levels, turn=turn, ties=ties),
        VectorFieldConv(second, third, size, base, levels, turn=turn, ties=ties),
    )

    def field(at: Grid) -> VectorField:
        # one resizing more, one step of the angle more: that is content a times smaller
        return VectorField(1 / base, convolutions[0].angle_step, levels, at.stride, at.origin)

    pool = partial(vector_pool, ties=ties)
    blocks = [
        Block(convolution, width, field, nn.Identity, pool, None if width == third else VectorNorm)
        for convolution, width in zip(convolutions, VECTOR_CHANNELS, strict=True)
    ]
    return mnist_body(blocks, before, grid, classes, dropout, collapse=Magnitude(), linear_bias=True)
