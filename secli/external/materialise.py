"""Tensors that a factory may leave unfinished: without values, without a size, or closed to gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from secli.errors import InputError
from secli.external.foreign_code import one_line_errors

IMAGES = 2
"""Images of the pass that gives lazy modules their sizes."""


def complete(network: nn.Module, shape: tuple[int, int, int] | None, name: str) -> None:
    """Give lazy modules their sizes by a pass in eval mode, and replace tensors made in inference mode.

    Raises
    ------
    InputError
        When the sizes depend on images of unknown shape, or the pass fails or leaves a module without a size.
    """
    if shape is not None and any(is_lazy(tensor) for _, tensor in _tensors(network)):
        training = network.training
        weights = next((t for _, t in _tensors(network) if t.is_floating_point()), torch.empty(0))
        with one_line_errors(name), torch.no_grad():
            network.eval()(torch.zeros(IMAGES, *shape, dtype=weights.dtype, device=weights.device))
        network.train(training)
    lazy = [key for key, tensor in _tensors(network) if is_lazy(tensor)]
    if lazy:
        why = "the shape of the images is not known; give --input" if shape is None else "no pass calls it"
        raise InputError(f"{name}: the module of {lazy[0]} has no size yet: {why}")
    _normalise_tensors(network)


def check_values(network: nn.Module, name: str) -> None:
    """Refuse a network with weights on the meta device."""
    empty = [key for key, tensor in _tensors(network) if tensor.is_meta]
    if empty:
        more = f" and {len(empty) - 1} more" * (len(empty) > 1)
        raise InputError(
            f"{name}: {empty[0]}{more} on the meta device, without values; build the network on the CPU, or give "
            "its weights by --weights FILE"
        )


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _normalise_tensors(network: nn.Module) -> None:
    """Replace tensors made in inference mode, which are closed to gradients, by equal ones."""
    copies: dict[int, Tensor] = {}
    for module in network.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None and parameter.is_inference():
                copy = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                module._parameters[key] = copies.setdefault(id(parameter), copy)  # type: ignore[assignment]
        for key, buffer in module._buffers.items():
            if buffer is not None and buffer.is_inference():
                module._buffers[key] = copies.setdefault(id(buffer), buffer.clone())
