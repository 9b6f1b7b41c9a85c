"""Deep scale spaces on a pyramid: the picture is shrunk from level to level, and the kernel stays as it is.

Source: Worrall, Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019, with bilinear shrinking instead
of the Gaussian lift and of the dilation.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from secli.action.fields import Invariant, Plane, Pyramid
from secli.layers.pooling import ScalePool
from secli.layers.pyramid import (
    PyramidBatchNorm,
    PyramidConv,
    PyramidLift,
    PyramidPool,
    PyramidStack,
    level_size,
)
from secli.models.contract import Stage, StagedModel
from secli.models.dss import Base, Channels, Levels
from secli.models.entrance import chain, entrance
from secli.models.options import Classes, ImageSize, InChannels, Mean, ScalePoolOption, Std
from secli.models.study import Form, refuse_options, study_dss_v2

PyramidInteraction = Annotated[
    int,
    Field(
        ge=1, le=16, description="levels I that a convolution mixes; each drops the I − 1 coarsest of its own"
    ),
]

POOLING = 4  # two average-poolings by 2


def dss_v2(
    in_channels: InChannels = 1,
    classes: Classes = 10,
    mean: Mean = 0.0607,
    std: Std = 0.2161,
    image_size: ImageSize = 28,
    channels: Channels = 16,
    base: Base = 1.5,
    levels: Levels = 4,
    interaction: PyramidInteraction = 1,
    scale_pool: ScalePoolOption = "max",
    form: Form = "ours",
) -> StagedModel:
    """Return a small deep scale space on a pyramid: two 3×3 convolutions, n and 2n channels, shared by all levels.

    Before the classifier all levels are max-pooled to the coarsest one's size. With ``form=study`` levels are whole
    fractions of the image, both convolutions have n channels, and one pooling follows them, as in a first study
    (whose ablation was about base 1.3).

    Raises
    ------
    ValueError
        When the interaction leaves no level, or ``form=study`` is given one, or levels without cells.
    """
    if form == "study":
        refuse_options(interaction=(interaction, 1))
        return study_dss_v2(in_channels, classes, mean, std, image_size, channels, base, levels, scale_pool)
    left = levels - 2 * (interaction - 1)
    if left < 1:
        raise ValueError(f"2 convolutions with interaction {interaction} leave no level of {levels}")

    def pyramid(layer: int, stride: float) -> Pyramid:
        count = levels - layer * (interaction - 1)
        return Pyramid(tuple(base**-k for k in range(count)), stride)

    def conv(inputs: int, outputs: int, layer: int) -> PyramidConv:
        at = levels - layer * (interaction - 1)
        return PyramidConv(inputs, outputs, 3, base, at, interaction, drop_top=True)

    # what the two poolings cannot divide they would cut off at one side
    lift = PyramidLift(base, levels, multiple=POOLING)
    coarsest = level_size(image_size, base, left - 1, POOLING) // POOLING
    plane = Plane(stride=POOLING * base ** (left - 1))
    features = 2 * channels * coarsest**2
    return StagedModel(
        [
            Stage("lift", chain(**entrance(in_channels, mean, std), lift=lift), pyramid(0, 1)),
            Stage("conv1", conv(in_channels, channels, 0), pyramid(1, 1)),
            Stage("block1", _pool_norm(channels), pyramid(1, 2)),
            Stage("conv2", conv(channels, 2 * channels, 1), pyramid(2, 2)),
            Stage("block2", _pool_norm(2 * channels), pyramid(2, POOLING)),
            Stage("pool", chain(stack=PyramidStack(base), pool=ScalePool(scale_pool), relu=nn.ReLU()), plane),
            Stage("logits", chain(flatten=nn.Flatten(), classify=nn.Linear(features, classes)), Invariant()),
        ]
    )


def _pool_norm(channels: int) -> nn.Sequential:
    return chain(pool=PyramidPool(2, how="mean"), norm=PyramidBatchNorm(channels))
