"""How fast this machine's CPU is at the kinds of work of a training step, measured in a fraction of a second.

Each kind has one example, the size of a layer; the fastest of some repeats counts, so that others who use the machine
disturb it little. What a network's own layers reach differs from the example by up to a factor of two either way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from secli.models.flops import PER_BILINEAR_SAMPLE
from secli.training.devices import cores
from secli.training.operation_counts import Work, transform_flops

REPEATS = 5


class Rates(NamedTuple):
    """What is done in a second, kind by kind, as in :class:`secli.training.operation_counts.Work`.

    Attributes
    ----------
    products, samples, transforms
        Floating-point operations per second.
    traffic
        Bytes per second.
    """

    products: float
    samples: float
    transforms: float
    traffic: float

    def seconds(self, work: Work) -> float:
        """Return how long some work takes."""
        return (
            work.products / self.products
            + work.samples / self.samples
            + work.transforms / self.transforms
            + work.traffic / self.traffic
        )


def measured_rates(threads: int) -> Rates:
    """Measure the rates of this machine's CPU.

    Parameters
    ----------
    threads : int
        CPU threads; 0 takes one per core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or cores())
    try:
        return Rates(_products(), _samples(), _transforms(), _traffic())
    finally:
        torch.set_num_threads(before)


def _products() -> float:
    images, channels, size, side = 4, 32, 5, 28
    x = torch.rand(images, channels, side, side, requires_grad=True)
    kernel = torch.rand(channels, channels, size, size, requires_grad=True)
    seconds = _fastest(lambda: functional.conv2d(x, kernel, padding=size // 2), x, kernel)
    # forward, and the gradients with respect to both
    return 3 * 2 * images * (channels * size * side) ** 2 / seconds


def _samples() -> float:
    images, channels, side = 2, 16, 48
    x = torch.rand(images, channels, side, side, requires_grad=True)
    grid = torch.rand(images, side, side, 2).mul(2).sub(1).requires_grad_()
    seconds = _fastest(lambda: functional.grid_sample(x, grid, align_corners=False), x, grid)
    return (1 + 3) * PER_BILINEAR_SAMPLE * x.numel() / seconds


def _transforms() -> float:
    x = torch.rand(64, 60, 60)
    return transform_flops(x.numel(), 60 * 60) / _fastest(lambda: torch.fft.rfft2(x))


def _traffic() -> float:
    x = torch.rand(8, 32, 56, 56, requires_grad=True)
    seconds = _fastest(lambda: torch.relu(functional.batch_norm(x, None, None, training=True)), x)
    # read and written: two tensors forward and three backward, by each of the two
    return 10 * x.numel() * x.element_size() / seconds


def _fastest(forward: Callable[[], Tensor], *inputs: Tensor) -> float:
    """Return the seconds of a forward pass, and of a backward pass to the inputs that are named."""

    def once() -> float:
        began = time.perf_counter()
        result = forward()
        if inputs:
            # of a sum: torch imports sympy where it is given the gradient of a tensor
            torch.autograd.grad(result.sum(), inputs)
        return time.perf_counter() - began

    once()  # the first one also finds its algorithms
    return min(once() for _ in range(REPEATS))
