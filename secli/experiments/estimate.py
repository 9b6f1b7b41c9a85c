"""What a sweep will cost: time and memory, from a training step of each of its networks and from finished runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from secli.catalogue import MODELS
from secli.config import ModelSettings, TrainingSettings
from secli.datasets.protocols import DATASETS
from secli.equivariance.factors import PROTOCOLS
from secli.experiments.plan import PlannedRun, WantedDataset, known_shape
from secli.models.building import build, resolve_options
from secli.training.devices import cores
from secli.training.recompute import recompute_activations, segments

TRIED = 8
"""Images of the step that is timed."""
SIDE = 28
"""Side of the images where neither the network nor the dataset says it."""
MEASURING = 1.3
"""A curve costs about so many times its forward passes."""
FACTORS = 14
"""About so many factors has a default grid."""


class Cost(NamedTuple):
    """What one network costs on this machine, with this many threads.

    Attributes
    ----------
    train, forward
        Seconds per image, of a training step and of a forward pass.
    memory
        Bytes per image of a step that the backward pass needs.
    state
        Bytes of weights, gradients and Adam's two moments.
    """

    train: float
    forward: float
    memory: float
    state: int


@dataclass(frozen=True)
class Estimate:
    """What one run costs, done or not.

    Attributes
    ----------
    run
        The run.
    seconds
        Training, validation, test and measuring together; None where the number of images is not known yet.
    memory
        Bytes at the peak of a training step, the libraries themselves (some hundred MB) left out.
    measured
        Whether the seconds of training are those of finished runs that differ in nothing but seed and realisation.
    """

    run: PlannedRun
    seconds: float | None
    memory: float
    measured: bool


def estimate(
    runs: Sequence[PlannedRun],
    sizes: Callable[[WantedDataset], tuple[int, int, int] | None],
    finished: Mapping[str, float],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Estimate]:
    """Estimate every run; each network is timed once, on a step of a few images.

    Parameters
    ----------
    runs : sequence of PlannedRun
        The runs.
    sizes : callable
        Gives a dataset's images in train, val and test; None where nobody knows them yet.
    finished : mapping
        Seconds of training of runs that were finished before, by :func:`kindred`.
    on_progress : callable
        Called with (networks timed, networks in all).
    """
    networks: dict[str, Cost] = {}
    total = len({_network(run) for run in runs})
    estimates = []
    for run in runs:
        name = _network(run)
        if name not in networks:
            networks[name] = cost_of(run)
            on_progress(len(networks), total)
        cost = networks[name]
        known = finished.get(kindred(run))
        seconds = _seconds(run, cost, sizes, known)
        memory = cost.state + cost.memory * _at_once(run.resolved.training)
        estimates.append(Estimate(run, seconds, memory, known is not None))
    return estimates


def kindred(run: PlannedRun) -> str:
    """Return what runs share that differ in nothing but seed and realisation."""
    identity = run.identity()
    training = {key: value for key, value in identity["training"].items() if key != "seed"}
    data = {key: value for key, value in identity["data"].items() if key != "realisation"}
    return json.dumps({**identity, "training": training, "data": data}, sort_keys=True)


def _network(run: PlannedRun) -> str:
    options = json.dumps(run.resolved.options, sort_keys=True)
    training = run.resolved.training
    again = training.checkpoint_activations
    return f"{run.model.name} {options} {_side(run)} {training.threads} {training.precision} {again}"


def _at_once(training: TrainingSettings) -> int:
    """Return how many images of a batch pass through together."""
    return -(-training.batch // training.accumulate)


def _side(run: PlannedRun) -> int:
    """Return the side of the images that a run's network will see."""
    shape = known_shape(run.data)
    if shape is not None:
        return shape.height
    return int(run.data.image_size or run.resolved.options.get("image_size") or SIDE)


def cost_of(run: PlannedRun) -> Cost:
    """Time one step and one forward pass of a run's network, and add up what the backward pass keeps."""
    training = run.resolved.training
    network, images, labels = _trial(run.model.name, run.resolved.options, _side(run))
    threads = torch.get_num_threads()
    torch.set_num_threads(training.threads or cores())
    once_more = _recomputing(network, images, labels) if training.checkpoint_activations else 0
    try:
        _step(network, images, labels)  # the first one also finds its algorithms
        train = _timed(lambda: _step(network, images, labels)) / TRIED
        kept = (_kept_bytes(network, images, labels) + once_more) / TRIED
        network.eval()
        with torch.no_grad():
            forward = _timed(lambda: network(images)) / TRIED
    finally:
        torch.set_num_threads(threads)
    return Cost(train, forward, kept, _state_bytes(network))


def step_memory(model: ModelSettings, training: TrainingSettings, side: int = SIDE) -> float:
    """Return the bytes that one training step needs: weights, gradients, moments, and what the backward pass keeps.

    ``side`` is that of the images, for a network that takes any.
    """
    options = resolve_options(MODELS[model.name], model.options)
    network, images, labels = _trial(model.name, options, options.get("image_size", side))
    once_more = _recomputing(network, images, labels) if training.checkpoint_activations else 0
    kept = _kept_bytes(network, images, labels) + once_more
    return _state_bytes(network) + kept / TRIED * _at_once(training)


def _trial(model: str, options: Mapping[str, Any], side: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network in training mode with a few images and labels."""
    images = torch.rand(TRIED, options.get("in_channels", 1), side, side)
    return build(model, options, seed=0), images, torch.arange(TRIED) % options.get("classes", 10)


def _state_bytes(network: nn.Module) -> int:
    return 4 * sum(p.numel() * p.element_size() for p in network.parameters())


def _step(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    network.zero_grad()
    functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class _Kept(torch.autograd.graph.saved_tensors_hooks):
    """Count the bytes of all activations that autograd keeps for the backward pass, each storage once."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(self._pack, lambda tensor: tensor)
        self.parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
        self.kept: dict[int, int] = {}

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.parameters:
            self.kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        """What was kept so far."""
        return sum(self.kept.values())


def _kept_bytes(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    kept = _Kept(network)
    with kept:
        loss = functional.cross_entropy(network(images), labels)
    del loss
    return kept.bytes


def _recomputing(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Let a network compute its activations again; return the most bytes that one segment then keeps for a while."""
    counter = _Kept(network)
    before, largest = 0, 0

    def enter(*_: object) -> None:
        nonlocal before
        before = counter.bytes

    def leave(*_: object) -> None:
        nonlocal largest
        largest = max(largest, counter.bytes - before)

    hooks = [
        hook
        for segment in segments(network)
        for hook in (segment.register_forward_pre_hook(enter), segment.register_forward_hook(leave))
    ]
    with counter:
        loss = functional.cross_entropy(network(images), labels)
    del loss
    for hook in hooks:
        hook.remove()
    recompute_activations(network)
    return largest


def _seconds(
    run: PlannedRun,
    cost: Cost,
    sizes: Callable[[WantedDataset], tuple[int, int, int] | None],
    training: float | None,
) -> float | None:
    known = sizes(run.data)
    if known is None:
        return training
    train, val, test = known
    epochs = run.resolved.training.epochs
    seconds = epochs * train * cost.train if training is None else training
    seconds += (epochs * val + test) * cost.forward
    if run.measure is not None:
        settings = run.measure.settings
        factors = len(settings.factors or PROTOCOLS.get(settings.protocol) or range(FACTORS))
        on = sizes(run.measure.on)
        images = settings.images if on is None else min(settings.images, on[2])
        seconds += MEASURING * (factors + 1) * images * cost.forward
    return seconds


def longest_path(seconds: Sequence[float], jobs: int) -> float:
    """Return the wall time of so many workers that take the runs in order."""
    ends = [0.0] * max(jobs, 1)
    for each in seconds:
        index = min(range(len(ends)), key=ends.__getitem__)
        ends[index] += each
    return max(ends)


def protocol_sizes(wanted: WantedDataset) -> tuple[int, int, int] | None:
    """Return the images in train, val and test that a protocol prescribes; None where the pictures decide."""
    return DATASETS[wanted.name].parameters(wanted.factors, wanted.sizes, wanted.image_size).sizes


def finished_seconds(
    runs: Sequence[PlannedRun], seconds_of: Callable[[PlannedRun], float | None]
) -> dict[str, float]:
    """Return the mean seconds of the runs that are finished, by :func:`kindred`."""
    found: dict[str, list[float]] = {}
    for run in runs:
        seconds = seconds_of(run)
        if seconds is not None:
            found.setdefault(kindred(run), []).append(seconds)
    return {key: sum(values) / len(values) for key, values in found.items()}
