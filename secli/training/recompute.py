"""Activations computed twice instead of kept: a training step then needs less memory, and about a third more time.

Source: Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016: the forward pass keeps the
input of each segment of a network; the backward pass runs a segment once more when it reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from secli.models.contract import Model


def recompute_activations(network: nn.Module) -> None:
    """Let a network with ``stages`` drop its activations in training and compute them again in the backward pass.

    Weights, gradients, statistics of batch norms and masks of dropout are those of the ordinary pass: the second
    pass draws the same random numbers, and its statistics are dropped. Names of parameters stay. The network is changed
    in place and must not be copied afterwards: a copy would run the original's parts.
    """
    for segment in segments(network):
        _wrap(segment)


def segments(network: nn.Module) -> list[nn.Module]:
    """Return the parts that are run twice: stages, or the blocks of a stage that is a chain of residual blocks.

    The last segment is left out: the backward pass starts with it, so nothing is gained.
    """
    assert isinstance(network, Model)
    found: list[nn.Module] = []
    for _, stage in network.stages:
        blocks = [child for child in stage.children() if _is_block(child)]
        found += blocks if isinstance(stage, nn.Sequential) and blocks else [stage]
    return found[:-1]


def _is_block(module: nn.Module) -> bool:
    """Whether a module is more than a layer or a chain: it has several children with weights of their own."""
    weighted = [child for child in module.children() if next(child.parameters(), None) is not None]
    return len(weighted) > 1 and not isinstance(module, nn.Sequential)


def _wrap(segment: nn.Module) -> None:
    ordinary: Callable[..., Any] = segment.forward

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept([segment])

    def forward(*features: Tensor | list[Tensor]) -> Any:
        if not (segment.training and torch.is_grad_enabled()):
            return ordinary(*features)
        return checkpoint(ordinary, *features, use_reentrant=False, context_fn=contexts)

    segment.forward = forward


@contextmanager
def _statistics_kept(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let modules update copies of their statistics (the buffers in a checkpoint), which are then dropped."""
    owners = [
        (module, name, buffer)
        for parent in modules
        for module in parent.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    ]
    for module, name, buffer in owners:
        module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for module, name, buffer in owners:
            module._buffers[name] = buffer
