"""From runs to groups that may be averaged: a row of the comparison, a cell of a pivot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secli.errors import InputError, UnknownNameError
from secli.records.identity import DRAW, MACHINE, reading_facts
from secli.records.schema import EquivarianceRecord, ModelInfo
from secli.tables import notes, readings
from secli.tables.belonging import KeepsApart, check_by, facts, grouped, named_apart, same_data, same_protocol
from secli.tables.collect import Run, SetAside, collect
from secli.tables.dataset_names import called, with_realisations
from secli.tables.depth import DEEPEST, TapChoice, read_taps
from secli.tables.paired_tests import Draw
from secli.tables.quantities import Quantity, accuracy_at_factor, delta_at, quantity
from secli.tables.readings import Measure, ReadAt
from secli.tables.statistic import Statistic, finite, statistic

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Group:
    """Runs that are averaged: what they were grouped by, where they are read, what a reader calls their data."""

    members: tuple[Run, ...]
    by: Mapping[str, Any]
    read_at: ReadAt
    data_called: str | None

    def __getitem__(self, key: str) -> Statistic:
        """Return a quantity by its name: ``group["test_error"]``, ``group["delta_0.5"]``."""
        return self.statistic(quantity(key))

    def statistic(self, of: Quantity) -> Statistic:
        """Return mean ± standard deviation of a quantity over the runs."""
        return statistic(self.values(of).values())

    def values(self, of: Quantity) -> dict[Draw, float]:
        """Return the value of each draw that has one."""
        read = {_draw(run): finite(of.read(run, self.read_at)) for run in self.members}
        return {draw: value for draw, value in read.items() if value is not None}

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.members)

    @property
    def model(self) -> ModelInfo:
        """The network."""
        return self.members[0].model

    @property
    def trained(self) -> bool:
        """Whether the weights come from training."""
        return self.members[0].trained

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
    def curves(self) -> tuple[EquivarianceRecord, ...]:
        """The curves of the runs that were measured."""
        return tuple(run.curves for run in self.members if run.curves is not None)

    @property
    def tap(self) -> str | None:
        """The tap at which Δ is read."""
        return self.read_at.tap

    @property
    def label(self) -> str:
        """The model's name, with weights that were loaded; an untrained one says so."""
        name = str(self.by.get("model", self.model.name))
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


@dataclass(frozen=True)
class Summary:
    """Groups of runs, and how Δ was read over all of them.

    Attributes
    ----------
    rows, by
        The groups, and the facts that they were grouped by.
    factors
        Factors whose Δ and accuracy have a column.
    mean_factors, accuracy_factors
        Factors that Δ and accuracy are averaged over: those that every row could measure.
    measure, measured_on
        Metric, background, data and number of images of all Δ (None: nothing was measured), and the data's name.
    set_aside, notes
        Runs that entered no average, with the reason, and what a reader must know.
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

    @property
    def logits_too(self) -> bool:
        """Whether every measured row is read before the logits and has Δ there, too."""
        measured = [row for row in self.rows if row.curves]
        return all(row.tap != "logits" and row["delta_logits"].n == len(row.curves) for row in measured)

    def at_factors(self) -> list[Quantity]:
        """Return Δ, then accuracy, at each factor that has a column."""
        return [at(factor) for at in (delta_at, accuracy_at_factor) for factor in self.factors]

    def frame(self) -> pandas.DataFrame:
        """Return one row per group and one column per number (fractions, seconds), NaN where there is none."""
        from pandas import DataFrame

        from secli.tables.frame import wide

        by = DataFrame([{**row.by, "trained": row.trained, "n": row.n} for row in self.rows])
        error, delta, seconds = map(quantity, ("test_error", "delta", "train_seconds"))
        joined: pandas.DataFrame = by.join(wide(self.rows, [error, delta, *self.at_factors(), seconds]))
        joined["tap"] = [row.tap for row in self.rows]
        joined["parameters"] = [row.model.parameters for row in self.rows]
        return joined


def summarise(
    paths: Sequence[Path],
    by: Sequence[str] = ("model",),
    factors: Sequence[float] | None = None,
    tap: TapChoice = None,
) -> Summary:
    """Summarise runs and results: one row per model, mean ± standard deviation over realisations and seeds.

    Runs enter one average only when they differ in nothing but seed, realisation and machine; where they differ,
    the majority stays and the others are set aside with the reason.

    Parameters
    ----------
    paths : sequence of Path
        Run directories, directories that hold runs, record files.
    by : sequence of str
        Grouping; ``model`` is always part of it.
    factors : sequence of float, optional
        Scale factors whose Δ and accuracy get a column; by default those measured nearest to 0.5 and 0.8.
    tap : str, float, optional
        Where Δ is read, as :func:`secli.tables.depth.read_taps` takes it; by default at one relative depth of all.

    Raises
    ------
    InputError
        On a path without a record, a damaged record, an unknown grouping or tap, or when nothing is left to compare.
    """
    if not paths:
        raise InputError("no runs given: name run directories, a directory that holds them, or result files")
    runs, aside = collect(paths)
    by = check_by(by, runs) if runs else ("model", *by)
    found = averaged(sort_runs(runs, by, aside)[1], by, aside, factors, tap)
    more = (*notes.versions(runs), *notes.trainings(found.rows), *notes.missing(found.rows, found.factors))
    return replace(found, set_aside=tuple(aside), notes=more)


def sort_runs(
    runs: Sequence[Run],
    by: Sequence[str],
    aside: list[SetAside],
    keeps_apart: KeepsApart | None = None,
    narrowed: Callable[[list[Run]], list[Run]] = list,
) -> tuple[list[Run], list[list[Run]]]:
    """Return the runs on one set of images, and their groups by facts, each with what belongs together.

    ``aside`` takes the others, with the reason; ``narrowed`` reduces a group before the majority decides.
    """
    kept = same_data(named_apart(runs, by), by, aside, keeps_apart)
    return kept, [same_protocol(narrowed(group), by, aside, keeps_apart) for group in grouped(kept, by)]


def averaged(
    members: Sequence[Sequence[Run]],
    by: Sequence[str],
    aside: list[SetAside],
    factors: Sequence[float] | None = None,
    tap: TapChoice = None,
    mean_over: Sequence[float] | None = None,
) -> Summary:
    """Return groups of runs with where they are read; ``aside`` takes measurements unlike the others.

    Δ and accuracy are averaged over ``mean_over`` as far as all could measure them, by default over the factors
    below 1 and over all; ``factors`` and ``tap`` are as in ``summarise``.

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
    accuracy_factors = readings.factors_of_accuracy(curves, mean_over)
    shown = tuple(factors) if factors is not None else readings.factors_shown(curves)
    taps, mean_factors, depth = read_taps(curves, tap, mean_over, shown)
    names = called(run.trained_on for group in members for run in group if run.trained_on is not None)
    rows = []
    for group, own_tap in zip(members, taps, strict=True):
        known, data = facts(group[0]), group[0].trained_on
        read_at = ReadAt(own_tap, depth, mean_factors, accuracy_factors, shown)
        data_called = names[data.name] if data is not None else None
        rows.append(Group(tuple(group), {key: known.get(key) for key in by}, read_at, data_called))
    on = with_realisations(record.data for group in curves for record in group)
    return Summary(tuple(rows), tuple(by), shown, mean_factors, accuracy_factors, measure, on)


def _same_measure(
    members: Sequence[Sequence[Run]], aside: list[SetAside]
) -> tuple[list[list[Run]], Measure | None]:
    """Drop the curves that were measured in another way than most; the runs keep their test error."""
    ways = {id(run): reading_facts(run.curves) for group in members for run in group if run.curves}
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


def _check_tap(tap: TapChoice, curves: Sequence[Sequence[EquivarianceRecord]]) -> None:
    if not isinstance(tap, str) or tap == DEEPEST:
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
    data = run.trained_on or (run.curves.data if run.curves is not None else None)
    return (data.digest if data is not None else None, run.realisation, run.seed)
