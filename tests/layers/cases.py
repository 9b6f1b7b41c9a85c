"""Every layer that secli exports, built alone: one line each, for the tests that hold for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secli import layers

Build = Callable[..., nn.Module]


@dataclass(frozen=True)
class Case:
    """One layer with its arguments, what it takes and what it gives.

    Attributes
    ----------
    name
        The layer and what is special about this case.
    build
        Builds it, given ``device`` and ``dtype``.
    takes, gives
        The axes between the batch and the plane, before and after.
    window
        Kernel, stride and padding: together they say which plane comes out, as for any convolution.
    sizes
        Planes that it is tried on.
    plane
        The side that comes out, where no window says it.
    bf16
        Error that bfloat16 may bring, as a share of the output's norm.
    """

    name: str
    build: Build
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    window: tuple[int, int, int] = (1, 1, 0)
    sizes: tuple[tuple[int, int], ...] = ((13, 18), (16, 16))
    bf16: float = 0.02
    plane: Callable[[int], int] | None = None

    @property
    def layer(self) -> str:
        """The exported name."""
        return self.name.split()[0]

    def input(self, size: tuple[int, int], **options: Any) -> Tensor:
        """Return random features on a plane of this size."""
        return torch.randn(2, *self.takes, *size, **options)

    def shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape that comes out."""
        if self.plane is not None:
            return (2, *self.gives, *(self.plane(side) for side in size))
        kernel, stride, padding = self.window
        return (2, *self.gives, *((side + 2 * padding - kernel) // stride + 1 for side in size))


def coarsest(side: int) -> int:
    """Return the side of the third level of a pyramid of base 1.5."""
    return math.ceil(side / 1.5**2)


def on_a_pyramid(*layers_: nn.Module) -> nn.Module:
    """Put layers that map lists of planes between a lift and a stack."""
    return nn.Sequential(layers.PyramidLift(1.5, 3), *layers_, layers.PyramidStack(1.5))


def moved(layer: nn.Module) -> nn.Module:
    """Give parameters that start at zero a value, so that a deformable branch does move its taps."""
    with torch.no_grad():
        for parameter in layer.parameters():
            if not parameter.is_meta and not parameter.any():
                parameter.normal_(std=0.1)
    return layer


class Scaled(nn.Module):
    """Multiply every level by its scale."""

    def __init__(self, scales: nn.Module) -> None:
        super().__init__()
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.scales().view(-1, 1, 1)
        return y


SCALES = (0.5, 1, 2.3)
BASIS = layers.basis_a(7, (0.9, 1.27, 1.79), 3)
PIXEL_BASIS = layers.disco_basis(5, (1, 1.41, 2), 3, sigma=0.9)
# where the largest response chooses, rounding may choose another one
CHOOSING = 0.25

CASES = [
    Case("SESLift", lambda **o: layers.SESLift(2, 4, BASIS, **o), (2,), (4, 3), (7, 1, 0)),
    Case("SESLift strided", lambda **o: layers.SESLift(2, 4, BASIS, 2, 3, **o), (2,), (4, 3), (7, 2, 3)),
    Case("SESConv", lambda **o: layers.SESConv(2, 4, BASIS, padding=3, **o), (2, 3), (4, 3), (7, 1, 3)),
    Case(
        "SESConv mixing levels, strided",
        lambda **o: layers.SESConv(2, 4, BASIS, 2, stride=2, padding=1, **o),
        (2, 3),
        (4, 3),
        (7, 2, 1),
    ),
    Case("SESPointwise", lambda **o: layers.SESPointwise(2, 4, **o), (2, 3), (4, 3)),
    Case("SESPointwise strided", lambda **o: layers.SESPointwise(2, 4, 2, **o), (2, 3), (4, 3), (1, 2, 0)),
    Case("ScaleSpaceLift", lambda **o: layers.ScaleSpaceLift(2, 0.5, 3, **o), (2,), (2, 3)),
    Case("DSSConv", lambda **o: layers.DSSConv(2, 4, 3, 2, 3, **o), (2, 3), (4, 3), (3, 1, 1)),
    Case(
        "DSSConv splatted, mixing levels, strided",
        lambda **o: layers.DSSConv(
            2, 4, 3, 1.5, 3, 2, "exact", drop_top=True, stride=2, padding=2, bias=True, **o
        ),
        (2, 3),
        (4, 2),
        (3, 2, 2),
    ),
    Case("SESLift on pixels", lambda **o: layers.SESLift(2, 4, PIXEL_BASIS, **o), (2,), (4, 3), (5, 1, 0)),
    Case(
        "SESConv on pixels, strided",
        lambda **o: layers.SESConv(2, 4, PIXEL_BASIS, 2, 2, 2, **o),
        (2, 3),
        (4, 3),
        (5, 2, 2),
    ),
    Case("PyramidLift", lambda **o: on_a_pyramid(), (2,), (2, 3), plane=coarsest),
    Case("PyramidStack", lambda **o: on_a_pyramid(), (2,), (2, 3), plane=coarsest),
    Case(
        "PyramidConv",
        lambda **o: on_a_pyramid(layers.PyramidConv(2, 4, 3, 1.5, 3, **o)),
        (2,),
        (4, 3),
        plane=coarsest,
    ),
    Case(
        "PyramidConv mixing levels, strided",
        lambda **o: on_a_pyramid(layers.PyramidConv(2, 4, 3, 1.5, 3, 2, stride=2, bias=True, **o)),
        (2,),
        (4, 3),
        plane=lambda side: (coarsest(side) - 1) // 2 + 1,
    ),
    Case(
        "PyramidPool",
        lambda **o: on_a_pyramid(layers.PyramidPool(2)),
        (2,),
        (2, 3),
        plane=lambda side: coarsest(side) // 2,
    ),
    Case(
        "PyramidBatchNorm",
        lambda **o: on_a_pyramid(layers.PyramidBatchNorm(2, **o)),
        (2,),
        (2, 3),
        plane=coarsest,
    ),
    Case(
        "VectorFieldLift",
        lambda **o: layers.VectorFieldLift(2, 4, 5, **o),
        (2,),
        (4, 2),
        (5, 1, 2),
        bf16=CHOOSING,
    ),
    Case(
        "VectorFieldLift strided",
        lambda **o: layers.VectorFieldLift(2, 4, 5, 1.4, (-1, 1), stride=2, padding=1, **o),
        (2,),
        (4, 2),
        (5, 2, 1),
        bf16=CHOOSING,
    ),
    Case("ScalarFieldConv", lambda **o: layers.ScalarFieldConv(2, 4, 5, **o), (2,), (4,), (5, 1, 2)),
    Case(
        "VectorFieldConv",
        lambda **o: layers.VectorFieldConv(2, 4, 5, **o),
        (2, 2),
        (4, 2),
        (5, 1, 2),
        bf16=CHOOSING,
    ),
    Case(
        "VectorFieldConv turning along, strided",
        lambda **o: layers.VectorFieldConv(2, 4, 5, 1.4, (-1, 1), stride=2, turn="along", **o),
        (2, 2),
        (4, 2),
        (5, 2, 2),
        bf16=CHOOSING,
    ),
    Case("Magnitude", lambda **o: layers.Magnitude(), (2, 2), (2,)),
    Case("VectorPool", lambda **o: layers.VectorPool(3, 2, 1), (2, 2), (2, 2), (3, 2, 1)),
    Case("VectorNorm", lambda **o: layers.VectorNorm(2, **o), (2, 2), (2, 2)),
    Case("DeformConv", lambda **o: moved(layers.DeformConv(2, 4, 3, **o)), (2,), (4,), (3, 1, 0)),
    Case(
        "DeformConv with masks, strided",
        lambda **o: moved(
            layers.DeformConv(2, 4, 3, stride=2, padding=1, groups=2, modulated=True, bias=False, **o)
        ),
        (2,),
        (4,),
        (3, 2, 1),
    ),
    Case(
        "DeformableDSSConv",
        lambda **o: moved(layers.DeformableDSSConv(2, 4, 3, 2, 3, **o)),
        (2, 3),
        (4, 3),
        (3, 1, 1),
    ),
    Case(
        "DeformableDSSConv in units of fractional dilations, mixing levels, strided",
        lambda **o: moved(
            layers.DeformableDSSConv(
                2, 4, 3, 1.5, 3, 2, "exact", True, 2, "scaled", stride=2, padding=2, bias=True, **o
            )
        ),
        (2, 3),
        (4, 2),
        (3, 2, 2),
    ),
    Case("SIConv", lambda **o: layers.SIConv(2, 4, 5, SCALES, **o), (2,), (4,), (5, 1, 2)),
    Case(
        "SIConv strided",
        lambda **o: layers.SIConv(2, 4, 3, SCALES, stride=2, padding=0, bias=False, **o),
        (2,),
        (4,),
        (3, 2, 0),
    ),
    Case("ColumnLift", lambda **o: layers.ColumnLift(2, 4, 5, SCALES, **o), (2,), (4, 3), (11, 1, 5)),
    Case("ColumnConv", lambda **o: layers.ColumnConv(2, 4, 3, SCALES, **o), (2, 3), (4, 3), (7, 1, 3)),
    Case(
        "ColumnConv strided",
        lambda **o: layers.ColumnConv(2, 4, 3, SCALES, stride=2, padding=1, **o),
        (2, 3),
        (4, 3),
        (7, 2, 1),
    ),
    Case("ColumnNorm", lambda **o: layers.ColumnNorm(2, 3, **o), (2, 3), (2, 3)),
    Case(
        "ScaleSteerableConv",
        lambda **o: layers.ScaleSteerableConv(2, 4, (3, 5, 7), **o),
        (2,),
        (4,),
        (7, 1, 3),
    ),
    Case(
        "ScaleSteerableConv with its scale axis, strided",
        lambda **o: layers.ScaleSteerableConv(
            2, 4, (3, 5, 7), (1,), stride=2, padding=1, maximum=False, relu=True, **o
        ),
        (2,),
        (4, 3),
        (7, 2, 1),
    ),
    Case(
        "RotationLift", lambda **o: layers.RotationLift(2, 4, 5, 8, padding=2, **o), (2,), (4, 8), (5, 1, 2)
    ),
    Case(
        "RotationLift strided",
        lambda **o: layers.RotationLift(2, 4, 3, 6, 2, bias=False, **o),
        (2,),
        (4, 6),
        (3, 2, 0),
    ),
    Case("RotationConv", lambda **o: layers.RotationConv(2, 4, 5, 8, **o), (2, 8), (4, 8), (5, 1, 0)),
    Case(
        "RotationConv strided",
        lambda **o: layers.RotationConv(2, 4, 3, 3, 2, 1, bias=False, **o),
        (2, 3),
        (4, 3),
        (3, 2, 1),
    ),
    Case("RotationPool", lambda **o: layers.RotationPool(), (2, 8), (2,)),
    Case(
        "SpatialTransformer",
        lambda **o: moved(
            layers.SpatialTransformer(
                nn.Sequential(nn.Conv2d(2, 3, 3, **o), nn.AdaptiveAvgPool2d(2)), 12, **o
            )
        ),
        (2,),
        (2,),
    ),
    Case(
        "SplinePyramidLift",
        lambda **o: nn.Sequential(layers.SplinePyramidLift(1.5, 3), layers.PyramidStack(1.5)),
        (2,),
        (2, 3),
        plane=coarsest,
    ),
    Case("EachLevel", lambda **o: on_a_pyramid(layers.EachLevel(nn.ReLU())), (2,), (2, 3), plane=coarsest),
    Case(
        "ScaleChannelHead",
        lambda **o: nn.Sequential(
            layers.ScaleChannelHead(
                nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4, **o))
            ),
            nn.Unflatten(1, (4, 1, 1)),
        ),
        (2, 3),
        (4,),
        plane=lambda side: 1,
    ),
    Case(
        "GaussianDerivativeConv of a plane",
        lambda **o: layers.GaussianDerivativeConv(2, 4, (0.7, 1.2, 2), **o),
        (2,),
        (4, 3),
    ),
    Case(
        "GaussianDerivativeConv with residual",
        lambda **o: layers.GaussianDerivativeConv(2, 4, (0.7, 1.2, 2), residual=True, bias=False, **o),
        (2, 3),
        (4, 3),
    ),
    Case("RieszConv", lambda **o: layers.RieszConv(2, 4, **o), (2,), (4,)),
    Case("DifferentialInvariants", lambda **o: layers.DifferentialInvariants(**o), (2,), (12,)),
    Case("InvariantLayer", lambda **o: layers.InvariantLayer(2, 4, **o), (2,), (4,)),
    Case("InvariantStep", lambda **o: layers.InvariantStep(2, 0.1, **o), (2,), (2,)),
    Case(
        "LearnedScaleConv of a plane",
        lambda **o: layers.LearnedScaleConv(2, 4, 5, layers.LearnedScales(0.9, 2.0, 3, **o), **o),
        (2,),
        (4, 3),
    ),
    Case(
        "LearnedScaleConv mixing levels",
        lambda **o: layers.LearnedScaleConv(
            2, 4, 5, layers.LearnedScales(0.9, 2.0, 3, **o), interaction=2, effective_size=3, **o
        ),
        (2, 3),
        (4, 3),
    ),
    Case("LearnedScales", lambda **o: Scaled(layers.LearnedScales(0.9, 2.0, 3, **o)), (2, 3), (2, 3)),
    Case("ScalePool", lambda **o: layers.ScalePool("max"), (2, 3), (2,)),
    Case("SpatialPool", lambda **o: layers.SpatialPool(2, 1, "mean"), (2, 3), (2, 3), (2, 2, 1)),
    Case("BatchNorm", lambda **o: layers.BatchNorm(2, **o), (2, 3), (2, 3)),
]
