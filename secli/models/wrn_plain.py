"""The plain wide residual network of the STL-10 comparison.

Source: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016.
"""

from __future__ import annotations

from torch import nn

from secli.models.contract import StagedModel
from secli.models.options import Classes, InChannels, Mean, Std
from secli.models.wide_resnet import (
    STL10_MEAN,
    STL10_STD,
    WIDTHS,
    BlockDropout,
    ConvPosition,
    SharedActivation,
    WideFamily,
    WideImageSize,
    Widths,
    wide_resnet,
)


def wrn(
    in_channels: InChannels = 3,
    classes: Classes = 10,
    mean: Mean = STL10_MEAN,
    std: Std = STL10_STD,
    image_size: WideImageSize = 96,
    dropout: BlockDropout = 0.3,
    widths: Widths = WIDTHS,
    shared_activation: SharedActivation = True,
) -> StagedModel:
    """Return WRN-16-8: the wide residual body with plain 3×3 convolutions without bias."""
    family = WideFamily(
        stem=lambda inputs, outputs: nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        conv=conv,
        shortcut=pointwise,
    )
    return wide_resnet(
        family, in_channels, classes, mean, std, image_size, dropout, widths, shared_activation
    )


def conv(place: ConvPosition) -> nn.Module:
    """Return a plain 3×3 convolution."""
    return nn.Conv2d(place.inputs, place.outputs, 3, place.stride, padding=1, bias=False)


def pointwise(place: ConvPosition) -> nn.Module:
    """Return a plain 1×1 convolution."""
    return nn.Conv2d(place.inputs, place.outputs, 1, place.stride, bias=False)
