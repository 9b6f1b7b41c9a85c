"""The deep scale space of the STL-10 comparison: the wide residual body with scale convolutions.

Source: Worrall, Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019, in the body of Sosnovik,
Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, section 6.2.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from secli.action.fields import ScaleSpace
from secli.layers.dss import DSSConv
from secli.layers.gaussian import ScaleSpaceLift
from secli.layers.pooling import ScalePool
from secli.layers.ses import SESPointwise
from secli.models import wide_resnet as wide
from secli.models.contract import StagedModel
from secli.models.dss import Base, DilationOption, Levels, Z, scale_space
from secli.models.entrance import chain
from secli.models.grid import Grid
from secli.models.options import Classes, InChannels, Interaction, Mean, ScalePoolOption, Std

DSS_WIDTHS = (16, 128, 240, 512)
INTERACTING = (1, 2)
"""The groups whose first convolution mixes neighbouring levels."""


def wrn_dss(
    in_channels: InChannels = 3,
    classes: Classes = 10,
    mean: Mean = wide.STL10_MEAN,
    std: Std = wide.STL10_STD,
    image_size: wide.WideImageSize = 96,
    dropout: wide.BlockDropout = 0.3,
    base: Base = 2.0,
    z: Z = 0.5,
    levels: Levels = 4,
    interaction: Interaction = 2,
    dilation: DilationOption = "floor",
    scale_pool: ScalePoolOption = "max",
    widths: wide.Widths = DSS_WIDTHS,
    shared_activation: wide.SharedActivation = True,
) -> StagedModel:
    """Return a deep scale space in the wide residual body: a Gaussian lift, then scale convolutions.

    The first convolutions of groups 1 and 2 mix I levels and drop the I − 1 at the top, which would have fewer
    terms: 4, 3, 2, 2 levels after the stem and the groups. The weights start near the identity (:func:`delta_`); the
    scale axis is pooled after the last ReLU.

    Raises
    ------
    ValueError
        When the interaction leaves no level.
    """
    dropped = [sum(group <= last for group in INTERACTING) * (interaction - 1) for last in range(4)]
    counts = [levels - top for top in dropped]
    if counts[-1] < 1:
        raise ValueError(f"2 convolutions with interaction {interaction} leave no level of {levels}")

    def conv(position: wide.ConvPosition) -> nn.Module:
        mixes = position.opens and position.group in INTERACTING
        return DSSConv(
            position.inputs,
            position.outputs,
            3,
            base,
            counts[position.group - 1] if position.opens else counts[position.group],
            interaction if mixes else 1,
            dilation,
            drop_top=True,
            stride=position.stride,
        )

    def shortcut(position: wide.ConvPosition) -> nn.Module:
        pointwise = SESPointwise(position.inputs, position.outputs, position.stride, bias=False)
        return chain(levels=wide.LowestLevels(counts[position.group]), conv=pointwise)

    def space(grid: Grid, group: int) -> ScaleSpace:
        return scale_space(grid, base, z, counts[group])

    family = wide.WideFamily(
        stem=lambda inputs, outputs: chain(
            lift=ScaleSpaceLift(base, z, levels), dss=DSSConv(inputs, outputs, 3, base, levels, 1, dilation)
        ),
        conv=conv,
        shortcut=shortcut,
        field=space,
        before_average=ScalePool(scale_pool),
        initialise=delta,
    )
    return wide.wide_resnet(
        family, in_channels, classes, mean, std, image_size, dropout, widths, shared_activation
    )


def delta(convolution: nn.Module) -> None:
    """Draw every weight of a convolution as :func:`delta_` does."""
    for parameter in convolution.parameters():
        delta_(parameter)


def delta_(weight: torch.Tensor) -> torch.Tensor:
    """Draw a weight (out, in[, interaction], K, K) in place: uniformly in ±0.01, but pass channels on by central taps.

    With g = gcd(in, out), the central tap of (output b, input a) is g/out where ⌊a·g/in⌋ = ⌊b·g/out⌋, for each of
    the levels that an interaction mixes.
    """
    outputs, inputs = weight.shape[:2]
    common = math.gcd(inputs, outputs)
    passes = (torch.arange(outputs) * common // outputs)[:, None] == torch.arange(inputs) * common // inputs
    centre = weight.shape[-1] // 2
    with torch.no_grad():
        weight.uniform_(-0.01, 0.01)
        weight[..., centre, centre][passes.to(weight.device)] = common / outputs
    return weight
