"""The convolutions, one idea per file, usable without the rest of secli."""

from secli.layers.deform_dss import DeformableDSSConv
from secli.layers.deformable import DeformConv
from secli.layers.dss import DSSConv
from secli.layers.gaussian import ScaleSpaceLift
from secli.layers.hermite import basis_a, basis_b
from secli.layers.pooling import BatchNorm, ScalePool, SpatialPool
from secli.layers.ses import SESConv, SESLift, SESPointwise

__all__ = [
    "BatchNorm",
    "DSSConv",
    "DeformConv",
    "DeformableDSSConv",
    "SESConv",
    "SESLift",
    "SESPointwise",
    "ScalePool",
    "ScaleSpaceLift",
    "SpatialPool",
    "basis_a",
    "basis_b",
]
