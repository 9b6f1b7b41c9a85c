"""Deformable deep scale spaces: scale equivariance from dilated tied kernels, local deformation from moved taps.

Sources: Worrall, Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019; Dai et al., "Deformable
Convolutional Networks", ICCV 2017.
"""

from __future__ import annotations

from secli.layers.deform_dss import DeformableDSSConv
from secli.models import options
from secli.models.contract import StagedModel
from secli.models.dss import (
    Base,
    Channels,
    DilationOption,
    DropTop,
    IOLevels,
    Levels,
    LevelsOfScale,
    Z,
    scale_convolutions,
)
from secli.models.entrance import entrance
from secli.models.study import Form, refuse_options, study_deform_dss


def deform_dss(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: options.ImageSize = 28,
    channels: Channels = 16,
    base: Base = 2.0,
    z: Z = 0.5,
    levels: Levels = 4,
    interaction: options.Interaction = 1,
    deformable_groups: options.DeformableGroups = 1,
    dilation: DilationOption = "floor",
    offsets: options.OffsetsOption = "absolute",
    drop_top: DropTop = False,
    scale_pool: options.ScalePoolOption = "max",
    io_levels: IOLevels = None,
    form: Form = "ours",
) -> StagedModel:
    """Return dss_v1 with deformable scale convolutions; its first one, on the image, has one deformable group.

    With ``form=study`` its convolutions share undilated kernels over the levels, as in a first study (whose n is a
    multiple of its 10 groups, which are not the default).

    Raises
    ------
    ValueError
        When the interaction exceeds the levels, or leaves none with ``drop_top``, more levels are to be kept than
        exist, the groups do not divide the channels, or ``form=study`` is given an option that it does not have.
    """
    if form == "study":
        refuse_options(
            interaction=(interaction, 1),
            dilation=(dilation, "floor"),
            offsets=(offsets, "absolute"),
            drop_top=(drop_top, False),
            io_levels=(io_levels, None),
        )
        lifted = LevelsOfScale(base, z, levels, interaction, drop_top)
        return study_deform_dss(
            in_channels,
            classes,
            mean,
            std,
            image_size,
            channels,
            lifted,
            deformable_groups,
            scale_pool,
        )

    def conv(inputs: int, outputs: int, at: int, kept: int | None) -> DeformableDSSConv:
        groups = deformable_groups if outputs > channels else 1  # the first sees too few channels
        return DeformableDSSConv(
            inputs, outputs, 3, base, at, interaction, dilation, drop_top, groups, offsets, out_levels=kept
        )

    scales = LevelsOfScale(base, z, levels, interaction, drop_top, io_levels)
    before = entrance(in_channels, mean, std)
    return scale_convolutions(conv, scales, before, in_channels, channels, image_size, classes, scale_pool)
