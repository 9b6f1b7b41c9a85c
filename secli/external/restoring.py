"""Undo the changes of probing or measuring a network."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from secli.errors import InputError

FINE = (torch.float32, torch.float64)


@contextmanager
def on_device(module: nn.Module, device: torch.device | str) -> Iterator[None]:
    """Put a module on a device inside; afterwards it has its own tensors again, the very same ones."""
    target = torch.empty(0, device=device).device
    own = itertools.chain(module.parameters(), module.buffers())
    if all(tensor.device == target for tensor in own):
        yield
        return
    with _tensors_restored(module):
        module.to(device)
        yield


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode inside; afterwards each of its modules is in its own mode again."""
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def borrowed(module: nn.Module) -> Iterator[None]:
    """Restore a module's tensors and their devices, modes, ``requires_grad``, and random states.

    A network may change buffers even in eval mode (running statistics); they get their values back.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    learned = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        with random_states_kept(module), _tensors_restored(module), in_eval_mode(module):
            yield
    finally:
        for parameter, requires in learned:
            parameter.requires_grad_(requires)
        for buffer, before in buffers:
            if not torch.equal(buffer, before):
                with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                    buffer.copy_(before)


@contextmanager
def random_states_kept(module: nn.Module) -> Iterator[None]:
    """Restore the random states of torch, NumPy and Python after a network's draws."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    chips = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the state that foreign code uses)
    try:
        with torch.random.fork_rng(devices=sorted(chips, key=str)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def _tensors_restored(module: nn.Module) -> Iterator[None]:
    """Restore the very same tensors, on their devices, whatever moves the module inside."""
    weights = [(parameter, parameter.data, parameter.grad) for parameter in module.parameters()]
    buffers = [(part, dict(part._buffers)) for part in module.modules()]
    try:
        yield
    finally:
        for parameter, data, gradient in weights:
            if parameter.data.device != data.device:
                parameter.data = data
                parameter.grad = gradient
        for part, own in buffers:
            part._buffers.update(own)


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's first tensor; the CPU for one without any."""
    tensor = next(itertools.chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def fingerprint(module: nn.Module) -> tuple[float, ...]:
    """Return numbers that change when weights do, however they are changed: sums over each tensor."""
    with torch.no_grad():
        tensors = [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]
        real = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]
        return tuple(float(tensor.double().abs().sum()) for tensor in real)


def image_dtype(module: nn.Module) -> torch.dtype:
    """Return the type that a network's images take: that of its weights.

    Raises
    ------
    InputError
        When they are all in half precision, or on the meta device.
    """
    weights = [*module.parameters(), *module.buffers()]
    if any(weight.is_meta for weight in weights):
        raise InputError("the network's weights have no values (device 'meta'); load them before measuring")
    types = [weight.dtype for weight in weights if weight.is_floating_point()]
    if not types:
        return torch.get_default_dtype()
    fine = [dtype for dtype in types if dtype in FINE]
    if not fine:
        name = str(types[0]).removeprefix("torch.")
        raise InputError(f"the network's weights are {name}, too coarse to measure with; use .float() first")
    return fine[0]
