"""The locally scale-invariant wide residual network of the STL-10 comparison.

Source: Kanazawa, Sharma, Jacobs, "Locally Scale-Invariant Convolutional Neural Networks", NeurIPS workshop 2014, in
the wide residual body as in Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, section
6.2.
"""

from __future__ import annotations

from secli.layers.locally_invariant import SIConv
from secli.models.contract import StagedModel
from secli.models.kanazawa import ResizingScales
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
from secli.models.wrn_plain import pointwise

SCALES = (0.5, 1.0, 2.0)


def wrn_kanazawa(
    in_channels: InChannels = 3,
    classes: Classes = 10,
    mean: Mean = STL10_MEAN,
    std: Std = STL10_STD,
    image_size: WideImageSize = 96,
    dropout: BlockDropout = 0.3,
    widths: Widths = WIDTHS,
    shared_activation: SharedActivation = True,
    scales: ResizingScales = SCALES,
) -> StagedModel:
    """Return WRN-16-8 whose every 3×3 convolution sees its input resized by every scale; 1×1 stay as they are."""

    def conv(place: ConvPosition) -> SIConv:
        return SIConv(place.inputs, place.outputs, 3, scales, place.stride, bias=False)

    family = WideFamily(
        stem=lambda inputs, outputs: SIConv(inputs, outputs, 3, scales, bias=False),
        conv=conv,
        shortcut=pointwise,
    )
    return wide_resnet(
        family, in_channels, classes, mean, std, image_size, dropout, widths, shared_activation
    )
