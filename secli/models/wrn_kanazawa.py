"""The locally scale-invariant wide residual network of the STL-10 comparison.

Source: Kanazawa, Sharma, Jacobs, "Locally Scale-Invariant Convolutional Neural Networks", NeurIPS workshop 2014, in
the wide residual body as in Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, section
6.2.
"""

from __future__ import annotations

from secli.layers.locally_invariant import SIConv
from secli.models import wide_resnet as wide
from secli.models.contract import StagedModel
from secli.models.kanazawa import ResizingScales
from secli.models.options import Classes, InChannels, Mean, Std
from secli.models.wrn_plain import pointwise

SCALES = (0.5, 1.0, 2.0)


def wrn_kanazawa(
    in_channels: InChannels = 3,
    classes: Classes = 10,
    mean: Mean = wide.STL10_MEAN,
    std: Std = wide.STL10_STD,
    image_size: wide.WideImageSize = 96,
    dropout: wide.BlockDropout = 0.3,
    widths: wide.Widths = wide.WIDTHS,
    shared_activation: wide.SharedActivation = True,
    scales: ResizingScales = SCALES,
) -> StagedModel:
    """Return WRN-16-8 whose every 3×3 convolution sees its input resized by every scale; 1×1 stay as they are."""

    def conv(position: wide.ConvPosition) -> SIConv:
        return SIConv(position.inputs, position.outputs, 3, scales, position.stride, bias=False)

    family = wide.WideFamily(
        stem=lambda inputs, outputs: SIConv(inputs, outputs, 3, scales, bias=False),
        conv=conv,
        shortcut=pointwise,
    )
    return wide.wide_resnet(
        family, in_channels, classes, mean, std, image_size, dropout, widths, shared_activation
    )
