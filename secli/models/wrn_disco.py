"""Wide residual network of discrete scale convolutions (DISCO), of the STL-10 comparison.

Source: Sosnovik, Moskalev, Smeulders, "DISCO: accurate Discrete Scale Convolutions", BMVC 2021.
"""

from __future__ import annotations

from torch import nn

from secli.action.fields import ScaleSpace
from secli.layers.disco import disco_basis
from secli.layers.pooling import ScalePool, SpatialPool
from secli.layers.ses import SESConv, SESLift, SESPointwise
from secli.models.contract import StagedModel
from secli.models.disco import DiscoScales, DiscoSize, Sigma
from secli.models.entrance import chain
from secli.models.grid import Grid
from secli.models.options import Classes, InChannels, Mean, ScalePoolOption, Std
from secli.models.sesn import EffectiveSize
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

RELIFTED = (2, 3)


def wrn_disco(
    in_channels: InChannels = 3,
    classes: Classes = 10,
    mean: Mean = STL10_MEAN,
    std: Std = STL10_STD,
    image_size: WideImageSize = 96,
    dropout: BlockDropout = 0.3,
    size: DiscoSize = 5,
    scales: DiscoScales = (1.0, 1.41, 2.0),
    effective_size: EffectiveSize = 3,
    sigma: Sigma = 0.9,
    scale_pool: ScalePoolOption = "max",
    widths: Widths = WIDTHS,
    shared_activation: SharedActivation = True,
) -> StagedModel:
    """Return DISCO in the wide residual body: groups 2 and 3 pool the scale axis first and lift again.

    They do so inside their first convolution, y_k = (max_j x_j) ⋆ Σ_b w_b ψ_b^{s_k}: the batch norm and ReLU before
    it, and the shortcut beside it, see every level. A stride of 2 is a maximum over 2×2 behind the convolution, and
    behind the 1×1 of the shortcut: every second response of a fine grid would not know what its neighbours were. The
    shortcuts are shared over scales, batch norms run over (S, H, W), the scale axis is pooled before the last batch
    norm.

    Raises
    ------
    ValueError
        When a size is even, the scales do not increase from 1, or the kernel is too small for the largest scale.
    """
    basis = disco_basis(size, scales, effective_size, sigma, "A")
    padding = size // 2

    def conv(place: ConvPosition) -> nn.Module:
        inputs, outputs, stride = place[:3]
        if not (place.opens and place.group in RELIFTED):
            return SESConv(inputs, outputs, basis, padding=padding, bias=False)
        lift = SESLift(inputs, outputs, basis, padding=padding, bias=False)
        return chain(levels=ScalePool(scale_pool), lift=lift, pool=SpatialPool(stride))

    def shortcut(place: ConvPosition) -> nn.Module:
        pointwise = SESPointwise(place.inputs, place.outputs, bias=False)
        return pointwise if place.stride == 1 else chain(conv=pointwise, pool=SpatialPool(place.stride))

    def space(grid: Grid, group: int) -> ScaleSpace:
        return grid.scale_space(basis.scales)

    family = WideFamily(
        stem=lambda inputs, outputs: SESLift(inputs, outputs, basis, padding=padding, bias=False),
        conv=conv,
        shortcut=shortcut,
        field=space,
        before_norm=ScalePool(scale_pool),
        strided=lambda grid: grid.pooled(2),
    )
    return wide_resnet(
        family, in_channels, classes, mean, std, image_size, dropout, widths, shared_activation
    )
