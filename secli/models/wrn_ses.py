"""Scale-equivariant steerable wide residual networks of the STL-10 comparison: variants A, B and C.

Source: Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, section 6.2.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from secli.action.fields import ScaleSpace
from secli.layers.hermite import basis_a
from secli.layers.pooling import ScalePool
from secli.layers.ses import SESConv, SESLift, SESPointwise
from secli.models import wide_resnet as wide
from secli.models.contract import StagedModel
from secli.models.entrance import chain
from secli.models.grid import Grid
from secli.models.options import Classes, InChannels, Mean, ScalePoolOption, Std
from secli.models.sesn import EffectiveSize, Levels, Size

Variant = Annotated[
    Literal["a", "b", "c"],
    Field(
        description="a: smallest scale 0.9, levels kept to the end; b: 0.9, the first convolution of groups 2 and 3 "
        "pools the scale axis and lifts again; c: 1.1, interaction 2 in the first convolution of group 1"
    ),
]
Ratio = Annotated[float, Field(gt=1, le=8, description="ratio of neighbouring scales")]
MIN_SCALES = {"a": 0.9, "b": 0.9, "c": 1.1}


def wrn_ses(
    in_channels: InChannels = 3,
    classes: Classes = 10,
    mean: Mean = wide.STL10_MEAN,
    std: Std = wide.STL10_STD,
    image_size: wide.WideImageSize = 96,
    dropout: wide.BlockDropout = 0.3,
    variant: Variant = "a",
    size: Size = 7,
    levels: Levels = 3,
    ratio: Ratio = 1.41,
    effective_size: EffectiveSize = 3,
    scale_pool: ScalePoolOption = "max",
    widths: wide.Widths = wide.WIDTHS,
    shared_activation: wide.SharedActivation = True,
) -> StagedModel:
    """Return SESN in the wide residual body: filters steered on Hermite–Gauss functions (basis A) at S scales.

    The 1×1 shortcuts are shared over scales, batch norms run over (S, H, W), the scale axis is pooled before the
    last batch norm. Scales are σ_min · ratio^k. In variant b the first convolution of groups 2 and 3 is
    y_k = (max_j x_j) ⋆ Σ_b w_b ψ_b^{σ_k}: the batch norm and ReLU before it, and the shortcut, get every level.

    Raises
    ------
    ValueError
        When the size is even, or variant c has a single level.
    """
    scales = tuple(MIN_SCALES[variant] * ratio**k for k in range(levels))
    basis = basis_a(size, scales, effective_size)
    padding = size // 2
    relifted = (2, 3) if variant == "b" else ()

    def conv(position: wide.ConvPosition) -> nn.Module:
        inputs, outputs, stride = position[:3]
        if position.opens and position.group in relifted:
            lift = SESLift(inputs, outputs, basis, stride, padding, bias=False)
            return chain(pool=ScalePool(scale_pool), lift=lift)
        interaction = 2 if variant == "c" and position.opens and position.group == 1 else 1
        return SESConv(inputs, outputs, basis, interaction, stride, padding, bias=False)

    def shortcut(position: wide.ConvPosition) -> nn.Module:
        return SESPointwise(position.inputs, position.outputs, position.stride, bias=False)

    def space(grid: Grid, group: int) -> ScaleSpace:
        return grid.scale_space(scales, truncated=1 if variant == "c" and group > 0 else 0)

    family = wide.WideFamily(
        stem=lambda inputs, outputs: SESLift(inputs, outputs, basis, padding=padding, bias=False),
        conv=conv,
        shortcut=shortcut,
        field=space,
        before_norm=ScalePool(scale_pool),
    )
    return wide.wide_resnet(
        family, in_channels, classes, mean, std, image_size, dropout, widths, shared_activation
    )
