"""Networks of differential invariants on MNIST-scale: a learned differential equation, and a layer in the shared body.

Source: Li, Qiu, Chen, He, Lin, "Affine Equivariant Networks Based on Differential Invariants", CVPR 2024
(InvarPDEs-Net, InvarLayer).
"""

from __future__ import annotations

import itertools
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from secli.action.fields import Invariant
from secli.layers.differential_invariants import InvariantLayer, InvariantStep
from secli.layers.dropout import Dropout
from secli.layers.pooling import BatchNorm, SpatialPool
from secli.models import options
from secli.models.contract import Stage, StagedModel
from secli.models.entrance import chain, entrance
from secli.models.grid import Grid
from secli.models.mnist_body import HIDDEN

WIDTHS = (83, 163, 247)
LATER = 64  # of the two linear layers behind the last step

Channels = Annotated[int, Field(ge=1, le=1024, description="channels of the evolving picture")]
Steps = Annotated[int, Field(ge=1, le=64, description="steps of the differential equation")]


class Copies(nn.Module):
    """Copy the channels of an image, one after the other, until there are enough."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """Return the copies."""
        count = images.shape[1]
        return torch.cat([images] * -(-self.channels // count), dim=1)[:, : self.channels]


def mnist_invarpdes(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0,
    std: options.Std = 1.0,
    image_size: options.BodyImageSize = 28,
    channels: Channels = 65,
    steps: Steps = 16,
) -> StagedModel:
    """Return InvarPDEs-Net: the picture, copied to n channels, evolves by learned steps at stride 1; a global maximum.

    Taps after the first step and after every power of two of them, and the last. Pixels are not normalised.
    """
    image = Grid.of_image(image_size)
    ends = [0, *(2**i for i in range(steps.bit_length()) if 2**i < steps), steps]
    before = {**entrance(in_channels, mean, std), "copies": Copies(channels)}
    stages = []
    for start, end in itertools.pairwise(ends):
        run = {f"step{i + 1}": InvariantStep(channels, 1 / steps) for i in range(start, end)}
        stages.append(Stage(f"steps{end}", chain(**(before if start == 0 else {}), **run), image.plane()))
    head = chain(
        pool=nn.AdaptiveMaxPool2d(1),
        flatten=nn.Flatten(),
        linear=nn.Linear(channels, LATER),
        relu=nn.ReLU(),
        classify=nn.Linear(LATER, classes),
    )
    return StagedModel([*stages, Stage("logits", head, Invariant())])


def mnist_invarlayer(
    in_channels: options.InChannels = 1,
    classes: options.Classes = 10,
    mean: options.Mean = 0.0,
    std: options.Std = 1.0,
    image_size: options.BodyImageSize = 28,
    dropout: options.Dropout = 0.5,
) -> StagedModel:
    """Return three layers of differential invariants, each ReLU, maximum, batch norm; the last maximum is global."""
    grid, stages = Grid.of_image(image_size), []
    inputs, before = in_channels, entrance(in_channels, mean, std)
    for i, width in enumerate(WIDTHS, start=1):
        conv = chain(**before, conv=InvariantLayer(inputs, width))
        stages.append(Stage(f"conv{i}", conv, grid.plane()))
        inputs, before = width, {}
        if i < len(WIDTHS):
            pool, grid = SpatialPool(2), grid.pooled(2)
            stages.append(
                Stage(f"block{i}", chain(relu=nn.ReLU(), pool=pool, norm=BatchNorm(width)), grid.plane())
            )
    head = chain(
        relu=nn.ReLU(),
        pool=nn.AdaptiveMaxPool2d(1),
        norm=BatchNorm(inputs),
        flatten=nn.Flatten(),
        linear=nn.Linear(inputs, HIDDEN),
        norm_linear=nn.BatchNorm1d(HIDDEN),
        relu_linear=nn.ReLU(),
        dropout=Dropout(dropout),
        classify=nn.Linear(HIDDEN, classes),
    )
    return StagedModel([*stages, Stage("logits", head, Invariant())])
