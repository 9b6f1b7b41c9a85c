"""Whether every network of a sweep takes its images, and has the taps that are to be measured: before the first run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from secli.equivariance.curves import fields_of_taps
from secli.errors import InputError, UnknownNameError
from secli.models.building import build
from secli.models.contract import StagedModel
from secli.models.meta_device import outline
from secli.sweeps.plan import PlannedRun, Shape, ShapeOf, check_options
from secli.training.augment import augmentation_of
from secli.training.plan import ImageShape, outputs


class Fitting:
    """Checks networks against the shapes of their images, each pair once."""

    def __init__(self) -> None:
        self._checked: set[str] = set()

    def check(
        self,
        runs: Sequence[PlannedRun],
        shape_of: ShapeOf,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Build each network of the runs and give it one empty picture.

        Parameters
        ----------
        runs : sequence of PlannedRun
            The runs.
        shape_of : callable
            Gives the shape of a dataset; None: it is not known yet, and checked another time.
        on_progress : callable
            Called with (networks tried, networks in all).

        Raises
        ------
        InputError
            When a network cannot take its images, or does not tell their classes apart.
        """
        left: dict[str, tuple[PlannedRun, Shape]] = {}
        for run in runs:
            shape = shape_of(run.data)
            if shape is not None:
                name = json.dumps(
                    [run.model.name, run.resolved.options, run.resolved.training.augment, *shape],
                    sort_keys=True,
                )
                left.setdefault(name, (run, shape))
        new = {name: pair for name, pair in left.items() if name not in self._checked}
        for done, (name, (run, shape)) in enumerate(new.items()):
            on_progress(done, len(new))
            _check(run, shape)
            self._checked.add(name)


def _check(run: PlannedRun, shape: Shape) -> None:
    channels, height, width, classes = shape
    check_options(run, shape)
    model, training = run.model.name, run.resolved.training
    augmentation = augmentation_of(training)
    needed = augmentation and augmentation.unfit(channels, height, width)
    if needed:
        raise InputError(
            f"{run.data.name}: training.augment = {training.augment} {needed}, not {channels}×{height}×{width} "
            f"(model {model})"
        )
    images = ImageShape(run.data.name, channels, height, width)
    told = outputs(images, model, build(model, run.resolved.options))
    if told != classes:
        raise InputError(f"{run.data.name}: {classes} classes, but model {model} tells {told} apart")


def check_taps(runs: Sequence[PlannedRun]) -> None:
    """Check that every network has the taps that are measured of it; where all are, nothing is built.

    Raises
    ------
    InputError
        When one has not.
    """
    checked: set[str] = set()
    for run in runs:
        taps = None if run.measure is None else run.measure.settings.taps
        name = json.dumps([run.model.name, run.resolved.options, taps], sort_keys=True)
        if taps is None or name in checked:
            continue
        checked.add(name)
        try:
            fields_of_taps(_unfilled(run), taps)
        except UnknownNameError as error:
            raise InputError(f"model {run.model.name}: measure.taps: {error}") from None


def _unfilled(run: PlannedRun) -> StagedModel:
    try:
        return outline(run.model.name, run.resolved.options)
    except (NotImplementedError, RuntimeError):  # one of another package may read the values of its tensors
        return build(run.model.name, run.resolved.options)
