"""Types of the options that several families share: each says its range and what it is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

PerChannel = float | tuple[float, ...]
Positive = Annotated[float, Field(gt=0)]

InChannels = Annotated[int, Field(ge=1, le=1024, description="channels of the images")]
Classes = Annotated[int, Field(ge=1, le=100_000, description="number of classes")]
Mean = Annotated[
    PerChannel, Field(description="mean that is subtracted from the pixels, one or one per channel")
]
Std = Annotated[
    Positive | tuple[Positive, ...],
    Field(description="deviation that the pixels are divided by, one or one per channel"),
]
ImageSize = Annotated[int, Field(ge=4, le=1024, description="side of the images in pixels")]
BodyImageSize = Annotated[int, Field(ge=24, le=1024, description="side of the images in pixels")]
Upsampling = Annotated[int, Field(ge=1, le=4, description="factor by which the images are enlarged first")]
Upsample = Annotated[
    Literal["nearest", "bilinear"],
    Field(description="how they are enlarged: nearest (published code) or bilinear"),
]
Dropout = Annotated[float, Field(ge=0, lt=1, description="dropout before the last linear layer")]
Interaction = Annotated[int, Field(ge=1, le=16, description="neighbouring levels that a convolution mixes")]
ScalePoolOption = Annotated[
    Literal["max", "mean"], Field(description="how the scale axis is pooled: max (published code) or mean")
]
