"""The convolutions, one idea per file, usable without the rest of secli."""

from secli.layers.columns import ColumnConv, ColumnLift, ColumnNorm
from secli.layers.deform_dss import DeformableDSSConv
from secli.layers.deformable import DeformConv
from secli.layers.differential_invariants import DifferentialInvariants, InvariantLayer, InvariantStep
from secli.layers.disco import disco_basis
from secli.layers.dss import DSSConv
from secli.layers.fourier_bessel import basis_fourier_bessel
from secli.layers.gaussian import ScaleSpaceLift
from secli.layers.gaussian_derivative import GaussianDerivativeConv
from secli.layers.hermite import basis_a, basis_b
from secli.layers.learned_scales import LearnedScaleConv, LearnedScales
from secli.layers.locally_invariant import SIConv
from secli.layers.pooling import BatchNorm, ScalePool, SpatialPool
from secli.layers.pyramid import PyramidBatchNorm, PyramidConv, PyramidLift, PyramidPool, PyramidStack
from secli.layers.riesz import RieszConv
from secli.layers.rotation import RotationConv, RotationLift, RotationPool
from secli.layers.scale_channels import EachLevel, ScaleChannelHead
from secli.layers.scale_steerable import ScaleSteerableConv
from secli.layers.ses import SESConv, SESLift, SESPointwise
from secli.layers.spatial_transformer import SpatialTransformer
from secli.layers.spline_pyramid import SplinePyramidLift
from secli.layers.vector_field import ScalarFieldConv, VectorFieldConv, VectorFieldLift
from secli.layers.vectors import Magnitude, VectorNorm, VectorPool

__all__ = [
    "BatchNorm",
    "ColumnConv",
    "ColumnLift",
    "ColumnNorm",
    "DSSConv",
    "DeformConv",
    "DeformableDSSConv",
    "DifferentialInvariants",
    "EachLevel",
    "GaussianDerivativeConv",
    "InvariantLayer",
    "InvariantStep",
    "LearnedScaleConv",
    "LearnedScales",
    "Magnitude",
    "PyramidBatchNorm",
    "PyramidConv",
    "PyramidLift",
    "PyramidPool",
    "PyramidStack",
    "RieszConv",
    "RotationConv",
    "RotationLift",
    "RotationPool",
    "SESConv",
    "SESLift",
    "SESPointwise",
    "SIConv",
    "ScalarFieldConv",
    "ScaleChannelHead",
    "ScalePool",
    "ScaleSpaceLift",
    "ScaleSteerableConv",
    "SpatialPool",
    "SpatialTransformer",
    "SplinePyramidLift",
    "VectorFieldConv",
    "VectorFieldLift",
    "VectorNorm",
    "VectorPool",
    "basis_a",
    "basis_b",
    "basis_fourier_bessel",
    "disco_basis",
]
