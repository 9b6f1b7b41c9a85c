"""From the paths that a user names to the runs that stand there, each once."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secli.errors import InputError
from secli.provenance import origin_of_weights
from secli.records.identity import Defaults, completed, told_defaults
from secli.records.schema import (
    CURVES_FILE,
    DAMAGED,
    RECORD_FILE,
    SWEEP_FILE,
    DataInfo,
    EquivarianceRecord,
    ModelInfo,
    SweepRecord,
    TrainingRecord,
    is_versioned,
    read_json,
    read_record,
    read_sweep_record,
    read_training_record,
)
from secli.storage.leftovers import tidy, tidy_below

Name = tuple[str, str | None]
"""What a sweep calls a run in its tables: its label, and the tag of its block."""

Listing = dict[str, tuple[int, tuple[Name, ...]]]
"""The runs of a sweep: directory below the sweep's to the place in its order, and the names."""

_PUT_ASIDE = re.compile(re.escape(DAMAGED) + r"\d*$")

OUTSIDE: tuple[int, tuple[Name, ...]] = (sys.maxsize, ())


@dataclass(frozen=True)
class SetAside:
    """A result that enters no average, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Run:
    """One network, trained or fresh, and what is known of it.

    Attributes
    ----------
    path
        Where it was found, as the user knows it.
    training
        Its training record; None for a result of ``secli equivariance`` that stands alone.
    curves
        Its equivariance curves; None when it was not measured.
    names
        What the sweep that it belongs to calls it, once per block that lists it; empty without a sweep.
    """

    path: Path
    training: TrainingRecord | None
    curves: EquivarianceRecord | None
    names: tuple[Name, ...] = ()

    @property
    def model(self) -> ModelInfo:
        """Which network."""
        return self._record.model

    @property
    def trained(self) -> bool:
        """Whether the weights come from training."""
        return self.training is not None or (self.curves is not None and self.curves.trained)

    @property
    def called(self) -> str:
        """The model's name; with the weights that were loaded into it, for with others it is another network."""
        if self._loaded is None:
            return self.model.name
        weights = self.curves.weights if self.curves is not None else None
        return f"{self.model.name} ({weights or origin_of_weights(self.model.options, 0)})"

    @property
    def _loaded(self) -> str | None:
        """The file or the name of weights that are of no run."""
        loaded: str | None = None if self.training is not None else self.model.options.get("weights")
        return loaded

    @property
    def trained_on(self) -> DataInfo | None:
        """The images that a trained network saw."""
        if self.training is not None:
            return self.training.data
        return self.curves.trained_on if self.curves is not None else None

    @property
    def settings(self) -> dict[str, Any] | None:
        """The training settings; None where no training record tells them."""
        return self.training.training if self.training is not None else None

    @property
    def seed(self) -> int:
        """Seed of the initial weights; 0 for weights that were loaded, which do not depend on it."""
        if self._loaded is not None:
            return 0
        if self.curves is not None:
            return self.curves.seed
        return int((self.settings or {}).get("seed", 0))

    @property
    def realisation(self) -> int | None:
        """Realisation of the images that it was trained on, or, untrained, measured on."""
        if self.trained_on is not None:
            return self.trained_on.realisation
        return self.curves.data.realisation if self.curves is not None else None

    @property
    def versions(self) -> set[str]:
        """The versions of secli that wrote its records."""
        return {record.provenance.secli for record in (self.training, self.curves) if record is not None}

    @property
    def _record(self) -> TrainingRecord | EquivarianceRecord:
        record = self.training if self.training is not None else self.curves
        if record is None:
            raise ValueError(f"{self.path}: a run needs at least one record")
        return record


def collect(paths: Sequence[Path]) -> tuple[list[Run], list[SetAside]]:
    """Read all runs and results at the given paths.

    A path is a run directory, a directory that holds runs or results at any depth, or the file of one record. A run
    that is reached twice, or was copied, counts once; a result measured on a run that is also given joins it. The
    runs of a sweep come in its order, with the names that it gives them. JSON files below a directory that are no
    records are passed over.

    Parameters
    ----------
    paths : sequence of Path
        What the user named.

    Returns
    -------
    tuple
        The finished runs in the order found, and what was set aside with the reason (failed or unfinished runs, and
        records that cannot be read).

    Raises
    ------
    InputError
        When a path does not exist, a directory holds no record, or nothing is left but a record that was named and
        cannot be read.
    """
    runs: list[Run] = []
    aside: list[SetAside] = []
    unreadable: list[InputError] = []
    sweeps: dict[Path, Listing] = {}
    for path in paths:
        named, found = _expand(path)
        names = {place: _names_of(place, sweeps, aside) for place in found}
        # a sweep's runs in its order, before what else lies there
        for place in sorted(found, key=lambda place: (names[place][0], place.is_file())):
            try:
                run = replace(_read(place), names=names[place][1])
            except InputError as error:
                unreadable += [error] if named else []
                aside.append(SetAside(str(place), str(error).removeprefix(f"{place}: ")))
            else:
                _admit(run, runs, aside)
    if unreadable and not runs:
        raise unreadable[0]
    defaults = told_defaults(run.model for run in runs)
    return [_completed(run, defaults) for run in runs], aside


def _completed(run: Run, defaults: Defaults) -> Run:
    training, curves = run.training, run.curves
    if training is not None:
        training = training.model_copy(update={"model": completed(training.model, defaults)})
    if curves is not None:
        curves = curves.model_copy(update={"model": completed(curves.model, defaults)})
    return replace(run, training=training, curves=curves)


def _expand(path: Path) -> tuple[bool, list[Path]]:
    """Return whether the path names one result, and the run directories and record files that it stands for."""
    tidy(path.parent)  # a run may have been moved out of the way by a process that was killed
    if path.is_file():
        in_run = path.name in (RECORD_FILE, CURVES_FILE) and (path.parent / RECORD_FILE).is_file()
        return True, [path.parent if in_run else path]
    if (path / RECORD_FILE).is_file():
        tidy(path)
        return True, [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such run directory or record file")
    tidy_below(path)
    found = sorted(set(_below(path)))
    if not found:
        raise InputError(
            f"{path}: no record here or below; is this a run directory that 'secli train' wrote?"
        )
    return False, found


def _below(path: Path) -> Iterator[Path]:
    """Give run directories, results that stand alone, and the results of ``secli equivariance --save``."""
    runs = {record.parent for record in path.rglob(RECORD_FILE) if _written(record, path)}
    yield from runs
    for file in path.rglob("*.json"):
        if file.name in (RECORD_FILE, SWEEP_FILE) or not _written(file, path):
            continue
        # what lies in a run directory belongs to the run, whatever it is
        if runs.isdisjoint(file.parents) and (file.name == CURVES_FILE or _is_record(file)):
            yield file


def _written(file: Path, below: Path) -> bool:
    """Say whether a file is whole: a name that begins with a dot is still being written, one was put aside."""
    parts = file.relative_to(below).parts
    return not any(part.startswith(".") or _PUT_ASIDE.search(part) for part in parts)


def _is_record(file: Path) -> bool:
    """Say whether a file calls itself a result of ours; whether it is a whole one shows when it is read."""
    try:
        content = read_json(file)
    except (OSError, ValueError):
        return False
    if not is_versioned(content):
        return False
    return content.get("kind") in ("training", "equivariance")


def _names_of(
    place: Path, sweeps: dict[Path, Listing], aside: list[SetAside]
) -> tuple[int, tuple[Name, ...]]:
    """Return the place of a run in its sweep, and its names there; runs outside sweeps come last.

    A damaged record of a sweep is set aside, and its runs have no names.
    """
    run = place.resolve()
    if len(run.parts) < 3:
        return OUTSIDE
    directory = run.parent.parent  # <sweep>/<model>/<run>
    if directory not in sweeps:
        try:
            sweeps[directory] = _listing(read_sweep_record(directory))
        except InputError as error:
            sweeps[directory] = {}
            above = place.parent.parent  # as the user knows it, if his path goes as far up
            where = (above if above.resolve() == directory else directory) / SWEEP_FILE
            aside.append(SetAside(str(where), str(error).removeprefix(f"{directory / SWEEP_FILE}: ")))
    return sweeps[directory].get(f"{run.parent.name}/{run.name}", OUTSIDE)


def _listing(sweep: SweepRecord | None) -> Listing:
    listing: Listing = {}
    for index, one in enumerate(sweep.runs if sweep is not None else ()):
        first, names = listing.get(one.run, (index, ()))
        listing[one.run] = first, tuple(dict.fromkeys((*names, (one.label, one.tag))))
    return listing


def _read(place: Path) -> Run:
    if place.is_dir():
        return Run(place, read_training_record(place), _curves_of(place))
    record = read_record(place)
    if isinstance(record, TrainingRecord):
        return Run(place, record, None)
    return Run(place, _training_of(record), record)


def _curves_of(run: Path) -> EquivarianceRecord | None:
    file = run / CURVES_FILE
    if not file.is_file():
        return None
    record = read_record(file)
    if not isinstance(record, EquivarianceRecord):
        raise InputError(f"{file}: a record of kind '{record.kind}', not of equivariance curves")
    return record


def _training_of(curves: EquivarianceRecord) -> TrainingRecord | None:
    """Return the training record of the run that was measured, if it still stands where the result says."""
    if not curves.trained or curves.run is None:
        return None
    try:
        training = read_training_record(Path(curves.run))
    except InputError:
        return None
    same = training.model == curves.model and training.training.get("seed") == curves.seed
    return training if same and training.data == curves.trained_on else None


def _admit(run: Run, runs: list[Run], aside: list[SetAside]) -> None:
    """Add a run, unless it is there already or did not finish; two results of one run become one."""
    training = run.training
    if training is not None and (training.status != "finished" or training.results is None):
        reason = f": {training.reason}" if training.reason else ""
        aside.append(SetAside(str(run.path), f"{training.status}{reason}"))
        return
    for index, other in enumerate(runs):
        if training != other.training or (training is None and run.curves != other.curves):
            continue
        if other.curves is None:
            runs[index] = replace(other, curves=run.curves)
        elif run.curves is not None and run.curves != other.curves:
            aside.append(
                SetAside(str(run.path), f"another measurement of {other.path}, which is counted once")
            )
        return
    runs.append(run)
