"""From runs to groups that may be averaged: a row of the comparison, a cell of a pivot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secli.errors import InputError, UnknownNameError
from secli.records import DataInfo, EquivarianceRecord, TrainingResults
from secli.tables import notes, readings
from secli.tables.belonging import (
    DRAW,
    MACHINE,
    KeepsApart,
    check_by,
    facts,
    grouped,
    named_apart,
    same_data,
    same_protocol,
)
from secli.tables.collect import Run, SetAside, collect
from secli.tables.dataset_names import called, with_realisations
from secli.tables.paired_tests import Draw
from secli.tables.quantities import QUANTITIES, Quantity, accuracy_at_factor, delta_at
from secli.tables.readings import Measure, Reading, readable_tap
from secli.tables.statistic import Statistic, finite, statistic

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Group:
    """Runs that are averaged.

    Attributes
    ----------
    members
        The runs: realisations × seeds.
    by
        The facts that they were grouped by.
    reading
        Where Δ and accuracy are read.
    data_called
        What a reader calls the training data; None where there are none.
    """

    members: tuple[Run, ...]
    by: Mapping[str, Any]
    reading: Reading
    data_called: str | None

    @property
    def model(self) -> str:
        """The model's name."""
        return self.members[0].model.name

    @property
    def trained(self) -> bool:
        """Whether the weights come from training."""
        return self.members[0].trained

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.members)

    @property
    def label(self) -> str:
        """The model's name, with weights that were loaded; an untrained one says so."""
        name = str(self.by.get("model", self.model))
        return name if self.trained else f"{name} (untrained)"

    @property
    def details(self) -> list[str]:
        """The values of the grouping, but for the model and what is unset, as a reader sees them."""
        shown = {**self.by, **({"dataset": self.data_called} if self.data_called else {})}
        return [f"{key} {shown[key]}" for key in self.by if key != "model" and self.by[key] is not None]

    @property
    def named(self) -> str:
        """The label with the other values of the grouping: it tells the row from all others."""
        return ", ".join([self.label, *self.details])

    @property
    def curves(self) -> tuple[EquivarianceRecord, ...]:
        """The curves of the runs that were measured."""
        return tuple(run.curves for run in self.members if run.curves is not None)

    @property
    def results(self) -> list[TrainingResults]:
        """The results of the runs that were trained."""
        return [run.training.results for run in self.members if run.training and run.training.results]

    @property
    def data(self) -> str | None:
        """Name of the training data."""
        return self.members[0].trained_on.name if self.members[0].trained_on is not None else None

    @property
    def settings(self) -> dict[str, Any] | None:
        """The training settings that the runs share; None: unknown or untrained."""
        settings = self.members[0].settings
        if settings is None:
            return None
        return {key: value for key, value in settings.items() if key not in (*DRAW, *MACHINE)}

    @property
    def runs(self) -> tuple[str, ...]:
        """Where the runs are."""
        return tuple(str(run.path) for run in self.members)

    @property
    def tap(self) -> str | None:
        """The tap at which Δ is read."""
        return self.reading.tap

    @property
    def parameters(self) -> int:
        """Number of learned parameters."""
        return self.members[0].model.parameters

    @property
    def test_error(self) -> Statistic:
        """Fraction of test images misclassified."""
        return self.statistic(QUANTITIES["test_error"])

    @property
    def train_seconds(self) -> Statistic:
        """Wall time of training."""
        return self.statistic(QUANTITIES["train_seconds"])

    @property
    def delta(self) -> Statistic:
        """Mean of Δ over the factors of the mean."""
        return self.statistic(QUANTITIES["delta"])

    @property
    def delta_at(self) -> dict[float, Statistic]:
        """Δ at each factor shown."""
        return {factor: self.statistic(delta_at(factor)) for factor in self.reading.factors}

    @property
    def accuracy_at(self) -> dict[float, Statistic]:
        """Accuracy (a fraction) on images rescaled by each factor shown."""
        return {factor: self.statistic(accuracy_at_factor(factor)) for factor in self.reading.factors}

    def values(self, quantity: Quantity) -> dict[Draw, float]:
        """Return the value of each draw that has one."""
        read = {_draw(run): finite(quantity.read(run, self.reading)) for run in self.members}
        return {draw: value for draw, value in read.items() if value is not None}

    def statistic(self, quantity: Quantity) -> Statistic:
        """Return mean ± standard deviation of a quantity over the runs."""
        return statistic(self.values(quantity).values())


@dataclass(frozen=True)
class Summary:
    """Groups of runs, and how Δ was read over all of them.

    Attributes
    ----------
    rows
        The groups, in order of first appearance among the paths.
    by
        Facts that they were grouped by.
    factors
        Factors whose Δ and accuracy have a column.
    mean_factors
        Factors over which Δ is averaged: those that every row could measure at some spatial tap.
    accuracy_factors
        Factors over which accuracy is averaged.
    measure
        Metric, background, data and number of images of all Δ; None when nothing was measured.
    measured_on
        What a reader calls these data.
    set_aside
        Runs that entered no average, with the reason.
    notes
        What a reader must know.
    """

    rows: tuple[Group, ...]
    by: tuple[str, ...]
    factors: tuple[float, ...]
    mean_factors: tuple[float, ...]
    accuracy_factors: tuple[float, ...]
    measure: Measure | None
    measured_on: str
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def dataset_names(self) -> dict[str, str]:
        """What a reader calls the datasets, by their names."""
        return {row.data: row.data_called for row in self.rows if row.data and row.data_called}

    def frame(self) -> pandas.DataFrame:
        """Return one row per group and one column per number (fractions, seconds), NaN where there is none."""
        from pandas import DataFrame

        from secli.tables.frame import wide

        by = [{**row.by, "trained": row.trained, "n": row.n, "tap": row.tap} for row in self.rows]
        named = [QUANTITIES[key] for key in ("test_error", "delta", "train_seconds", "parameters")]
        read = [at(factor) for at in (delta_at, accuracy_at_factor) for factor in self.factors]
        joined: pandas.DataFrame = DataFrame(by).join(wide(self.rows, [*named, *read]))
        return joined


def summarise(
    paths: Sequence[Path],
    by: Sequence[str] = ("model",),
    factors: Sequence[float] | None = None,
    tap: str | None = None,
) -> Summary:
    """Summarise runs and results: one row per model, mean ± standard deviation over realisations and seeds.

    Runs enter one average only when they differ in nothing but seed, realisation and machine; where they differ,
    the majority stays and the others are set aside with the reason. Δ is summarised as the arithmetic mean over
    ``mean_factors`` at the deepest spatial tap that could be measured at all of them (or at ``tap``).

    Parameters
    ----------
    paths : sequence of Path
        Run directories, directories that hold runs, record files.
    by : sequence of str
        Grouping; ``model`` is always part of it.
    factors : sequence of float, optional
        Scale factors whose Δ and accuracy get a column; by default those measured nearest to 0.5 and 0.8.
    tap : str, optional
        Tap at which Δ is read.

    Raises
    ------
    InputError
        On a path without a record, a damaged record, an unknown grouping or tap, or when nothing is left to compare.
    """
    if not paths:
        raise InputError("no runs given: name run directories, a directory that holds them, or result files")
    runs, aside = collect(paths)
    by = check_by(by, runs) if runs else ("model", *by)
    _, members = sort_runs(runs, by, aside)
    found = averaged(members, by, aside, factors, tap)
    more = (*notes.versions(runs), *notes.trainings(found.rows), *notes.missing(found.rows, found.factors))
    return replace(found, set_aside=tuple(aside), notes=more)


def sort_runs(
    runs: Sequence[Run],
    by: Sequence[str],
    aside: list[SetAside],
    keeps_apart: KeepsApart | None = None,
    narrowed: Callable[[list[Run]], list[Run]] = list,
) -> tuple[list[Run], list[list[Run]]]:
    """Put runs into groups by facts, and keep of each group what belongs together.

    Parameters
    ----------
    runs : sequence of Run
        Finished runs.
    by : sequence of str
        The facts.
    aside : list of SetAside
        Takes what enters no group, with the reason.
    keeps_apart : callable, optional
        From a fact to the option that would keep runs apart by it.
    narrowed : callable
        What else is done to a group before the majority decides.

    Returns
    -------
    tuple
        The runs on one set of images, in order, and the groups.
    """
    kept = same_data(named_apart(runs, by), by, aside, keeps_apart)
    return kept, [same_protocol(narrowed(group), by, aside, keeps_apart) for group in grouped(kept, by)]


def averaged(
    members: Sequence[Sequence[Run]],
    by: Sequence[str],
    aside: list[SetAside],
    factors: Sequence[float] | None = None,
    tap: str | None = None,
    mean_over: Sequence[float] | None = None,
) -> Summary:
    """Return groups of runs with where their Δ is read.

    Parameters
    ----------
    members : sequence of sequences of Run
        The groups.
    by : sequence of str
        Facts that the rows carry.
    aside : list of SetAside
        Takes the measurements that must not be compared with the others.
    factors, tap
        As in ``summarise``.
    mean_over : sequence of float, optional
        Factors that Δ and accuracy are averaged over, as far as all could measure them; by default those below 1 for
        Δ, all for accuracy.

    Raises
    ------
    InputError
        When no run is left, with the first reason; when no record has the tap.
    """
    if not any(members):
        first = f": {aside[0].path} ({aside[0].reason})" if aside else ""
        raise InputError(f"nothing to compare, all {len(aside)} results were set aside, the first{first}")
    members, measure = _same_measure(members, aside)
    curves = [[run.curves for run in group if run.curves is not None] for group in members]
    _check_tap(tap, curves)
    mean_factors = readings.factors_of_mean(curves, tap, mean_over)
    accuracy_factors = readings.factors_of_accuracy(curves, mean_over)
    shown = tuple(factors) if factors is not None else readings.factors_shown(curves)
    names = called(run.trained_on for group in members for run in group if run.trained_on is not None)
    rows = []
    for group, own in zip(members, curves, strict=True):
        mean_tap = readable_tap(own, mean_factors, tap)
        read_at = mean_tap or tap or readable_tap(own, shown)
        known, data = facts(group[0]), group[0].trained_on
        reading = Reading(read_at, mean_tap, mean_factors, accuracy_factors, shown)
        data_called = names[data.name] if data is not None else None
        rows.append(Group(tuple(group), {key: known.get(key) for key in by}, reading, data_called))
    on = with_realisations(record.data for group in curves for record in group)
    return Summary(tuple(rows), tuple(by), shown, mean_factors, accuracy_factors, measure, on)


def _same_measure(
    members: Sequence[Sequence[Run]], aside: list[SetAside]
) -> tuple[list[list[Run]], Measure | None]:
    """Drop the curves that were measured in another way than most; the runs keep their test error."""
    ways = {id(run): readings.decisive(run.curves) for group in members for run in group if run.curves}
    if not ways:
        return [list(group) for group in members], None
    usual = Counter(ways.values()).most_common(1)[0][0]
    names = called(run.curves.data for group in members for run in group if run.curves is not None)
    kept: list[list[Run]] = []
    for group in members:
        same: list[Run] = []
        for run in group:
            way = ways.get(id(run), usual)
            if way == usual:
                same.append(run)
                continue
            differences = [
                f"{name} {names.get(value, value)}, not {names.get(other, other)}"
                for (name, value), (_, other) in zip(way, usual, strict=True)
                if value != other
            ]
            reason = f"its Δ does not belong with the others: {', '.join(differences)}"
            aside.append(SetAside(str(run.path), reason))
            same += [replace(run, curves=None)] if run.training is not None else []
        kept += [same] if same else []
    metric, background, data, images = (value for _, value in usual[:4])
    return kept, (metric, background, data, images)


def _check_tap(tap: str | None, curves: Sequence[Sequence[EquivarianceRecord]]) -> None:
    if tap is None:
        return
    known = list(dict.fromkeys(row.tap for group in curves for record in group for row in record.rows))
    if not known:
        raise InputError(
            f"--tap {tap}: none of the runs was measured; run 'secli equivariance' on them first"
        )
    if tap not in known:
        raise UnknownNameError("tap --tap", tap, known)


def _draw(run: Run) -> Draw:
    """Return what pairs two runs: the images, the realisation, the seed."""
    data: DataInfo | None = run.trained_on
    if data is None and run.curves is not None:
        data = run.curves.data
    return (data.digest if data is not None else None, run.realisation, run.seed)
