"""Wide residual network of discrete scale convolutions (DISCO), of the STL-10 comparison.

Source: Sosnovik, Moskalev, Smeulders, "DISCO: accurate Discrete Scale Convolutions", BMVC 2021.
"""

from __future__ import annotations

from torch import nn

from secli.action.fields import ScaleSpace
from secli.layers.disco import disco_basis
from secli.layers.pooling import ScalePool, SpatialPool
from secli.layers.ses import SESConv, SESLift, SESPointwise
from secli.models import wide_resnet as wide
from secli.models.contract import StagedModel
from secli.models.disco import DiscoScales, DiscoSize, Sigma
from secli.models.entrance import chain
from secli.models.grid import Grid
from secli.models.options import Classes, InChannels, Mean, ScalePoolOption, Std
from secli.models.sesn import EffectiveSize

RELIFTED = (2, 3)


def wrn_disco(
    in_channels: InChannels = 3,
    classes: Classes = 10,
    mean: Mean = wide.STL10_MEAN,
    std: Std = wide.STL10_STD,
    image_size: wide.WideImageSize = 96,
    dropout: wide.BlockDropout = 0.3,
    size: DiscoSize = 5,
    scales: DiscoScales = (1.0, 1.41, 2.0),
    effective_size: EffectiveSize = 3,
    sigma: Sigma = 0.9,
    scale_pool: ScalePoolOption = "max",
    widths: wide.Widths = wide.WIDTHS,
    shared_activation: wide.SharedActivation = True,
) -> StagedModel:
    """Return DISCO in the wide residual body: groups 2 and 3 pool the scale axis first and lift again.

    They do so inside their first convolution, y_k = (max_j x_j) ⋆ Σ_b w_b ψ_b^{s_k}: the batch norm and ReLU before
    it, and the shortcut, get every level. A stride of 2 is a maximum over 2×2 after the convolution, and after the 1×1
    of the shortcut: every second response of a fine grid would ignore its neighbours. The shortcuts are shared over
    scales, batch norms run over (S, H, W), the scale axis is pooled before the last batch norm.

    Raises
    ------
    ValueError
        When a size is even, the scales do not increase from 1, or the kernel is too small for the largest scale.
    """
    basis = disco_basis(size, scales, effective_size, sigma, "A")
    padding = size // 2

    def conv(position: wide.ConvPosition) -> nn.Module:
        inputs, outputs, stride = position[:3]
        if not (position.opens and position.group in RELIFTED):
            return SESConv(inputs, outputs, basis, padding=padding, bias=False)
        lift = SESLift(inputs, outputs, basis, padding=padding, bias=False)
        return chain(levels=ScalePool(scale_pool), lift=lift, pool=SpatialPool(stride))

    def shortcut(position: wide.ConvPosition) -> nn.Module:
        pointwise = SESPointwise(position.inputs, position.outputs, bias=False)
        return pointwise if position.stride == 1 else chain(conv=pointwise, pool=SpatialPool(position.stride))

    def space(grid: Grid, group: int) -> ScaleSpace:
        return grid.scale_space(basis.scales)

    family = wide.WideFamily(
        stem=lambda inputs, outputs: SESLift(inputs, outputs, basis, padding=padding, bias=False),
        conv=conv,
        shortcut=shortcut,
        field=space,
        before_norm=ScalePool(scale_pool),
        strided=lambda grid: grid.pooled(2),
    )
    return wide.wide_resnet(
        family, in_channels, classes, mean, std, image_size, dropout, widths, shared_activation
    )
