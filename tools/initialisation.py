"""How every weight of the registry starts: one row a kind of tensor, for the page of the models and for the tests.

A row's formula is written here from its source, not taken from the code that draws: the test over the registry draws
every network and holds each tensor against the first row that speaks of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secli.layers.columns import ColumnConv, ColumnLift
from secli.layers.deform_dss import OffsetBranch
from secli.layers.deformable import DeformConv
from secli.layers.differential_invariants import InvariantStep
from secli.layers.dss import DSSConv
from secli.layers.learned_scales import LearnedScaleConv, LearnedScales
from secli.layers.locally_invariant import SIConv
from secli.layers.pyramid import PyramidConv
from secli.layers.rotation import RotationConv, RotationLift
from secli.layers.scale_steerable import ScaleSteerableConv
from secli.layers.ses import SESPointwise, SteerableFilters
from secli.layers.spatial_transformer import SpatialTransformer
from secli.layers.vector_field import ScalarFieldConv, VectorFieldConv, VectorFieldLift

Kind = Literal["uniform", "normal", "constant", "delta"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a network, and the modules that hold it.

    Attributes
    ----------
    model
        Registry name.
    name
        The parameter's, with that of its modules.
    module, above
        The module that holds it, and the one that holds that.
    """

    model: str
    name: str
    module: nn.Module
    above: nn.Module

    @property
    def leaf(self) -> str:
        """The last part of the name: ``weight``, ``bias``, …"""
        return self.name.rpartition(".")[2]

    @property
    def wide(self) -> bool:
        """Whether the network is a wide ResNet."""
        return self.model.startswith("wrn_")


@dataclass(frozen=True)
class Initialisation:
    """How one kind of parameter starts.

    Attributes
    ----------
    what
        The parameters, in words.
    kind
        uniform in ±size, normal with deviation size, constant at size, or delta (uniform in ±size but for its
        central taps, :func:`secli.models.wrn_dss.delta_`).
    formula
        The size in words.
    source
        Where the formula comes from.
    size
        The size, from the weight of the module that holds the parameter.
    applies
        Whether the row speaks of a parameter, if no row before it does.
    """

    what: str
    kind: Kind
    formula: str
    source: str
    size: Callable[[Tensor], float]
    applies: Callable[[Parameter], bool]


PUBLISHED, TORCH, OURS = "published", "PyTorch's default", "our choice"

LIKE_CONVOLUTIONS = (
    nn.Conv2d,
    DeformConv,
    SIConv,
    ColumnLift,
    ColumnConv,
    SESPointwise,
    ScalarFieldConv,
    VectorFieldLift,
    VectorFieldConv,
)


def _inputs(weight: Tensor) -> int:
    """Return the fan-in: the number of weights behind one output channel."""
    return weight[0].numel()


def _steerable(weight: Tensor) -> tuple[int, int]:
    """Return in and out of coefficients (order, out, in, angle)."""
    return weight.shape[2], weight.shape[1]


INITIALISATIONS = (
    Initialisation(
        "weight of a batch norm",
        "constant",
        "1",
        TORCH,
        lambda weight: 1.0,
        lambda at: isinstance(at.module, _BatchNorm) and at.leaf == "weight",
    ),
    Initialisation(
        "bias of a batch norm",
        "constant",
        "0",
        TORCH,
        lambda weight: 0.0,
        lambda at: isinstance(at.module, _BatchNorm) and at.leaf == "bias",
    ),
    Initialisation(
        "last layer of a localiser (`stn_cnn`)",
        "constant",
        "0, which is the identity",
        PUBLISHED,
        lambda weight: 0.0,
        lambda at: isinstance(at.above, SpatialTransformer) and isinstance(at.module, nn.Linear),
    ),
    Initialisation(
        "branch of offsets and masks of a deformable convolution",
        "constant",
        "0",
        PUBLISHED,
        lambda weight: 0.0,
        lambda at: isinstance(at.module, OffsetBranch) or isinstance(at.above, DeformConv),
    ),
    Initialisation(
        "bias of the classifier of `wrn_16_8*`",
        "constant",
        "0",
        PUBLISHED,
        lambda weight: 0.0,
        lambda at: at.wide and isinstance(at.module, nn.Linear) and at.leaf == "bias",
    ),
    Initialisation(
        "weight of a linear layer",
        "uniform",
        "1/√in",
        TORCH,
        lambda weight: 1 / math.sqrt(weight.shape[1]),
        lambda at: isinstance(at.module, nn.Linear) and at.leaf == "weight",
    ),
    Initialisation(
        "bias of a linear layer",
        "uniform",
        "1/√in",
        TORCH,
        lambda weight: 1 / math.sqrt(weight.shape[1]),
        lambda at: isinstance(at.module, nn.Linear) and at.leaf == "bias",
    ),
    Initialisation(
        "convolutions and shortcuts of `wrn_16_8_dss`",
        "delta",
        "0.01; the central tap of (output b, input a) is g/out where ⌊a·g/in⌋ = ⌊b·g/out⌋, g = gcd(in, out), in every "
        "slice of an interaction",
        PUBLISHED,
        lambda weight: 0.01,
        lambda at: at.model == "wrn_16_8_dss",
    ),
    Initialisation(
        "coefficients of `wrn_16_8_ss`, real and imaginary parts alike",
        "normal",
        "√(2·in/n), n = orders · out · in · angles",
        "published, for the other `wrn_16_8*`",
        lambda weight: math.sqrt(2 * weight.shape[2] / weight.numel()),
        lambda at: at.wide and isinstance(at.module, ScaleSteerableConv),
    ),
    Initialisation(
        "convolutions and shortcuts of the other `wrn_16_8*`",
        "normal",
        "√(2·in/n), n the number of weights (or coefficients) of the layer",
        PUBLISHED,
        lambda weight: math.sqrt(2 * weight.shape[1] / weight.numel()),
        lambda at: at.wide,
    ),
    Initialisation(
        "coefficients of scale-steerable filters, real and imaginary parts alike",
        "uniform",
        "√(2/(9 · in · out))",
        PUBLISHED,
        lambda weight: math.sqrt(2 / (9 * math.prod(_steerable(weight)))),
        lambda at: isinstance(at.module, ScaleSteerableConv),
    ),
    Initialisation(
        "coefficients of SESN and DISCO",
        "uniform",
        "1/√(in · I · functions)",
        PUBLISHED,
        lambda weight: 1 / math.sqrt(_inputs(weight)),
        lambda at: isinstance(at.module, (SteerableFilters, LearnedScaleConv)) and at.leaf == "weight",
    ),
    Initialisation(
        "bias of SESN and DISCO",
        "constant",
        "0",
        OURS,
        lambda weight: 0.0,
        lambda at: isinstance(at.module, (SteerableFilters, LearnedScaleConv)) and at.leaf == "bias",
    ),
    Initialisation(
        "logarithms of learned scales and their ratio (`mnist_lses_*`)",
        "constant",
        "0, which leaves the options' scales",
        OURS,
        lambda weight: 0.0,
        lambda at: isinstance(at.module, LearnedScales),
    ),
    Initialisation(
        "step sizes h_t (`mnist_invarpdes_28`)",
        "constant",
        "1/16",
        OURS,
        lambda weight: 1 / 16,
        lambda at: isinstance(at.module, InvariantStep) and at.leaf == "size",
    ),
    Initialisation(
        "bias of convolutions on a pyramid (`mnist_pyramid_28`)",
        "constant",
        "0",
        OURS,
        lambda weight: 0.0,
        lambda at: isinstance(at.module, PyramidConv) and at.leaf == "bias",
    ),
    Initialisation(
        "scale convolutions: levels or pyramid, plain or deformable",
        "normal",
        "√(2/(in · I · K²))",
        PUBLISHED,
        lambda weight: math.sqrt(2 / _inputs(weight)),
        lambda at: isinstance(at.module, (DSSConv, PyramidConv)),
    ),
    Initialisation(
        "1×1 convolutions of the ResNet-50 bodies",
        "normal",
        "√(2/in)",
        OURS,
        lambda weight: math.sqrt(2 / _inputs(weight)),
        lambda at: "resnet50" in at.model and isinstance(at.module, SESPointwise),
    ),
    Initialisation(
        "coefficients of rotation-steerable filters (`so2_cnn`)",
        "normal",
        "√(2/(in · N · functions)), N = 1 in a lift",
        OURS,
        lambda weight: math.sqrt(2 / _inputs(weight)),
        lambda at: isinstance(at.module, (RotationLift, RotationConv)) and at.leaf == "weight",
    ),
    Initialisation(
        "bias of rotation-steerable filters (`so2_cnn`)",
        "constant",
        "0",
        OURS,
        lambda weight: 0.0,
        lambda at: isinstance(at.module, (RotationLift, RotationConv)) and at.leaf == "bias",
    ),
    Initialisation(
        "every other convolution, its weight",
        "uniform",
        "1/√(in · K²)",
        TORCH,
        lambda weight: 1 / math.sqrt(_inputs(weight)),
        lambda at: isinstance(at.module, LIKE_CONVOLUTIONS) and at.leaf != "bias",
    ),
    Initialisation(
        "every other convolution, its bias",
        "uniform",
        "1/√(in · K²)",
        TORCH,
        lambda weight: 1 / math.sqrt(_inputs(weight)),
        lambda at: isinstance(at.module, LIKE_CONVOLUTIONS) and at.leaf == "bias",
    ),
)


def parameters_of(model: str, network: nn.Module) -> dict[str, Parameter]:
    """Return the parameters of a network by their names."""
    modules = dict(network.named_modules())
    found = {}
    for name, _ in network.named_parameters():
        holder = name.rpartition(".")[0]
        found[name] = Parameter(model, name, modules[holder], modules[holder.rpartition(".")[0]])
    return found


def initialisation_of(parameter: Parameter) -> Initialisation:
    """Return the row that speaks of a parameter.

    Raises
    ------
    LookupError
        When none does.
    """
    for each in INITIALISATIONS:
        if each.applies(parameter):
            return each
    raise LookupError(f"{parameter.model}: no row for {parameter.name}")


def size_of(parameter: Parameter, values: Tensor) -> float:
    """Return the size that a parameter's row gives it: a bias takes that of its module's weight."""
    weight = getattr(parameter.module, "weight", None)
    shaped = weight if parameter.leaf == "bias" and isinstance(weight, Tensor) else values
    return initialisation_of(parameter).size(shaped)
