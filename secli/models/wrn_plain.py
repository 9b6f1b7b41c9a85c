"""The plain wide residual network of the STL-10 comparison.

Source: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016.
"""

from __future__ import annotations

from torch import nn

from secli.models import wide_resnet as wide
from secli.models.contract import StagedModel
from secli.models.options import Classes, InChannels, Mean, Std


def wrn(
    in_channels: InChannels = 3,
    classes: Classes = 10,
    mean: Mean = wide.STL10_MEAN,
    std: Std = wide.STL10_STD,
    image_size: wide.WideImageSize = 96,
    dropout: wide.BlockDropout = 0.3,
    widths: wide.Widths = wide.WIDTHS,
    shared_activation: wide.SharedActivation = True,
) -> StagedModel:
    """Return WRN-16-8: the wide residual body with plain 3×3 convolutions without bias."""
    family = wide.WideFamily(
        stem=lambda inputs, outputs: nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        conv=conv,
        shortcut=pointwise,
    )
    return wide.wide_resnet(
        family, in_channels, classes, mean, std, image_size, dropout, widths, shared_activation
    )


def conv(position: wide.ConvPosition) -> nn.Module:
    """Return a plain 3×3 convolution."""
    return nn.Conv2d(position.inputs, position.outputs, 3, position.stride, padding=1, bias=False)


def pointwise(position: wide.ConvPosition) -> nn.Module:
    """Return a plain 1×1 convolution."""
    return nn.Conv2d(position.inputs, position.outputs, 1, position.stride, bias=False)
