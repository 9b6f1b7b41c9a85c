"""Decomposed convolutional filters (ScDCF) in the body of MNIST-scale: few Fourier–Bessel functions at several radii.

Source: Zhu, Qiu, Calderbank, Sapiro, Cheng, "Scaling-Translation-Equivariant Networks with Decomposed Convolutional
Filters", JMLR 2022. The architecture is ours: the shared body.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from secli.layers.fourier_bessel import basis_fourier_bessel
from secli.models import options
from secli.models.contract import StagedModel
from secli.models.entrance import entrance
from secli.models.grid import Grid
from secli.models.mnist_body import mnist_body
from secli.models.sesn import Factor, Levels, steered_blocks

CHANNELS = (62, 122, 184)

Radius = Annotated[float, Field(gt=1, le=20, description="smallest radius ρ_0 of the filters in cells")]
Count = Annotated[int, Field(ge=1, le=64, description="Fourier–Bessel functions, the smoothest ones")]


def mnist_scdcf(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.BodyImageSize = 28,
    upsampling: options.Upsampling = 1,
    upsample: options.Upsample = "nearest",
    dropout: options.Dropout = 0.7,
    radius: Radius = 2.5,
    factor: Factor = 3.0,
    levels: Levels = 3,
    functions: Count = 10,
    interaction: options.Interaction = 1,
    scale_pool: options.ScalePoolOption = "max",
) -> StagedModel:
    """Return the shared body with filters on Fourier–Bessel functions, at S radii ρ_0 F^{k/(S−1)}.

    Levels are kept up to the third convolution, behind which the scale axis is pooled.

    Raises
    ------
    ValueError
        When the interaction exceeds the levels.
    """
    radii = tuple(radius * factor ** (k / max(levels - 1, 1)) for k in range(levels))
    basis = basis_fourier_bessel(radii, functions)
    blocks = steered_blocks(basis, radii, in_channels, CHANNELS, interaction, scale_pool)
    before = entrance(in_channels, mean, std, upsampling, upsample)
    grid = Grid.of_image(image_size).upsampled(upsampling)
    return mnist_body(blocks, before, grid, classes, dropout)
