"""The table of models: one line each; nothing here imports torch.

To add a model, write its family's file in ``secli/models/`` and add its line here. An installed package adds one
through an entry point of the group ``secli.models`` (see ``secli.plugins``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from secli.plugins import offered
from secli.registry import Registry


@dataclass(frozen=True)
class ModelSpec:
    """What the registry knows of a model before it is built.

    Attributes
    ----------
    name
        Registry name.
    idea
        What the network is, in one short line.
    family
        The idea that its convolutions follow.
    paper
        Who published it, where and when.
    licence
        Licence under which this implementation of the idea stands.
    builder
        ``"module:function"``; the function's keyword arguments are the model's options.
    options
        Options that differ from the builder's own defaults.
    training
        Training settings that differ from ``TrainingSettings``' defaults.
    parameters
        Number of learned parameters with default options, as published or as first counted; a test recounts it.
        None: nobody said.
    system
        What it shares with its variants of another size or for another training; none: its own name.
    side
        Side in pixels that its first convolution sees, enlargement included, where its variants differ in it.
    augmented
        Whether it is the variant made for training with scale augmentation.
    """

    name: str
    idea: str
    family: str
    paper: str
    builder: str
    parameters: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "MIT"
    system: str = ""
    side: int | None = None
    augmented: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "system", self.system or self.name)
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))
        object.__setattr__(self, "training", MappingProxyType(dict(self.training)))


# The scale curves: SGD with momentum 0.9, rate 0.01, halved every 20 epochs.
CURVES = {"optimizer": "sgd", "lr": 0.01, "batch": 32, "epochs": 60, "milestones": (20, 40), "gamma": 0.5}
# Sosnovik et al. 2020, section 6.1: Adam, rate 0.01, divided by ten at epochs 20 and 40 of 60, batch 128.
MNIST = {"optimizer": "adam", "lr": 0.01, "batch": 128, "epochs": 60, "milestones": (20, 40), "gamma": 0.1}
# Sosnovik et al. 2020, section 6.2: SGD with Nesterov's momentum, 1000 epochs, batch 128, cutout.
STL10 = {
    "optimizer": "sgd",
    "nesterov": True,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "batch": 128,
    "epochs": 1000,
    "milestones": (300, 400, 600, 800),
    "gamma": 0.2,
    "augment": "stl10",
}
# Sosnovik et al. 2021, as their code trains it: half the batch, half the rate, twice the decay.
STL10_DISCO = {**STL10, "lr": 0.05, "weight_decay": 1e-3, "batch": 64}
# Published with AdamW and a cosine, which the training loop has not: Adam at that rate and decay, in steps.
INVARIANTS = {**MNIST, "lr": 2e-3, "weight_decay": 1e-6, "batch": 32}

SESN = "Sosnovik, Szmaja, Smeulders, Scale-Equivariant Steerable Networks, ICLR 2020"
DSS = "Worrall, Welling, Deep Scale-spaces: Equivariance Over Scale, NeurIPS 2019"
DCN1 = "Dai et al., Deformable Convolutional Networks, ICCV 2017"
DCN2 = "Zhu et al., Deformable ConvNets v2, CVPR 2019"
SSCNN = (
    "Ghosh, Gupta, Scale Steerable Filters for Locally Scale-Invariant Convolutional Neural Networks, 2019"
)
SEVF = "Marcos, Kellenberger, Lobry, Tuia, Scale Equivariance in CNNs with Vector Fields, 2018"
SICONV = "Kanazawa, Sharma, Jacobs, Locally Scale-Invariant Convolutional Neural Networks, 2014"
SICNN = "Xu, Xiao, Zhang, Yang, Zhang, Scale-Invariant Convolutional Neural Networks, 2014"
DISCO = "Sosnovik, Moskalev, Smeulders, DISCO: accurate Discrete Scale Convolutions, BMVC 2021"
SO2 = "Weiler, Hamprecht, Storath, Learning Steerable Filters for Rotation Equivariant CNNs, CVPR 2018"
STN = "Jaderberg, Simonyan, Zisserman, Kavukcuoglu, Spatial Transformer Networks, NeurIPS 2015"
WRN = "Zagoruyko, Komodakis, Wide Residual Networks, BMVC 2016"
CHANNELS = (
    "Jansson, Lindeberg, Scale-invariant scale-channel networks: deep networks that generalise to previously unseen "
    "scales, JMIV 2022"
)
GAUSSDER = "Lindeberg, Scale-covariant and scale-invariant Gaussian derivative networks, JMIV 2022"
RIESZ = "Barisin, Schladitz, Redenbach, Riesz networks: scale invariant neural networks in a single forward pass, 2023"
INVAR = "Li, Qiu, Chen, He, Lin, Affine Equivariant Networks Based on Differential Invariants, CVPR 2024"
LSES = (
    "Basting, Bruintjes, Wiedemer, Kümmerer, Bethge, van Gemert, Scale Learning in Scale-Equivariant Convolutional "
    "Networks, VISAPP 2024"
)
SCDCF = (
    "Zhu, Qiu, Calderbank, Sapiro, Cheng, Scaling-Translation-Equivariant Networks with Decomposed Convolutional "
    "Filters, JMLR 2022"
)
OURS = "; architecture ours"
DEFORM_DSS = "no paper: a scale convolution whose taps move, as the deformable ones do"
PLAIN = "no paper: the baseline without scale structure"


def _curves(
    name: str, idea: str, family: str, paper: str, builder: str, parameters: int | None, **options: Any
) -> ModelSpec:
    """Describe a network of the scale curves."""
    return ModelSpec(name, idea, family, paper, f"secli.models.{builder}", parameters, options, CURVES)


def _mnist(
    system: str,
    side: int,
    idea: str,
    family: str,
    paper: str,
    builder: str,
    parameters: int,
    augmented: bool = False,
    **options: Any,
) -> ModelSpec:
    """Describe a network of the MNIST-scale comparison; on 56 pixels it enlarges its images itself."""
    return ModelSpec(
        f"{system}_{side}{'p' * augmented}",
        idea + "; 56×56" * (side == 56) + "; for augmented training" * augmented,
        family,
        paper,
        f"secli.models.{builder}",
        parameters,
        options if "upsampling" in options else {"upsampling": side // 28, **options},
        MNIST,
        system=system,
        side=side,
        augmented=augmented,
    )


def _dss(mode: str, side: int) -> ModelSpec:
    idea = "7×7 scale convolutions, 2 levels " + {"vector": "to the end", "scalar": "in each block"}[mode]
    options: dict[str, Any] = {"mode": mode, "upsampling": side // 28}
    return _mnist(f"mnist_dss_{mode}", side, idea, "dss", DSS, "dss:mnist_dss", 494_359, **options)


def _ses(mode: str, side: int, augmented: bool = False, **basis: float) -> ModelSpec:
    kept = {"vector": "to layer 3", "scalar": "in each layer"}[mode]
    idea = f"steerable filters, {basis['levels']:g} scales {kept}"
    options: dict[str, Any] = {"mode": mode, "upsampling": side // 28, **basis}
    return _mnist(
        f"mnist_ses_{mode}", side, idea, "ses", SESN, "sesn:mnist_ses", 494_549, augmented, **options
    )


def _wrn(
    name: str,
    idea: str,
    family: str,
    paper: str,
    builder: str,
    parameters: int,
    training: Mapping[str, Any] = STL10,
    **options: Any,
) -> ModelSpec:
    """Describe a wide residual network of the STL-10 comparison."""
    return ModelSpec(name, idea, family, paper, f"secli.models.wrn_{builder}", parameters, options, training)


MODELS: Registry[ModelSpec] = Registry(
    "model",
    [
        ModelSpec("cnn", "four 3×3 convolutions", "plain", PLAIN, "secli.models.cnn:cnn", 34_670, {}, CURVES),
        ModelSpec(
            "dcn",
            "cnn, its last two convolutions deformable",
            "deformable",
            DCN1,
            "secli.models.dcn:dcn",
            44_426,
            {},
            CURVES,
        ),
        ModelSpec(
            "dcn_v2",
            "dcn with a mask per tap",
            "deformable",
            DCN2,
            "secli.models.dcn:dcn",
            49_304,
            {"modulated": True},
            CURVES,
        ),
        ModelSpec(
            "dss_v1",
            "two 3×3 scale convolutions, 4 levels",
            "dss",
            DSS,
            "secli.models.dss:dss_v1",
            20_538,
            {},
            CURVES,
        ),
        _curves(
            "dss_v2",
            "a pyramid instead of the lift, its kernel not dilated",
            "dss",
            DSS,
            "dss_pyramid:dss_v2",
            7_738,
        ),
        _curves(
            "deform_dss",
            "scale convolutions whose taps move",
            "deform_dss",
            DEFORM_DSS,
            "deform_dss:deform_dss",
            23_328,
        ),
        _curves("so2_cnn", "rotation group C8, steerable filters", "so2", SO2, "so2:so2_cnn", 34_479),
        _curves("stn_cnn", "a spatial transformer before cnn", "stn", STN, "stn:stn_cnn", 37_854),
        _curves(
            "dss_resnet50",
            "ResNet-50, every 3×3 a scale convolution",
            "dss",
            DSS,
            "resnet:dss_resnet50",
            23_519_690,
        ),
        _curves(
            "deform_dss_resnet50",
            "ResNet-50, every 3×3 a deformable scale convolution",
            "deform_dss",
            DEFORM_DSS,
            "resnet:deform_dss_resnet50",
            24_131_870,
        ),
        *(
            _mnist("mnist_cnn", side, "7×7 convolutions", "plain", PLAIN, "cnn:mnist_cnn", 494_549)
            for side in (28, 56)
        ),
        *(_dss(mode, side) for mode in ("vector", "scalar") for side in (28, 56)),
        _ses("scalar", 28, size=15, min_scale=1.7, factor=3, levels=4, mult=1.5),
        _ses("scalar", 28, True, size=13, min_scale=1.5, factor=3, levels=4, mult=1.4),
        _ses("scalar", 56, size=15, min_scale=2.0, factor=2, levels=3, mult=1.4),
        _ses("scalar", 56, True, size=17, min_scale=1.0, factor=3, levels=3, mult=1.4),
        _ses("vector", 28, size=13, min_scale=1.5, factor=3, levels=3, mult=1.5),
        _ses("vector", 28, True, size=15, min_scale=1.5, factor=3, levels=3, mult=1.4),
        _ses("vector", 56, size=15, min_scale=2.0, factor=2, levels=4, mult=1.5),
        _ses("vector", 56, True, size=13, min_scale=1.5, factor=2, levels=4, mult=1.4),
        *(
            _mnist(
                "mnist_ss",
                side,
                "log-radial steerable filters, max over sizes",
                "ss",
                SSCNN,
                "ss:mnist_ss",
                486_278,
            )
            for side in (28, 56)
        ),
        *(
            _mnist(f"mnist_sevf_{mode}", side, idea, "sevf", SEVF, "sevf:mnist_sevf", parameters, mode=mode)
            for mode, idea, parameters in (
                ("scalar", "8 resizings, max", 494_425),
                ("vector", "8 resizings, argmax as an angle", 475_407),
            )
            for side in (28, 56)
        ),
        *(
            _mnist(
                "mnist_kanazawa",
                side,
                "7 resizings of the input, max",
                "kanazawa",
                SICONV,
                "kanazawa:mnist_kanazawa",
                494_549,
            )
            for side in (28, 56)
        ),
        *(
            _mnist("mnist_xu", side, "7 columns of resized kernels", "xu", SICNN, "xu:mnist_xu", 496_639)
            for side in (28, 56)
        ),
        *(
            _mnist(
                "mnist_disco",
                56,
                "bases fitted to the pixel grid",
                "disco",
                DISCO,
                "disco:mnist_disco",
                494_549,
                augmented,
                mult=mult,
            )
            for augmented, mult in ((False, 1.5), (True, 1.9))
        ),
        _mnist(
            "mnist_pyramid",
            28,
            "one plain network on 4 levels of a pyramid" + OURS,
            "scale_channels",
            CHANNELS,
            "pyramid_ensemble:mnist_pyramid",
            494_549,
        ),
        *(
            _mnist(
                "mnist_gaussder",
                side,
                "Gaussian derivatives, 4 scale channels" + OURS,
                "gaussder",
                GAUSSDER,
                "gaussian_derivative:mnist_gaussder",
                497_846,
            )
            for side in (28, 56)
        ),
        _mnist(
            "mnist_riesz",
            28,
            "Riesz transforms, no scale axis" + OURS,
            "riesz",
            RIESZ,
            "riesz:mnist_riesz",
            490_447,
        ),
        *(
            _mnist(
                "mnist_lses",
                side,
                "steerable filters, 3 scales, which are learned",
                "lses",
                LSES,
                "learned_scales:mnist_lses",
                494_551,
                **options,
            )
            for side, options in ((28, {"size": 13}), (56, {"size": 15, "min_scale": 2.0, "factor": 2}))
        ),
        _mnist(
            "mnist_scdcf",
            28,
            "10 Fourier–Bessel functions, 3 radii" + OURS,
            "scdcf",
            SCDCF,
            "scdcf:mnist_scdcf",
            493_342,
        ),
        ModelSpec(
            "mnist_invarpdes_28",
            "a learned differential equation of invariants, 16 steps",
            "invariants",
            INVAR,
            "secli.models.differential_invariants:mnist_invarpdes",
            484_330,
            {},
            INVARIANTS,
            system="mnist_invarpdes",
            side=28,
        ),
        ModelSpec(
            "mnist_invarlayer_28",
            "three layers of differential invariants",
            "invariants",
            INVAR,
            "secli.models.differential_invariants:mnist_invarlayer",
            487_233,
            {},
            INVARIANTS,
            system="mnist_invarlayer",
            side=28,
        ),
        _wrn("wrn_16_8", "wide ResNet", "plain", WRN, "plain:wrn", 10_961_370),
        _wrn(
            "wrn_16_8_ses_a",
            "steerable, 3 scales to the end",
            "ses",
            SESN,
            "ses:wrn_ses",
            10_961_370,
            variant="a",
        ),
        _wrn(
            "wrn_16_8_ses_b",
            "steerable, groups 2 and 3 pool the scales and lift again",
            "ses",
            SESN,
            "ses:wrn_ses",
            10_961_370,
            variant="b",
        ),
        _wrn(
            "wrn_16_8_ses_c", "steerable, interaction 2", "ses", SESN, "ses:wrn_ses", 10_979_802, variant="c"
        ),
        _wrn("wrn_16_8_dss", "scale convolutions, 4 levels", "dss", DSS, "dss:wrn_dss", 10_939_482),
        _wrn(
            "wrn_16_8_kanazawa",
            "3 resizings of every input, max",
            "kanazawa",
            SICONV,
            "kanazawa:wrn_kanazawa",
            10_961_370,
        ),
        _wrn("wrn_16_8_xu", "3 columns of resized kernels", "xu", SICNN, "xu:wrn_xu", 10_975_770),
        _wrn("wrn_16_8_ss", "log-radial steerable filters", "ss", SSCNN, "ss:wrn_ss", 10_280_522),
        _wrn(
            "wrn_16_8_disco",
            "bases fitted to the pixel grid",
            "disco",
            DISCO,
            "disco:wrn_disco",
            10_961_370,
            STL10_DISCO,
        ),
    ],
    others=lambda: offered("secli.models", _of_package),
)


def _of_package(name: str, package: str, value: str, loaded: object) -> ModelSpec:
    """Return the specification behind an entry point: itself, or one made for a builder function."""
    if isinstance(loaded, ModelSpec):
        if loaded.name != name:
            raise ValueError(f"it is a specification named '{loaded.name}'")
        return loaded
    if not callable(loaded):
        raise ValueError(f"it is neither a ModelSpec nor a function, but {type(loaded).__name__}")
    documentation = (loaded.__doc__ or "").strip().split("\n")[0]
    return ModelSpec(
        name, documentation or "not described", package, f"package {package}", value, None, licence="its own"
    )
