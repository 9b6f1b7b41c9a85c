"""Scale-equivariant steerable networks on MNIST-scale, scalar and vector.

Source: Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, section 6.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from secli.action.fields import ScaleSpace
from secli.layers.fast.projection import ScaleProjection
from secli.layers.hermite import Basis, basis_b
from secli.layers.pooling import ScalePool
from secli.layers.ses import SESConv, SESLift
from secli.models import options
from secli.models.contract import StagedModel
from secli.models.entrance import entrance
from secli.models.grid import Grid
from secli.models.mnist_body import CHANNELS, Block, mnist_body

Mode = Annotated[
    Literal["scalar", "vector"],
    Field(
        description="scalar: the scale axis is pooled after every convolution; vector: once, after the third"
    ),
]
Size = Annotated[int, Field(ge=3, le=51, description="side K of the largest kernel in pixels, odd")]
MinScale = Annotated[float, Field(gt=0, le=20, description="smallest scale σ_0 in pixels")]
Factor = Annotated[float, Field(gt=1, le=16, description="ratio of the largest scale to the smallest")]
Levels = Annotated[int, Field(ge=1, le=16, description="number S of scales")]
Mult = Annotated[float, Field(gt=1, le=4, description="ratio of the basis's sub-scales")]
MaxOrder = Annotated[int, Field(ge=0, le=10, description="largest sum of Hermite orders in the basis")]
EffectiveSize = Annotated[int, Field(ge=1, le=15, description="e; the basis has e² functions")]


def ses_scales(min_scale: float, factor: float, levels: int) -> tuple[float, ...]:
    """Return the published scales σ_k = round(σ_min · F^{k/(S−1)}, 2).

    Raises
    ------
    ValueError
        When rounding makes two scales equal.
    """
    steps = [k / (levels - 1) for k in range(levels)] if levels > 1 else [0.0]
    scales = tuple(round(min_scale * factor**step, 2) for step in steps)
    if len(set(scales)) < levels or scales[0] <= 0:
        raise ValueError(f"min_scale {min_scale:g} and factor {factor:g} leave no {levels} different scales")
    return scales


def mnist_ses(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
    mode: Mode = "vector",
    size: Size = 13,
    min_scale: MinScale = 1.5,
    factor: Factor = 3.0,
    levels: Levels = 3,
    mult: Mult = 1.5,
    max_order: MaxOrder = 4,
    effective_size: EffectiveSize = 7,
    interaction: options.Interaction = 1,
    scale_pool: options.ScalePoolOption = "max",
) -> StagedModel:
    """Return SESN in the shared body: filters steered on Hermite–Gauss functions (basis B), sampled at S scales.

    Raises
    ------
    ValueError
        When the size is even, the interaction exceeds the levels, or a scalar network is given an interaction.
    """
    scales = ses_scales(min_scale, factor, levels)
    basis = basis_b(size, scales, effective_size, mult, max_order)
    before = entrance(in_channels, mean, std, upsampling, upsample)
    grid = Grid.of_image(image_size).upsampled(upsampling)
    padding = size // 2
    if mode == "scalar":
        if interaction > 1:
            raise ValueError(
                "interaction needs mode=vector: a scalar network has no levels between its layers"
            )
        inputs = (in_channels, *CHANNELS)
        blocks = [
            Block(
                ScaleProjection(SESLift(inputs[i], width, basis, padding=padding), ScalePool(scale_pool)),
                width,
            )
            for i, width in enumerate(CHANNELS)
        ]
        return mnist_body(blocks, before, grid, classes, dropout)

    blocks = steered_blocks(basis, scales, in_channels, CHANNELS, interaction, scale_pool)
    return mnist_body(blocks, before, grid, classes, dropout)


def steered_blocks(
    basis: Basis,
    scales: Sequence[float],
    in_channels: int,
    channels: tuple[int, int, int],
    interaction: int,
    scale_pool: options.ScalePoolOption,
) -> list[Block]:
    """Return a lift and two convolutions steered on a basis, the scale axis pooled behind the third.

    Parameters
    ----------
    basis
        Of the filters, sampled at every scale.
    scales
        Of the levels, as their fields have them.
    interaction
        I, the levels that a convolution mixes.
    """
    first, second, third = channels
    padding, levels = basis.size // 2, len(scales)

    def space(at: Grid, truncated: int = 0) -> ScaleSpace:
        return at.scale_space(tuple(scales), truncated=min(truncated, levels))

    last = ScaleProjection(SESConv(second, third, basis, interaction, padding=padding), ScalePool(scale_pool))
    return [
        Block(SESLift(in_channels, first, basis, padding=padding), first, space),
        Block(
            SESConv(first, second, basis, interaction, padding=padding),
            second,
            lambda at: space(at, truncated=interaction - 1),
        ),
        Block(last, third),
    ]
