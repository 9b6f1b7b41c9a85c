"""ResNet-50 as a deep scale space: every 3×3 a scale convolution, plain or deformable, every 1×1 shared over levels.

Sources: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016 (the bottleneck of
section 4.1; its stride is that of the 3×3); Worrall, Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS
2019 (the convolutions). For images of 28 to 96 pixels the stem is one 3×3 convolution of stride 1 and no pooling
follows it, so that the planes after the four groups have strides 1, 2, 4, 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from secli.action.fields import Invariant, ScaleSpace
from secli.layers.deform_dss import DeformableDSSConv
from secli.layers.dss import DSSConv
from secli.layers.gaussian import ScaleSpaceLift
from secli.layers.pooling import BatchNorm, ScalePool
from secli.layers.ses import SESPointwise
from secli.models import options
from secli.models.contract import Stage, StagedModel
from secli.models.dss import Base, DilationOption, Levels, Z, scale_space
from secli.models.entrance import chain, entrance
from secli.models.grid import Grid
from secli.models.wide_resnet import GlobalAverage, halved

BLOCKS = (3, 4, 6, 3)
EXPANSION = 4

ScaleConv = Callable[[int, int, int], DSSConv]
"""Returns a 3×3 scale convolution from its input channels, output channels and stride."""

SmallImageSize = Annotated[int, Field(ge=16, le=1024, description="side of the images in pixels")]
BaseWidth = Annotated[
    int,
    Field(
        ge=1,
        le=256,
        description="channels n of the stem; the blocks of the four groups are n, 2n, 4n, 8n wide and return "
        "4 times as many",
    ),
]


def dss_resnet50(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: SmallImageSize = 28,
    channels: BaseWidth = 64,
    base: Base = 2.0,
    z: Z = 0.5,
    levels: Levels = 4,
    interaction: options.Interaction = 1,
    dilation: DilationOption = "floor",
    scale_pool: options.ScalePoolOption = "max",
) -> StagedModel:
    """Return ResNet-50 on a Gaussian scale space: every 3×3 a scale convolution, the stem included.

    Raises
    ------
    ValueError
        When the interaction exceeds the levels.
    """

    def conv(inputs: int, outputs: int, stride: int) -> DSSConv:
        return DSSConv(inputs, outputs, 3, base, levels, interaction, dilation, stride=stride)

    space = _Space(base, z, levels, interaction)
    return _resnet50(conv, conv, space, in_channels, classes, mean, std, image_size, channels, scale_pool)


def deform_dss_resnet50(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0607,
    std: options.Std = 0.2161,
    image_size: SmallImageSize = 28,
    channels: BaseWidth = 64,
    base: Base = 2.0,
    z: Z = 0.5,
    levels: Levels = 4,
    interaction: options.Interaction = 1,
    dilation: DilationOption = "floor",
    offsets: options.OffsetsOption = "absolute",
    deformable_groups: options.DeformableGroups = 1,
    scale_pool: options.ScalePoolOption = "max",
) -> StagedModel:
    """Return ResNet-50 on a Gaussian scale space: every 3×3 a scale convolution whose taps move, the stem included.

    Raises
    ------
    ValueError
        When the interaction exceeds the levels, or the groups do not divide the width of a block.
    """

    def conv(inputs: int, outputs: int, stride: int, groups: int = deformable_groups) -> DSSConv:
        return DeformableDSSConv(
            inputs,
            outputs,
            3,
            base,
            levels,
            interaction,
            dilation,
            groups=groups,
            offsets=offsets,
            stride=stride,
        )

    def stem(inputs: int, outputs: int, stride: int) -> DSSConv:
        return conv(inputs, outputs, stride, groups=1)

    space = _Space(base, z, levels, interaction)
    return _resnet50(stem, conv, space, in_channels, classes, mean, std, image_size, channels, scale_pool)


class Bottleneck(nn.Module):
    """A residual block of a scale space: 1×1 → 3×3 → 1×1, each with its batch norm, plus the shortcut, then ReLU.

    ``width`` is that of the 3×3, and the block returns 4 · width channels; the shortcut has the stride, too.
    """

    def __init__(self, inputs: int, width: int, stride: int, conv: ScaleConv) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1, self.norm1 = _pointwise(inputs, width), BatchNorm(width)
        self.conv2, self.norm2 = conv(width, width, stride), BatchNorm(width)
        self.conv3, self.norm3 = _pointwise(width, outputs), BatchNorm(outputs)
        self.shortcut = (
            chain(conv=_pointwise(inputs, outputs, stride), norm=BatchNorm(outputs))
            if inputs != outputs or stride != 1
            else None
        )
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n o s y x"]:
        """Return the block's features."""
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        out: Tensor = self.relu(y + (x if self.shortcut is None else self.shortcut(x)))
        return out


class _Space:
    """The fields of a stack in which every 3×3 truncates I − 1 more levels."""

    def __init__(self, base: float, z: float, levels: int, interaction: int) -> None:
        self.base, self.z, self.levels, self.step = base, z, levels, interaction - 1

    def lift(self) -> ScaleSpaceLift:
        return ScaleSpaceLift(self.base, self.z, self.levels)

    def field(self, grid: Grid, convolutions: int) -> ScaleSpace:
        """Return the field after so many 3×3 convolutions."""
        return scale_space(grid, self.base, self.z, self.levels, convolutions * self.step)


def _resnet50(
    stem: ScaleConv,
    conv: ScaleConv,
    space: _Space,
    in_channels: int,
    classes: int,
    mean: options.PerChannel,
    std: options.PerChannel,
    image_size: int,
    channels: int,
    scale_pool: options.ScalePoolOption,
) -> StagedModel:
    """Assemble the network.

    Taps: ``lift``, ``stem`` (behind its ReLU), ``group1`` to ``group4`` (likewise), ``pool`` (the scale axis pooled),
    ``logits`` (the plane averaged, one linear layer).
    """
    grid = Grid.of_image(image_size)
    lift = chain(**entrance(in_channels, mean, std), lift=space.lift())
    entry = chain(conv=stem(in_channels, channels, 1), norm=BatchNorm(channels), relu=nn.ReLU())
    stages = [Stage("lift", lift, space.field(grid, 0)), Stage("stem", entry, space.field(grid, 1))]
    inputs, convolutions = channels, 1
    for group, count in enumerate(BLOCKS, start=1):
        width = channels * 2 ** (group - 1)
        blocks = nn.Sequential()
        for block in range(1, count + 1):
            stride = 2 if block == 1 and group > 1 else 1
            blocks.add_module(f"block{block}", Bottleneck(inputs, width, stride, conv))
            grid = halved(grid) if stride == 2 else grid
            inputs = EXPANSION * width
        convolutions += count
        stages.append(Stage(f"group{group}", blocks, space.field(grid, convolutions)))
    stages.append(Stage("pool", ScalePool(scale_pool), grid.plane()))
    head = chain(average=GlobalAverage(), classify=nn.Linear(inputs, classes))
    return StagedModel([*stages, Stage("logits", head, Invariant())])


def _pointwise(inputs: int, outputs: int, stride: int = 1) -> SESPointwise:
    """Return a 1×1 convolution without bias that all levels share, drawn He-normally as the 3×3 are."""
    convolution = SESPointwise(inputs, outputs, stride, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return convolution
