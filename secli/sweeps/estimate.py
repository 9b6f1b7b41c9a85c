"""What a sweep will cost: time and memory, from counted operations of its networks and from finished runs.

No network is built with weights and nothing is computed: a step of each distinct network is counted by its shapes
(:mod:`secli.sweeps.operation_counts`), and this machine's rates (:mod:`secli.sweeps.cpu_rates`) turn them into
seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from secli.catalogue import MODELS
from secli.config import ModelSettings, TrainingSettings
from secli.datasets.protocols import DATASETS
from secli.equivariance.factors import PROTOCOLS
from secli.errors import InputError
from secli.models.building import resolve_options
from secli.sweeps.cpu_rates import Rates
from secli.sweeps.forked_counts import helped
from secli.sweeps.operation_counts import Counted, Counts, Shapes, Unfit, shapes_of, uncounted
from secli.sweeps.plan import DatasetRequest, PlannedRun, known_shape

SIDE = 28
"""Side of the images where neither the network nor the dataset says it."""
MEASURING = 1.3
"""A curve costs about so many times its forward passes."""
FACTORS = 14
"""About so many factors has a default grid."""


class Cost(NamedTuple):
    """What a run's network costs on this machine, with the run's threads.

    Attributes
    ----------
    train, forward
        Seconds per image, of a training step and of a forward pass.
    memory
        Bytes at the peak of a training step: weights, moments of the optimiser, images, activations, gradients.
    """

    train: float
    forward: float
    memory: float


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
        Bytes at the peak of a training step, the libraries themselves (some hundred MB) left out; None where the size
        of the images is not known yet, and the network does not take the usual one.
    measured
        Whether the seconds of training are those of finished runs that differ in nothing but seed and realisation.
    """

    run: PlannedRun
    seconds: float | None
    memory: float | None
    measured: bool


def estimate(
    runs: Sequence[PlannedRun],
    sizes: Callable[[DatasetRequest], tuple[int, int, int] | None],
    finished: Mapping[str, float],
    rates: Mapping[int, Rates],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Estimate]:
    """Estimate every run; each network is counted once.

    Parameters
    ----------
    runs : sequence of PlannedRun
        The runs.
    sizes : callable
        Gives a dataset's images in train, val and test; None where nobody knows them yet.
    finished : mapping
        Seconds of training of runs that were finished before, by :func:`kindred`.
    rates : mapping
        What this machine does in a second, by the threads of the runs.
    on_progress : callable
        Called with (networks counted, networks in all).

    Raises
    ------
    InputError
        When a network cannot take its images.
    """
    counts = Counts()
    total = distinct(runs)
    estimates = []
    with helped(uncounted(_shapes(run) for run in runs)):
        for run in runs:
            cost = cost_of(run, counts, rates[run.resolved.training.threads])
            on_progress(len(counts), total)
            known = finished.get(kindred(run))
            seconds = known if cost is None else _seconds(run, cost, sizes, known)
            memory = None if cost is None else cost.memory
            estimates.append(Estimate(run, seconds, memory, known is not None))
    return estimates


def distinct(runs: Sequence[PlannedRun]) -> int:
    """Return how many networks the runs have that differ in their shapes."""
    return len({_shapes(run) for run in runs})


def kindred(run: PlannedRun) -> str:
    """Return what runs share that differ in nothing but seed and realisation."""
    identity = run.identity()
    training = {key: value for key, value in identity["training"].items() if key != "seed"}
    data = {key: value for key, value in identity["data"].items() if key != "realisation"}
    return json.dumps({**identity, "training": training, "data": data}, sort_keys=True)


def _side(run: PlannedRun) -> int:
    """Return the side of the images that a run's network will see."""
    shape = known_shape(run.data)
    if shape is not None:
        return shape.height
    return int(run.data.image_size or run.resolved.options.get("image_size") or SIDE)


def _shapes(run: PlannedRun) -> Shapes:
    return shapes_of(run.model.name, run.resolved.options, run.resolved.training, _side(run))


def cost_of(run: PlannedRun, counts: Counts, rates: Rates) -> Cost | None:
    """Return what a run's network costs; None where the size of its images is only guessed, and does not fit.

    Raises
    ------
    InputError
        When the network cannot take its images.
    """
    shapes = _shapes(run)
    try:
        counted = counts.of(shapes)
    except Unfit as error:
        if known_shape(run.data) is None and run.data.image_size is None:
            return None
        size = f"{shapes.channels}×{shapes.side}×{shapes.side}"
        raise InputError(
            f"{run.data.name}: model {run.model.name} cannot take its {size} images ({error})"
        ) from None
    return Cost(
        rates.seconds(counted.step) / shapes.images,
        rates.seconds(counted.forward) / shapes.images,
        _memory(counted, run.resolved.training),
    )


def _memory(counted: Counted, training: TrainingSettings) -> float:
    """Return the bytes of weights, the optimiser's moments, and the step itself at its peak."""
    moments = 2 if training.optimizer == "adam" else int(training.momentum > 0)
    return counted.weights * (1 + moments) + counted.peak


def step_memory(model: ModelSettings, training: TrainingSettings, side: int = SIDE) -> float:
    """Return the bytes that one training step needs on a GPU: weights, moments, and what the step makes.

    ``side`` is that of the images, for a network that takes any.

    Raises
    ------
    InputError
        When the network cannot take such images.
    """
    options = resolve_options(MODELS[model.name], model.options)
    shapes = shapes_of(model.name, options, training, options.get("image_size", side), "cuda")
    try:
        return _memory(Counts().of(shapes), training)
    except Unfit as error:
        raise InputError(f"model {model.name} cannot take {side}×{side} images ({error})") from None


def _seconds(
    run: PlannedRun,
    cost: Cost,
    sizes: Callable[[DatasetRequest], tuple[int, int, int] | None],
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


def protocol_sizes(request: DatasetRequest) -> tuple[int, int, int] | None:
    """Return the images in train, val and test that a protocol prescribes; None where the pictures decide."""
    return DATASETS[request.name].parameters(request.factors, request.sizes, request.image_size).sizes


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
