"""Types of the options that several families share: range and description."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from secli.layers.deform_dss import Offsets
from secli.layers.scale_channels import Aggregate

PerChannel = float | tuple[float, ...]
LARGEST = 1e6
"""Of a mean or deviation of pixels from 0 to 1: far beyond use, and float32 still holds the quotients."""


def _finite(value: Any) -> Any:
    """Refuse all but finite numbers and lists of them, in one sentence (a union's own errors name its arms)."""
    values = value if isinstance(value, (list, tuple)) else [value]
    numbers = [each for each in values if isinstance(each, (int, float)) and math.isfinite(each)]
    if not values or len(numbers) < len(values):
        raise ValueError("give a finite number, or a list with one per channel")
    if max(map(abs, numbers)) > LARGEST:
        raise ValueError(f"must be at most {LARGEST:g} in size")
    return value


def _positive(value: Any) -> Any:
    """Refuse all but positive numbers and lists of them."""
    values = _finite(value) if isinstance(value, (list, tuple)) else [_finite(value)]
    if min(values) <= 0:
        raise ValueError("must be greater than 0")
    if min(values) < 1 / LARGEST:
        raise ValueError(f"must be at least {1 / LARGEST:g}")
    return value


InChannels = Annotated[int, Field(ge=1, le=1024, description="channels of the images")]
Classes = Annotated[int, Field(ge=1, le=100_000, description="number of classes")]
Mean = Annotated[
    PerChannel,
    Field(description="mean that is subtracted from the pixels, one or one per channel"),
    BeforeValidator(_finite),
]
Std = Annotated[
    PerChannel,
    Field(description="deviation > 0 that the pixels are divided by, one or one per channel"),
    BeforeValidator(_positive),
]
ImageSize = Annotated[int, Field(ge=4, le=1024, description="side of the images in pixels")]
BodyImageSize = Annotated[int, Field(ge=24, le=1024, description="side of the images in pixels")]
Upsampling = Annotated[int, Field(ge=1, le=4, description="factor by which the images are enlarged first")]
Upsample = Annotated[
    Literal["nearest", "bilinear"],
    Field(description="how they are enlarged: nearest (published code) or bilinear"),
]
Widths = Annotated[
    tuple[
        Annotated[int, Field(ge=1, le=4096)],
        Annotated[int, Field(ge=1, le=4096)],
        Annotated[int, Field(ge=1, le=4096)],
        Annotated[int, Field(ge=1, le=4096)],
    ],
    Field(description="channels of the four convolutions"),
]
Dropout = Annotated[float, Field(ge=0, lt=1, description="dropout before the last linear layer")]
Interaction = Annotated[int, Field(ge=1, le=16, description="neighbouring levels that a convolution mixes")]
ScalePoolOption = Annotated[
    Literal["max", "mean"], Field(description="how the scale axis is pooled: max (published code) or mean")
]
AggregateOption = Annotated[
    Aggregate,
    Field(description="how the logits of the scale channels are joined: max, mean, or logsumexp, log Σ exp"),
]
OffsetsOption = Annotated[
    Offsets,
    Field(
        description="offsets in pixels from an undilated branch (absolute, as published for one scale), "
        "or in units of the level's dilation from a branch dilated likewise (scaled, the equivariant choice)"
    ),
]
DeformableGroups = Annotated[
    int,
    Field(
        ge=1,
        le=1024,
        description="groups of each deformable convolution's input channels with offsets of their own; a convolution "
        "on the image has one",
    ),
]
