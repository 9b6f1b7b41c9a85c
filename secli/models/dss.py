"""Deep scale spaces: a Gaussian lift, then convolutions whose tied kernel is dilated from level to level.

Source: Worrall, Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from torch import nn

from secli.action.fields import Invariant, ScaleSpace
from secli.layers.dss import Dilation, DSSConv
from secli.layers.gaussian import ScaleSpaceLift
from secli.layers.pooling import BatchNorm, ScalePool, ScalePooling, SpatialPool
from secli.models import options
from secli.models.contract import Stage, StagedModel
from secli.models.entrance import chain, entrance
from secli.models.grid import Grid
from secli.models.mnist_body import CHANNELS, Block, mnist_body

Base = Annotated[float, Field(gt=1, le=8, description="base b: the ratio of neighbouring scales")]
Z = Annotated[
    float, Field(gt=0, le=8, description="blur z that the image is taken to have, in pixels it is lifted on")
]
Levels = Annotated[int, Field(ge=1, le=16, description="number S of scale levels")]
Channels = Annotated[
    int, Field(ge=1, le=1024, description="channels n of the first convolution; the second has 2n")
]
DilationOption = Annotated[
    Dilation,
    Field(description="b^k as a dilation: floor (as published), round, or exact (the tied kernel splatted)"),
]
DropTop = Annotated[
    bool, Field(description="leave out the I − 1 top levels that an interaction feeds from fewer terms")
]
IOLevels = Annotated[
    int | None,
    Field(
        ge=1,
        le=16,
        description="levels that the convolutions keep, the lowest of the S that the lift makes; none: all of them",
    ),
]
Layers = Annotated[
    Literal[2, 4],
    Field(
        description="scale convolutions: 2 (n, 2n; batch norm behind each), or 4 (n, n, 2n, 2n; no batch norm)"
    ),
]
Mode = Annotated[
    Literal["scalar", "vector"],
    Field(description="scalar: lift and pool the scale axis in every block; vector: once, at the end"),
]


def _blocks_of_levels(levels: int, interaction: int, drop_top: bool, convolutions: int) -> list[int]:
    """Return the levels of each convolution's input, then of the last one's output."""
    step = interaction - 1 if drop_top else 0
    counts = [levels - i * step for i in range(convolutions + 1)]
    if counts[-1] < 1:
        raise ValueError(
            f"{convolutions} convolutions with interaction {interaction} and drop_top leave no level of {levels}"
        )
    return counts


def dss_v1(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.ImageSize = 28,
    channels: Channels = 16,
    base: Base = 2.0,
    z: Z = 0.5,
    levels: Levels = 4,
    interaction: options.Interaction = 1,
    dilation: DilationOption = "floor",
    drop_top: DropTop = False,
    scale_pool: options.ScalePoolOption = "max",
    io_levels: IOLevels = None,
    layers: Layers = 2,
) -> StagedModel:
    """Return a small deep scale space: a Gaussian lift and two 3×3 scale convolutions, n and 2n channels.

    With ``layers=4`` there are four, n, n, 2n and 2n channels, an average-pooling behind each second one, and no batch
    norm.

    Raises
    ------
    ValueError
        When the interaction exceeds the levels, or leaves none with ``drop_top``, or more levels are to be kept than
        exist.
    """

    def conv(inputs: int, outputs: int, at: int, kept: int | None) -> DSSConv:
        return DSSConv(inputs, outputs, 3, base, at, interaction, dilation, drop_top, out_levels=kept)

    scales = LevelsOfScale(base, z, levels, interaction, drop_top, io_levels)
    before = entrance(in_channels, mean, std)
    return scale_convolutions(
        conv, scales, before, in_channels, channels, image_size, classes, scale_pool, layers == 4
    )


class LevelsOfScale(NamedTuple):
    """The levels of a Gaussian scale space, and how an interaction reduces them."""

    base: float
    z: float
    levels: int
    interaction: int
    drop_top: bool
    kept: int | None = None

    def counts(self, convolutions: int) -> list[int]:
        """Return the levels of the lift, then those after each convolution."""
        if self.kept is None:
            return _blocks_of_levels(self.levels, self.interaction, self.drop_top, convolutions)
        if self.kept > self.levels:
            raise ValueError(f"io_levels = {self.kept}: the lift has {self.levels} levels; raise levels")
        if self.drop_top:
            raise ValueError("io_levels and drop_top exclude each other; leave one of them out")
        return [self.levels, *[self.kept] * convolutions]

    def truncated(self, convolutions: int) -> int:
        """Return how many levels at the top have fewer terms after so many convolutions."""
        if self.drop_top or not convolutions:
            return 0
        # levels that the first convolution drops still contribute to those that it keeps
        spare = 0 if self.kept is None else self.levels - self.kept
        first = max(0, self.interaction - 1 - spare)
        return first + (convolutions - 1) * (self.interaction - 1)


def scale_convolutions(
    conv: Callable[[int, int, int, int | None], nn.Module],
    scales: LevelsOfScale,
    before: Mapping[str, nn.Module],
    in_channels: int,
    channels: int,
    image_size: int,
    classes: int,
    scale_pool: ScalePooling,
    plain: bool = False,
) -> StagedModel:
    """Assemble a small deep scale space around 3×3 scale convolutions that keep the plane's size.

    Parameters
    ----------
    conv : callable
        Builds a convolution from its input channels, output channels, levels of the input and levels to keep.
    scales : LevelsOfScale
        Of the lift and the convolutions.
    in_channels, channels : int
        Channels of the images, and n: the convolutions have n and 2n, or n, n, 2n and 2n.
    plain : bool
        Two convolutions of each width before its pooling, and no batch norm.

    Raises
    ------
    ValueError
        When an interaction with ``drop_top`` leaves no level, or more levels are to be kept than there are.
    """
    base, z, levels = scales[:3]
    widths = [width for width in (channels, 2 * channels) for _ in range(1 + plain)]
    counts = scales.counts(len(widths))
    grid = Grid.of_image(image_size)

    def space(at: Grid, layer: int) -> ScaleSpace:
        return scale_space(at, base, z, counts[layer], scales.truncated(layer))

    stages = [Stage("lift", chain(**before, lift=ScaleSpaceLift(base, z, levels)), space(grid, 0))]
    for i, (inputs, width) in enumerate(zip((in_channels, *widths), widths, strict=False)):
        layer = conv(inputs, width, counts[i], scales.kept)
        stages.append(Stage(f"conv{i + 1}", layer, space(grid, i + 1)))
        if i + 1 == len(widths) or widths[i + 1] != width:
            grid = grid.pooled(2)
            pool = chain(pool=SpatialPool(2, how="mean")) if plain else _pool_norm(width)
            stages.append(Stage(f"block{width // channels}", pool, space(grid, i + 1)))
    stages.append(Stage("pool", chain(pool=ScalePool(scale_pool), relu=nn.ReLU()), grid.plane()))
    features = 2 * channels * grid.size**2
    stages.append(
        Stage("logits", chain(flatten=nn.Flatten(), classify=nn.Linear(features, classes)), Invariant())
    )
    return StagedModel(stages)


def mnist_dss(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
    mode: Mode = "vector",
    base: Base = 2.0,
    z: Z = 0.25,
    levels: Levels = 2,
    interaction: options.Interaction = 1,
    dilation: DilationOption = "floor",
    drop_top: DropTop = False,
    scale_pool: options.ScalePoolOption = "max",
) -> StagedModel:
    """Return a deep scale space in the shared body: 7×7 scale convolutions without bias on two levels.

    Raises
    ------
    ValueError
        When the interaction exceeds the levels, or leaves none with ``drop_top``.
    """
    grid = Grid.of_image(image_size).upsampled(upsampling)
    before = entrance(in_channels, mean, std, upsampling, upsample)
    inputs = (in_channels, *CHANNELS)

    def conv(layer: int, at: int) -> DSSConv:
        return DSSConv(inputs[layer], CHANNELS[layer], 7, base, at, interaction, dilation, drop_top)

    if mode == "scalar":
        _blocks_of_levels(levels, interaction, drop_top, convolutions=1)
        blocks = [
            Block(
                chain(lift=ScaleSpaceLift(base, z, levels), dss=conv(i, levels), pool=ScalePool(scale_pool)),
                CHANNELS[i],
            )
            for i in range(3)
        ]
        return mnist_body(blocks, before, grid, classes, dropout)
    counts = _blocks_of_levels(levels, interaction, drop_top, convolutions=3)
    # the lift works on the enlarged image; a field's blur is in pixels of the image itself
    blur = z / upsampling

    def block(i: int) -> Block:
        truncated = 0 if drop_top else (i + 1) * (interaction - 1)
        return Block(
            conv(i, counts[i]), CHANNELS[i], lambda at: scale_space(at, base, blur, counts[i + 1], truncated)
        )

    before["lift"] = ScaleSpaceLift(base, z, levels)
    return mnist_body([block(i) for i in range(3)], before, grid, classes, dropout, ScalePool(scale_pool))


def scale_space(at: Grid, base: float, blur: float, levels: int, truncated: int = 0) -> ScaleSpace:
    """Return the field of a Gaussian scale space of this base on a grid."""
    scales = tuple(base**k for k in range(levels))
    return at.scale_space(scales, base_blur=blur, truncated=min(truncated, levels))


def _pool_norm(channels: int) -> nn.Sequential:
    return chain(pool=SpatialPool(2, how="mean"), norm=BatchNorm(channels))
