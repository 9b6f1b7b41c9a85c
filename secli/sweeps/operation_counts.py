"""The work of each distinct network of a sweep, counted from its shapes once and kept on disk.

What a count depends on is :class:`Shapes`; seeds, realisations, learning rates and the like are not in it. It lies in
the folder ``estimates`` of the cache, under a hash of the shapes and of the versions of secli and of torch, so that
another version counts anew. Networks of other packages are counted in every call: their versions are not known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic_core import to_jsonable_python
from torch import nn

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.layers.basis_cache import Array, cached_array, is_cached
from secli.layers.fast.forms import without_forms
from secli.models.building import build
from secli.models.meta_device import outline, without_compiler
from secli.provenance import secli_version
from secli.training.operation_counts import StepWork, Work, WorkCounter
from secli.training.recompute import recompute_activations

COUNT_VERSION = 1
"""Goes into the key on disk: raise it when the same shapes give other counts."""
FOLDER = "estimates"
"""Of the cache."""
FEWEST = 2
"""Images of the smallest batch that is counted: a batch norm needs two."""
CPU_FORMS = ("running-max", "fourier", "wide-gradient")
"""Forms of layers that run on CPUs only."""

Device = Literal["cpu", "cuda"]


class Shapes(NamedTuple):
    """All that the count of a training step depends on.

    Attributes
    ----------
    model, options
        Registry name; all options of the builder, as JSON.
    channels, side, classes
        Of the images.
    images
        Images that go through together.
    passes
        1, or 2 where a step adds the gradients of several passes up.
    again
        Whether activations are computed again in the backward pass.
    device
        Whose forms of the layers are counted.
    """

    model: str
    options: str
    channels: int
    side: int
    classes: int
    images: int
    passes: int
    again: bool
    device: Device


class Counted(NamedTuple):
    """What was counted: bytes of weights and buffers; work of forward pass and of step; bytes at its peak."""

    weights: float
    forward: Work
    step: Work
    peak: float


class Unfit(Exception):
    """A network cannot take the images; the message is the reason."""


def shapes_of(
    model: str, options: Mapping[str, Any], training: TrainingSettings, side: int, device: Device = "cpu"
) -> Shapes:
    """Return what the count of a run depends on."""
    together = -(-training.batch // training.accumulate)
    return Shapes(
        model,
        json.dumps(to_jsonable_python(options), sort_keys=True),
        options.get("in_channels", 1),
        side,
        options.get("classes", 10),
        max(FEWEST, together),
        min(2, training.accumulate),
        training.checkpoint_activations,
        device,
    )


class Counts:
    """The counts of some networks, each made once."""

    def __init__(self) -> None:
        self._counted: dict[Shapes, Counted] = {}
        self._counter = WorkCounter()

    def __len__(self) -> int:
        """Return how many networks were counted."""
        return len(self._counted)

    def of(self, shapes: Shapes) -> Counted:
        """Return the count of a network: known, or kept on disk, or counted now.

        Raises
        ------
        Unfit
            When the network cannot take its images.
        InputError, SecliError
            When the network cannot be built.
        """
        if shapes not in self._counted:
            self._counted[shapes] = self._found(shapes)
        return self._counted[shapes]

    def _found(self, shapes: Shapes) -> Counted:
        if not _is_ours(shapes.model):
            return self._count(shapes)
        return _counted(cached_array(FOLDER, _parameters(shapes), lambda: _array(self._count(shapes))))

    def _count(self, shapes: Shapes) -> Counted:
        try:
            return self._on_meta(shapes) if _is_ours(shapes.model) else self._foreign(shapes)
        except (RuntimeError, ValueError) as error:
            raise Unfit((str(error).splitlines() or [type(error).__name__])[0]) from None

    def _on_meta(self, shapes: Shapes) -> Counted:
        network = outline(shapes.model, json.loads(shapes.options))
        # a network of another package may want the compiler itself, and so does activation checkpointing
        ours = _is_ours(shapes.model) and not shapes.again
        with without_compiler() if ours else nullcontext():
            return self._step(network, shapes, shapes.images, "meta")

    def _foreign(self, shapes: Shapes) -> Counted:
        """Count a network of another package; one that reads values of its tensors computes a small batch."""
        try:
            return self._on_meta(shapes)
        except Exception:  # whatever foreign code does without values; its true errors come again
            network = build(shapes.model, json.loads(shapes.options))
            return _enlarged(self._step(network, shapes, FEWEST, "cpu"), shapes.images / FEWEST)

    def _step(self, network: nn.Module, shapes: Shapes, count: int, device: str) -> Counted:
        if shapes.again:
            recompute_activations(network)
        images = torch.zeros(count, shapes.channels, shapes.side, shapes.side, device=device)
        labels = torch.zeros(count, dtype=torch.int64, device=device)
        forms: AbstractContextManager[None] = (
            without_forms(*CPU_FORMS) if shapes.device == "cuda" else nullcontext()
        )
        with forms:
            work = self._counter.step(network, images, labels, shapes.passes)
        return _with_weights(network, work)


def uncounted(networks: Iterable[Shapes]) -> list[Shapes]:
    """Return the networks, each once, whose counts are not on disk and will be."""
    return [
        shapes
        for shapes in dict.fromkeys(networks)
        if _is_ours(shapes.model) and not is_cached(FOLDER, _parameters(shapes))
    ]


def _parameters(shapes: Shapes) -> dict[str, Any]:
    versions = {"count": COUNT_VERSION, "secli": secli_version(), "torch": torch.__version__}
    return {**versions, **shapes._asdict()}


def _is_ours(model: str) -> bool:
    return MODELS[model].builder.startswith("secli.")


def _with_weights(network: nn.Module, work: StepWork) -> Counted:
    tensors = [*network.parameters(), *network.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Counted(float(weights), work.forward, work.step, float(work.peak))


def _enlarged(counted: Counted, times: float) -> Counted:
    """Return the count of a batch so many times as large; kernels and gradients of weights grow with it, wrongly."""
    return Counted(counted.weights, counted.forward * times, counted.step * times, counted.peak * times)


def _array(counted: Counted) -> Array:
    forward, step = (
        [work.products, work.samples, work.transforms, work.traffic]
        for work in (counted.forward, counted.step)
    )
    return np.array([counted.weights, *forward, *step, counted.peak], dtype=np.float64)


def _counted(array: Array) -> Counted:
    numbers = array.tolist()
    return Counted(numbers[0], Work(*numbers[1:5]), Work(*numbers[5:9]), numbers[9])
