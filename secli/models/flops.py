"""The cost of a forward pass in floating-point operations: multiply–adds × 2.

torch's own counter covers matrix products and convolutions, but counts zero for every bilinear sampling, and for the
deformable convolution of torchvision. Here each bilinear sample counts its four multiply–adds::

    sampling N·C·H·W cells                      8 · N·C·H·W
    deformable convolution, K×K, C → C'         (2·C' + 8) · C·K² · N·H'·W'      (the matrix product, and its samples)

so that a deformable convolution counts the same through torchvision's operator and through our own sampling.
Cell-by-cell operations (normalisation, activation, pooling, masks, sampling positions) count nothing, as in torch's
counter. Combining a basis into kernels counts, once per pass.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from secli.layers.fast.forms import without_forms
from secli.models.contract import Features

PER_BILINEAR_SAMPLE = 8
"""Four neighbours, each with a multiplication and an addition."""

Shape = tuple[int, ...]


def _sampling(*_: Any, out_shape: Shape, **__: Any) -> int:
    return PER_BILINEAR_SAMPLE * math.prod(out_shape)


def _deformable(_: Shape, weight: Shape, *__: Any, out_shape: Shape, **___: Any) -> int:
    outputs = weight[0]
    samples = math.prod(weight[1:]) * out_shape[0] * math.prod(out_shape[2:])
    return (2 * outputs + PER_BILINEAR_SAMPLE) * samples


def formulas(images: Tensor, external: bool = False) -> dict[Any, Any]:
    """Return the formulas of operations that torch's counter gives zero.

    torchvision's operator exists once that package is imported, which takes seconds. Of our networks only those on a
    GPU use it; external ones may import it as late as in their forward pass.
    """
    known: dict[Any, Any] = {
        torch.ops.aten.grid_sampler_2d: _sampling,
        torch.ops.aten.upsample_bilinear2d: _sampling,
    }
    if external or images.is_cuda or "torchvision" in sys.modules:
        import torchvision.ops  # noqa: F401

        known[torch.ops.torchvision.deform_conv2d] = _deformable
    return known


def traced(model: nn.Module, shape: tuple[int, int, int]) -> tuple[dict[str, Features], int]:
    """Run a network on one empty picture (C, H, W) without computing it, and count its cost.

    Returns the features at every tap, of which only the shapes are valid, and multiply–adds × 2 of the pass. A network
    whose path depends on values cannot run without them: it is then computed.
    """
    try:
        return _run(copy.deepcopy(model).to("meta"), torch.zeros(1, *shape, device="meta"))
    except (NotImplementedError, RuntimeError):
        return _run(model, torch.zeros(1, *shape))


def flops(model: Callable[[Tensor], object], images: Tensor) -> int:
    """Return the multiply–adds × 2 of any forward pass on these images, which is computed.

    A convolution by Fourier transforms counts as the convolution that it computes.
    """
    counter = FlopCounterMode(display=False, custom_mapping=formulas(images, external=True))
    with torch.no_grad(), without_forms("fourier"), counter:
        model(images)
    return counter.get_total_flops()


def _run(model: Any, images: Tensor) -> tuple[dict[str, Features], int]:
    counter = FlopCounterMode(display=False, custom_mapping=formulas(images))
    with torch.no_grad(), without_forms("fourier"), counter:
        features: dict[str, Features] = model.features(images)
    return features, counter.get_total_flops()
