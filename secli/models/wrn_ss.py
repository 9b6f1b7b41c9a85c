"""The wide residual network with scale-steerable filters.

Source: Ghosh, Gupta, "Scale Steerable Filters for Locally Scale-Invariant Convolutional Neural Networks", 2019; on
STL-10 as in Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, section 6.2.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from secli.layers.scale_steerable import ScaleSteerableConv
from secli.models import wide_resnet as wide
from secli.models.contract import StagedModel
from secli.models.options import Classes, InChannels, Mean, Std
from secli.models.wrn_plain import pointwise

SS_WIDTHS = (11, 88, 176, 352)
REFERENCE_SIZE = 3
SIZES = (3, 5, 7)

InnerSizes = Annotated[
    Literal["published", "paper"],
    Field(
        description="paper: kernels of 3, 5 and 7 pixels in every layer; published (code): so in the first layer, "
        "3 alone inside the blocks"
    ),
]


def wrn_ss(
    in_channels: InChannels = 3,
    classes: Classes = 10,
    mean: Mean = wide.STL10_MEAN,
    std: Std = wide.STL10_STD,
    image_size: wide.WideImageSize = 96,
    dropout: wide.BlockDropout = 0.3,
    widths: wide.Widths = SS_WIDTHS,
    shared_activation: wide.SharedActivation = True,
    sizes: InnerSizes = "published",
) -> StagedModel:
    """Return WRN-16 with scale-steerable filters of order 1 in place of its 3×3 convolutions, the maximum over sizes.

    Plain 1×1 shortcuts; no ReLU after a maximum but those of the body. A layer's filters are sampled on the grid of
    its largest size: on 3×3 alone they span two shapes only, a vertical line of three pixels and its two neighbours.
    """
    inner = SIZES if sizes == "paper" else SIZES[:1]
    family = wide.WideFamily(
        stem=lambda inputs, outputs: _steerable(inputs, outputs, SIZES),
        conv=lambda position: _steerable(position.inputs, position.outputs, inner, position.stride),
        shortcut=pointwise,
        initialise=initialise,
    )
    return wide.wide_resnet(
        family, in_channels, classes, mean, std, image_size, dropout, widths, shared_activation
    )


def initialise(convolution: nn.Module) -> None:
    """Draw like the body: normally, with deviation √(2·in/n), n the number of coefficients.

    Real and imaginary parts alike; their axes are (order, out, in, angle), those of the shortcuts (out, in, 1, 1).
    """
    if not isinstance(convolution, ScaleSteerableConv):
        wide.fan_out_normal(convolution)
        return
    for part in (convolution.real, convolution.imag):
        nn.init.normal_(part, std=math.sqrt(2 * part.shape[2] / part.numel()))


def _steerable(inputs: int, outputs: int, sizes: tuple[int, ...], stride: int = 1) -> ScaleSteerableConv:
    return ScaleSteerableConv(
        inputs, outputs, sizes, orders=(1.0,), reference_size=REFERENCE_SIZE, stride=stride
    )
