"""The body that all ``mnist_*`` networks share, so that only their convolutions differ.

Source: Sosnovik, Szmaja, Smeulders, "Scale-Equivariant Steerable Networks", ICLR 2020, section 6.1: three blocks
[convolution → ReLU → max-pool → batch norm], Linear → batch norm → ReLU → Dropout → Linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from secli.action.fields import Field, Invariant
from secli.layers.dropout import Dropout
from secli.layers.pooling import BatchNorm, SpatialPool
from secli.layers.scale_channels import Aggregate, ScaleChannelHead
from secli.models.contract import Stage, StagedModel
from secli.models.entrance import chain
from secli.models.grid import Grid

CHANNELS = (32, 63, 95)
HIDDEN = 256
POOLED = 2  # the third pooling leaves 2×2 cells
LAST_PADDING = 2


class Pooled(NamedTuple):
    """A pooling of the plane, and the grid of its output."""

    module: nn.Module
    grid: Grid


def max_pool(grid: Grid, last: bool) -> Pooled:
    """Return the body's own pooling: 2 in the first two blocks, the window that leaves 2×2 cells in the last."""
    kernel, padding = (last_window(grid.size), LAST_PADDING) if last else (2, 0)
    return Pooled(SpatialPool(kernel, padding), grid.pooled(kernel, padding))


class Block(NamedTuple):
    """One family's modules for one block of the body.

    Attributes
    ----------
    convolution
        Keeps the size of the plane; includes a lift before it and a maximum over scale after it.
    channels
        Channels that it returns.
    field
        The field of its output, given the grid.
    activation
        Follows the convolution; a ReLU unless the convolution has one of its own.
    pool
        Returns the pooling after it, from its input grid and whether this is the last block.
    norm
        Returns the normalisation after the pooling, from the channels; None where there is none.
    """

    convolution: nn.Module
    channels: int
    field: Callable[[Grid], Field] = Grid.plane
    activation: Callable[[], nn.Module] = nn.ReLU
    pool: Callable[[Grid, bool], Pooled] = max_pool
    norm: Callable[[int], nn.Module] | None = BatchNorm


def mnist_body(
    blocks: Sequence[Block],
    before: Mapping[str, nn.Module],
    grid: Grid,
    classes: int,
    dropout: float,
    collapse: nn.Module | None = None,
    linear_bias: bool = False,
    aggregate: Aggregate | None = None,
) -> StagedModel:
    """Assemble a ``mnist_*`` network around three convolutions.

    Parameters
    ----------
    before : mapping
        Named modules before the first convolution (normalisation, enlargement, a lift of all levels).
    grid : Grid
        The cells of the first convolution's input.
    collapse : Module, optional
        Removes the scale axis after the last batch norm.
    linear_bias : bool
        Whether the first linear layer has a bias.
    aggregate : "max", "mean" or "logsumexp", optional
        How the logits of the levels are joined, where the scale axis is kept to the end.

    Notes
    -----
    Taps: ``conv1`` (before ReLU), ``block1``, ``block2`` (after batch norm), ``conv3`` (after ReLU, before
    pooling), ``block3``, ``logits``.
    """
    first, second, third = blocks
    stages = [Stage("conv1", chain(**before, conv=first.convolution), first.field(grid))]
    pool, grid = first.pool(grid, False)
    block1 = chain(**_activation(first), pool=pool, **_norm(first))
    stages.append(Stage("block1", block1, first.field(grid)))
    pool, grid = second.pool(grid, False)
    block2 = chain(conv=second.convolution, **_activation(second), pool=pool, **_norm(second))
    stages.append(Stage("block2", block2, second.field(grid)))
    stages.append(Stage("conv3", chain(conv=third.convolution, **_activation(third)), third.field(grid)))
    pool, grid = third.pool(grid, True)
    block3 = chain(pool=pool, **_norm(third))
    if collapse is not None:
        block3.add_module("collapse", collapse)
    stages.append(Stage("block3", block3, grid.plane() if collapse is not None else third.field(grid)))
    head: nn.Module = body_head(third.channels, classes, dropout, linear_bias)
    if aggregate is not None:
        head = ScaleChannelHead(head, aggregate)
    stages.append(Stage("logits", head, Invariant()))
    return StagedModel(stages)


def _activation(block: Block) -> dict[str, nn.Module]:
    """Return the activation under its name, unless it does nothing."""
    activation = block.activation()
    return {} if isinstance(activation, nn.Identity) else {"relu": activation}


def _norm(block: Block) -> dict[str, nn.Module]:
    return {} if block.norm is None else {"norm": block.norm(block.channels)}


def last_window(size: int) -> int:
    """Return the window of the third pooling: 4 on 7×7 and 8 on 14×14, as published; 2×2 cells on every size."""
    return 4 * (size + 2 * LAST_PADDING) // 9


def body_head(channels: int, classes: int, dropout: float, bias: bool = False) -> nn.Sequential:
    """Return the two linear layers of the body, on 2×2 cells."""
    return chain(
        flatten=nn.Flatten(),
        linear=nn.Linear(POOLED**2 * channels, HIDDEN, bias=bias),
        norm=nn.BatchNorm1d(HIDDEN),
        relu=nn.ReLU(),
        dropout=Dropout(dropout),
        classify=nn.Linear(HIDDEN, classes),
    )
