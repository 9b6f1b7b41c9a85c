"""The body that all ``wrn_16_8_*`` networks share, so that only their convolutions differ.

Source: Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016, with the pre-activation of He, Zhang, Ren, Sun,
"Identity Mappings in Deep Residual Networks", ECCV 2016; on STL-10 as in Sosnovik, Szmaja, Smeulders,
"Scale-Equivariant Steerable Networks", ICLR 2020, section 6.2. One convolution to 16 channels, three groups of two
blocks, then BN → ReLU → global average → Linear, each block being::

    y = conv(dropout(ReLU(BN(conv(ReLU(BN(x))))))) + shortcut
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field as Option
from torch import Tensor, nn

from secli.action.fields import Field, Invariant
from secli.datasets import stl10
from secli.layers.dropout import Dropout
from secli.layers.pooling import BatchNorm
from secli.models.contract import Stage, StagedModel
from secli.models.entrance import chain, entrance
from secli.models.grid import Grid
from secli.models.options import PerChannel

WIDTHS = (16, 128, 256, 512)
BLOCKS = 2
STL10_MEAN, STL10_STD = stl10.MEAN, stl10.STD

WideImageSize = Annotated[int, Option(ge=16, le=1024, description="side of the images in pixels")]
BlockDropout = Annotated[
    float, Option(ge=0, lt=1, description="dropout inside the blocks, before their second convolution")
]
Widths = Annotated[
    tuple[Annotated[int, Option(ge=1, le=4096)], ...],
    Option(
        min_length=4, max_length=4, description="channels of the first convolution and of the three groups"
    ),
]
SharedActivation = Annotated[
    bool,
    Option(
        description="where the width changes, the shortcut starts behind the block's first BN–ReLU (He et al. 2016); "
        "false: at the block's input"
    ),
]


class ConvPosition(NamedTuple):
    """The position of a convolution in the body, and its channels and stride.

    Groups are 1 to 3, blocks 1 to 2, layers 1 or 2 (the convolutions of a block; a shortcut's is 1).
    """

    inputs: int
    outputs: int
    stride: int
    group: int
    block: int
    layer: int

    @property
    def opens(self) -> bool:
        """Whether this is the first convolution (or the shortcut) of its group."""
        return self.block == 1 and self.layer == 1


def halved(grid: Grid) -> Grid:
    """Return the grid after a convolution of stride 2 that keeps cell 0: padding K//2, any odd K."""
    return grid.windowed(3, 2, 1)


def fan_out_normal(convolution: nn.Module) -> None:
    """Draw every weight of three or more axes (out, in, …) normally, with deviation √(2/fan-out).

    The fan-out is the number of weights per input channel: K²·out of a plain convolution, b·out of one that
    combines b basis functions of norm one. A bias starts at zero.
    """
    with torch.no_grad():
        for parameter in convolution.parameters():
            if parameter.ndim < 3:
                parameter.zero_()
            else:
                parameter.normal_(0, math.sqrt(2 * parameter.shape[1] / parameter.numel()))


@dataclass(frozen=True)
class WideFamily:
    """One family's modules for the body.

    Attributes
    ----------
    stem
        Returns the first 3×3 convolution or lift, from (in_channels, channels); it keeps the size of the plane.
    conv
        Returns a 3×3 convolution (or its replacement, with a maximum over scale before or after it, or a pooling
        instead of the stride).
    shortcut
        Returns the 1×1 convolution of the first block of each group, where the width changes; its output is
        added to the block's output, level by level.
    field
        The field after a group, given the grid and the group (0: the stem).
    norm, activation
        Return a batch norm, from the width, and the activation after it.
    before_norm, before_average, before_linear
        Modules at the end: before the last batch norm, the global average, the linear layer.
    strided
        The grid after a layer of stride 2.
    initialise
        Draws the weights of a new convolution, stem or shortcut.
    """

    stem: Callable[[int, int], nn.Module]
    conv: Callable[[ConvPosition], nn.Module]
    shortcut: Callable[[ConvPosition], nn.Module]
    field: Callable[[Grid, int], Field] = lambda grid, group: grid.plane()
    norm: Callable[[int], nn.Module] = BatchNorm
    activation: Callable[[], nn.Module] = nn.ReLU
    before_norm: nn.Module | None = None
    before_average: nn.Module | None = None
    before_linear: nn.Module | None = None
    strided: Callable[[Grid], Grid] = halved
    initialise: Callable[[nn.Module], None] = fan_out_normal


class WideBlock(nn.Module):
    """A pre-activation residual block: BN → ReLU → conv → BN → ReLU → dropout → conv, plus the shortcut.

    ``position`` is that of the first convolution; with ``shared`` the 1×1 of the first block of a group is applied to
    ReLU(BN(x)) rather than x.
    """

    def __init__(
        self, family: WideFamily, position: ConvPosition, dropout: float, shared: bool = True
    ) -> None:
        super().__init__()
        second = position._replace(inputs=position.outputs, stride=1, layer=2)
        self.norm1, self.relu1 = family.norm(position.inputs), family.activation()
        self.conv1 = _initialised(family, family.conv(position))
        self.norm2, self.relu2 = family.norm(position.outputs), family.activation()
        self.dropout = Dropout(dropout)
        self.conv2 = _initialised(family, family.conv(second))
        self.shortcut = _initialised(family, family.shortcut(position)) if position.opens else None
        self.shared = shared

    def forward(self, x: Float[Tensor, "n c *s h w"]) -> Float[Tensor, "n o *t y x"]:
        """Return the block's features."""
        active = self.relu1(self.norm1(x))
        y: Tensor = self.conv2(self.dropout(self.relu2(self.norm2(self.conv1(active)))))
        if self.shortcut is None:
            return y + x
        shortcut: Tensor = self.shortcut(active if self.shared else x)
        return y + shortcut


class GlobalAverage(nn.Module):
    """The mean over the plane."""

    def forward(self, x: Float[Tensor, "n c *s h w"]) -> Float[Tensor, "n c *s"]:
        """Return the means."""
        return x.mean((-2, -1))


class LowestLevels(nn.Module):
    """The lowest levels of a scale space: those left by a convolution that drops the top ones."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Float[Tensor, "n c s h w"]) -> Float[Tensor, "n c t h w"]:
        """Return levels 0 to count − 1."""
        return x[:, :, : self.count]

    def extra_repr(self) -> str:
        """Show how many."""
        return f"{self.count}"


def wide_resnet(
    family: WideFamily,
    in_channels: int,
    classes: int,
    mean: PerChannel,
    std: PerChannel,
    image_size: int,
    dropout: float,
    widths: tuple[int, ...] = WIDTHS,
    shared: bool = True,
) -> StagedModel:
    """Assemble a WRN-16 around one family's convolutions.

    ``widths`` are those of the stem and of the three groups, whose strides are 1, 2, 2; ``dropout`` is inside the
    blocks; ``shared`` is as for :class:`WideBlock`. Taps: ``stem`` (the first convolution or lift), ``group1``,
    ``group2``, ``group3`` (after the sum of each group's second block, before any batch norm), ``logits``.
    """
    grid = Grid.of_image(image_size)
    stem = _initialised(family, family.stem(in_channels, widths[0]))
    before = entrance(in_channels, mean, std)
    stages = [Stage("stem", chain(**before, conv=stem), family.field(grid, 0))]
    for group in (1, 2, 3):
        stride = 1 if group == 1 else 2
        blocks: dict[str, nn.Module] = {}
        for block in range(1, BLOCKS + 1):
            first = block == 1
            position = ConvPosition(
                widths[group - 1] if first else widths[group],
                widths[group],
                stride if first else 1,
                group,
                block,
                1,
            )
            blocks[f"block{block}"] = WideBlock(family, position, dropout, shared)
        grid = family.strided(grid) if stride > 1 else grid
        stages.append(Stage(f"group{group}", chain(**blocks), family.field(grid, group)))
    stages.append(Stage("logits", _head(family, widths[-1], classes), Invariant()))
    return StagedModel(stages)


def _head(family: WideFamily, width: int, classes: int) -> nn.Sequential:
    classifier = nn.Linear(width, classes)
    nn.init.zeros_(classifier.bias)
    modules = {
        "before_norm": family.before_norm,
        "norm": family.norm(width),
        "relu": family.activation(),
        "before_average": family.before_average,
        "average": GlobalAverage(),
        "before_linear": family.before_linear,
        "classify": classifier,
    }
    return chain(**{name: module for name, module in modules.items() if module is not None})


def _initialised(family: WideFamily, convolution: nn.Module) -> nn.Module:
    family.initialise(convolution)
    return convolution
