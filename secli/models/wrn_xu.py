"""The multi-column wide residual network of the STL-10 comparison.

Source: Xu, Xiao, Zhang, Yang, Zhang, "Scale-Invariant Convolutional Neural Networks", 2014, in the wide residual body
as in Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, section 6.2.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from secli.layers.columns import ColumnConv, ColumnLift, ColumnNorm
from secli.layers.ses import SESPointwise
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
from secli.models.xu import ColumnScales

SCALES = (0.67, 1.0, 1.5)


class BestColumn(nn.Module):
    """The maximum over columns that have been averaged over the plane."""

    def forward(self, x: Float[Tensor, "n c s"]) -> Float[Tensor, "n c"]:
        """Return the largest value of every channel."""
        return x.max(dim=2).values


def wrn_xu(
    in_channels: InChannels = 3,
    classes: Classes = 10,
    mean: Mean = STL10_MEAN,
    std: Std = STL10_STD,
    image_size: WideImageSize = 96,
    dropout: BlockDropout = 0.3,
    widths: Widths = WIDTHS,
    shared_activation: SharedActivation = True,
    scales: ColumnScales = SCALES,
) -> StagedModel:
    """Return WRN-16-8 in columns of 3×3 kernels resized to every scale, which meet behind the global average.

    Raises
    ------
    ValueError
        When the scales do not increase, or one leaves nothing of the kernel.
    """

    def conv(place: ConvPosition) -> ColumnConv:
        return ColumnConv(place.inputs, place.outputs, 3, scales, place.stride)

    def shortcut(place: ConvPosition) -> SESPointwise:
        return SESPointwise(place.inputs, place.outputs, place.stride, bias=False)

    family = WideFamily(
        stem=lambda inputs, outputs: ColumnLift(inputs, outputs, 3, scales),
        conv=conv,
        shortcut=shortcut,
        field=lambda grid, group: grid.scale_space(scales),
        norm=lambda channels: ColumnNorm(channels, len(scales)),
        before_linear=BestColumn(),
    )
    return wide_resnet(
        family, in_channels, classes, mean, std, image_size, dropout, widths, shared_activation
    )
