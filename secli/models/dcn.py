"""Deformable networks: the plain network of the scale curves with its last two convolutions deformable."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from secli.layers.deformable import DeformConv
from secli.models.cnn import WIDTHS, four_blocks
from secli.models.contract import StagedModel
from secli.models.options import Classes, DeformableGroups, InChannels, Mean, Std, Widths

Modulated = Annotated[bool, Field(description="v2: every tap also gets a mask in [0, 1]")]
ThirdBias = Annotated[
    bool, Field(description="a bias in the third convolution too, as the published weights of dcn_v2 have it")
]


def dcn(
    in_channels: InChannels = 1,
    classes: Classes = 10,
    mean: Mean = 0.0607,
    std: Std = 0.2161,
    modulated: Modulated = False,
    deformable_groups: DeformableGroups = 1,
    widths: Widths = WIDTHS,
    third_bias: ThirdBias = False,
) -> StagedModel:
    """Return the deformable network (v1, or v2 when modulated): its last two 3×3 convolutions move their taps.

    Raises
    ------
    ValueError
        When the groups do not divide the channels (20 and 40 as published) that the two convolutions take.
    """
    first, second, third, fourth = widths

    def deformable(inputs: int, outputs: int, bias: bool) -> DeformConv:
        return DeformConv(
            inputs, outputs, 3, padding=1, groups=deformable_groups, modulated=modulated, bias=bias
        )

    convolutions = [
        nn.Conv2d(in_channels, first, 3, padding=1, bias=False),
        nn.Conv2d(first, second, 3, padding=1),
        deformable(second, third, bias=third_bias),
        deformable(third, fourth, bias=True),
    ]
    return four_blocks(convolutions, widths, in_channels, classes, mean, std)
