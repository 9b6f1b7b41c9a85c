"""The multi-column wide residual network of the STL-10 comparison.

Source: Xu, Xiao, Zhang, Yang, Zhang, "Scale-Invariant Convolutional Neural Networks", 2014, in the wide residual body
as in Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, section 6.2.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from secli.layers.columns import ColumnConv, ColumnLift, ColumnNorm
from secli.layers.ses import SESPointwise
from secli.models import wide_resnet as wide
from secli.models.contract import StagedModel
from secli.models.options import Classes, InChannels, Mean, Std
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
    mean: Mean = wide.STL10_MEAN,
    std: Std = wide.STL10_STD,
    image_size: wide.WideImageSize = 96,
    dropout: wide.BlockDropout = 0.3,
    widths: wide.Widths = wide.WIDTHS,
    shared_activation: wide.SharedActivation = True,
    scales: ColumnScales = SCALES,
) -> StagedModel:
    """Return WRN-16-8 in columns of 3×3 kernels resized to every scale, which meet behind the global average.

    Raises
    ------
    ValueError
        When the scales do not increase, or one leaves nothing of the kernel.
    """

    def conv(position: wide.ConvPosition) -> ColumnConv:
        return ColumnConv(position.inputs, position.outputs, 3, scales, position.stride)

    def shortcut(position: wide.ConvPosition) -> SESPointwise:
        return SESPointwise(position.inputs, position.outputs, position.stride, bias=False)

    family = wide.WideFamily(
        stem=lambda inputs, outputs: ColumnLift(inputs, outputs, 3, scales),
        conv=conv,
        shortcut=shortcut,
        field=lambda grid, group: grid.scale_space(scales),
        norm=lambda channels: ColumnNorm(channels, len(scales)),
        before_linear=BestColumn(),
    )
    return wide.wide_resnet(
        family, in_channels, classes, mean, std, image_size, dropout, widths, shared_activation
    )
