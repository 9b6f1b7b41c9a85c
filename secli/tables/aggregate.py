"""From runs to rows: mean ± standard deviation over realisations and seeds, and what was set aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secli.errors import InputError, UnknownNameError
from secli.records.identity import DRAW, MACHINE
from secli.records.schema import EquivarianceRecord
from secli.tables.belonging import check_by, facts, grouped, named_apart, same_data, same_protocol
from secli.tables.collect import Run, SetAside, collect
from secli.tables.deltas import (
    Measure,
    accuracy_at,
    common_factors,
    deepest_tap,
    mean_over,
    measure_of,
    same_factor,
    settings_of,
    value_at,
)
from secli.tables.naming import called, with_realisations
from secli.tables.statistic import NOTHING, Statistic, statistic

if TYPE_CHECKING:
    import pandas

# Factors whose Δ gets a column unless the user names some, where they were measured.
SHOWN_FACTORS = (0.5, 0.8)
SHOWN_NEAR = 0.1


@dataclass(frozen=True)
class Row:
    """One row of the comparison.

    Attributes
    ----------
    model, trained
        Which network, and whether its weights come from training.
    by
        The values of the grouping, the model among them.
    n
        Number of runs (realisations × seeds) in the row.
    test_error
        Fraction of test images misclassified.
    delta
        Mean of Δ over the summary's ``mean_factors`` at ``tap``.
    delta_at, accuracy_at
        Δ at ``tap``, and accuracy (a fraction), at the summary's ``factors``.
    parameters
        Number of learned parameters.
    train_seconds
        Wall time of training.
    data, data_called, settings, options, changed
        What the runs share: name of the training data, what a reader calls them, training settings (None: unknown or
        untrained), options, and those of them that are not the registry's, with the registry's value.
    runs, members
        Where the runs are, and the runs themselves.
    """

    model: str
    trained: bool
    by: Mapping[str, Any]
    n: int
    test_error: Statistic
    tap: str | None
    delta: Statistic
    delta_at: Mapping[float, Statistic]
    accuracy_at: Mapping[float, Statistic]
    parameters: int
    train_seconds: Statistic
    data: str | None
    data_called: str | None
    settings: Mapping[str, Any] | None
    options: Mapping[str, Any]
    changed: Mapping[str, Any]
    runs: tuple[str, ...]
    curves: tuple[EquivarianceRecord, ...] = ()
    members: tuple[Run, ...] = ()

    @property
    def label(self) -> str:
        """The model's name, with weights that were loaded; an untrained one says so."""
        name = str(self.by.get("model", self.model))
        return name if self.trained else f"{name} (untrained)"

    @property
    def named(self) -> str:
        """The label with the other values of the grouping: it tells the row from all others."""
        rest = [f"{key} {self.said(key)}" for key in self.by if key != "model" and self.by[key] is not None]
        return ", ".join([self.label, *rest])

    def said(self, key: str) -> str:
        """Return a value of the grouping as a reader sees it."""
        return str((key == "dataset" and self.data_called) or self.by[key])


@dataclass(frozen=True)
class Rows:
    """Groups of runs as rows, and how Δ was summarised over all of them; attributes as in ``Summary``."""

    rows: tuple[Row, ...]
    factors: tuple[float, ...]
    mean_factors: tuple[float, ...]
    measure: Measure | None
    measured_on: str = ""


@dataclass(frozen=True)
class Summary:
    """The comparison: its rows, how Δ was summarised, and the runs that were set aside.

    Attributes
    ----------
    rows
        In order of first appearance among the paths.
    by
        The grouping, ``model`` first.
    factors
        Factors whose Δ and accuracy have a column.
    mean_factors
        Factors below 1 over which Δ is averaged: those that every row could measure at some spatial tap.
    measure
        Metric, background, data and number of images of all Δ; None when nothing was measured.
    measured_on
        What a reader calls these data.
    set_aside
        Runs that entered no average, with the reason.
    notes
        What a reader must know beside the table.
    """

    rows: tuple[Row, ...]
    by: tuple[str, ...]
    factors: tuple[float, ...]
    mean_factors: tuple[float, ...]
    measure: Measure | None
    measured_on: str = ""
    set_aside: tuple[SetAside, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    def frame(self) -> pandas.DataFrame:
        """Return the rows as a DataFrame: one column per number (fractions, seconds), NaN where there is none."""
        import pandas

        frame: pandas.DataFrame = pandas.DataFrame([_flat(row) for row in self.rows])
        return frame


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
    apart = named_apart(runs, by)
    members = [same_protocol(group, by, aside) for group in grouped(same_data(apart, by, aside), by)]
    check_left(members, aside)
    found = rows_of(members, by, aside, factors, tap)
    notes = (*version_notes(runs), *training_notes(found.rows), *_missing_notes(found.rows, found.factors))
    return Summary(
        found.rows,
        by,
        found.factors,
        found.mean_factors,
        found.measure,
        found.measured_on,
        tuple(aside),
        notes,
    )


def check_left(members: Sequence[Sequence[Run]], aside: Sequence[SetAside]) -> None:
    """Raise ``InputError`` with the first reason when no run is left to compare."""
    if not any(members):
        first = f": {aside[0].path} ({aside[0].reason})" if aside else ""
        raise InputError(f"nothing to compare, all {len(aside)} results were set aside, the first{first}")


def rows_of(
    members: Sequence[Sequence[Run]],
    by: Sequence[str],
    aside: list[SetAside],
    factors: Sequence[float] | None = None,
    tap: str | None = None,
    averaged: Sequence[float] | None = None,
) -> Rows:
    """Return one row per group of runs that belong together.

    Parameters
    ----------
    members : sequence of sequences of Run
        The groups.
    by : sequence of str
        Facts that the rows carry.
    aside : list of SetAside
        Takes the measurements that do not belong with the others.
    factors, tap
        As in ``summarise``.
    averaged : sequence of float, optional
        Factors that Δ is averaged over, where all rows could measure them; by default all below 1.
    """
    members, measure = _same_measure(members, aside)
    curves = [[run.curves for run in group if run.curves is not None] for group in members]
    _check_tap(tap, curves)
    mean_factors = _mean_factors(curves, tap, averaged)
    shown = tuple(factors) if factors is not None else _shown_factors(curves)
    names = called(run.trained_on for group in members for run in group if run.trained_on is not None)
    rows = tuple(_row(group, by, shown, mean_factors, tap, names) for group in members)
    on = with_realisations(record.data for group in curves for record in group)
    return Rows(rows, shown, mean_factors, measure, on)


def _same_measure(
    members: Sequence[Sequence[Run]], aside: list[SetAside]
) -> tuple[list[list[Run]], Measure | None]:
    """Drop the curves that were measured in another way than most; the runs keep their test error."""
    counts = Counter(_alike(run.curves) for group in members for run in group if run.curves is not None)
    if not counts:
        return [list(group) for group in members], None
    chosen = counts.most_common(1)[0][0]
    names = called(run.curves.data for group in members for run in group if run.curves is not None)
    kept: list[list[Run]] = []
    for group in members:
        same: list[Run] = []
        for run in group:
            if run.curves is None or _alike(run.curves) == chosen:
                same.append(run)
                continue
            found = zip(_alike(run.curves), chosen, strict=True)
            reason = ", ".join(
                f"{name} {names.get(value, value)}, not {names.get(other, other)}"
                for (name, value), (_, other) in found
                if value != other
            )
            aside.append(SetAside(str(run.path), f"its Δ does not belong with the others: {reason}"))
            if run.training is not None:
                same.append(replace(run, curves=None))
        if same:
            kept.append(same)
    metric, background, data, images = (value for _, value in chosen[:4])
    return kept, (metric, background, data, images)


def _alike(record: EquivarianceRecord) -> tuple[tuple[str, Any], ...]:
    """Return all that must agree before two readings of Δ belong together, as (name, value)."""
    names = ("metric", "background", "data", "images")
    return (*zip(names, measure_of(record), strict=True), ("size", _size(record)), *settings_of(record))


def _size(record: EquivarianceRecord) -> str:
    """Return the size in pixels that the images were brought to, in words."""
    return "as stored" if record.data.resized is None else "×".join(map(str, record.data.resized))


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


def _mean_factors(
    curves: Sequence[Sequence[EquivarianceRecord]], tap: str | None, wanted: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Return the factors, those below 1 or those wanted, that every row could measure.

    A row that could measure none is left out.
    """
    measured = [group for group in curves if group]
    shared = common_factors([record for group in measured for record in group])
    if wanted is None:
        shared = [f for f in shared if f < 1]
    else:
        shared = [f for f in shared if f != 1 and any(same_factor(f, one) for one in wanted)]
    able = [[f for f in shared if _tap_for(group, (f,), tap) is not None] for group in measured]
    able = [factors for factors in able if factors]
    return tuple(f for f in shared if able and all(f in factors for factors in able))


def _tap_for(group: Sequence[EquivarianceRecord], factors: Sequence[float], tap: str | None) -> str | None:
    if tap is None:
        return deepest_tap(group, factors)
    ready = (
        bool(group) and bool(factors) and all(mean_over(record, tap, factors) is not None for record in group)
    )
    return tap if ready else None


def _shown_factors(curves: Sequence[Sequence[EquivarianceRecord]]) -> tuple[float, ...]:
    shared = common_factors([record for group in curves for record in group])
    chosen: list[float] = []
    for wanted in SHOWN_FACTORS:
        near = [f for f in shared if f < 1 and same_factor(f, wanted, SHOWN_NEAR)]
        if near:
            best = min(near, key=lambda f: abs(f - wanted))
            chosen.extend([best] if best not in chosen else [])
    return tuple(chosen)


def _row(
    group: Sequence[Run],
    by: Sequence[str],
    factors: Sequence[float],
    mean_factors: Sequence[float],
    tap: str | None,
    names: Mapping[str, str],
) -> Row:
    curves = tuple(run.curves for run in group if run.curves is not None)
    chosen = _tap_for(curves, mean_factors, tap)
    read_at = chosen or tap or deepest_tap(curves, factors)
    results = [
        run.training.results for run in group if run.training is not None and run.training.results is not None
    ]
    known, data = facts(group[0]), group[0].trained_on
    return Row(
        model=group[0].model.name,
        trained=group[0].trained,
        by={key: known.get(key) for key in by},
        n=len(group),
        test_error=statistic(result.test_error for result in results),
        tap=read_at,
        delta=NOTHING
        if chosen is None
        else statistic(mean_over(record, chosen, mean_factors) for record in curves),
        delta_at={
            f: NOTHING if read_at is None else statistic(value_at(record, read_at, f) for record in curves)
            for f in factors
        },
        accuracy_at={f: statistic(accuracy_at(record, f) for record in curves) for f in factors},
        parameters=group[0].model.parameters,
        train_seconds=statistic(result.train_seconds for result in results),
        data=data.name if data is not None else None,
        data_called=names[data.name] if data is not None else None,
        settings=_shared(group[0].settings),
        options=group[0].model.options,
        changed=group[0].model.changed,
        runs=tuple(str(run.path) for run in group),
        curves=curves,
        members=tuple(group),
    )


def _shared(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if settings is None:
        return None
    return {key: value for key, value in settings.items() if key not in (*DRAW, *MACHINE)}


def trained_words(rows: Iterable[Row]) -> str:
    """Say what the networks of rows were trained on."""
    infos = [run.trained_on for row in rows for run in row.members if run.trained_on is not None]
    return f"networks trained on {with_realisations(infos)}" if infos else "untrained networks"


def version_notes(runs: Iterable[Run]) -> list[str]:
    """Say when the records come from several versions of secli."""
    counts = Counter(version for run in runs for version in run.versions)
    if len(counts) < 2:
        return []
    said = ", ".join(f"{version} ({count})" for version, count in sorted(counts.items()))
    return [f"The records come from several versions of secli: {said}."]


# What decides an error as much as the architecture does, where it differs between rows.
TOLD = ("epochs", "augment", "precision", "optimizer", "lr", "batch", "milestones")


def training_notes(rows: Sequence[Row]) -> list[str]:
    """Say where rows were trained differently in what decides an error as much as the architecture does."""
    notes = []
    for key in TOLD:
        values: dict[str, list[str]] = {}
        for row in rows:
            if row.settings is not None and key not in row.by:
                value = row.settings.get(key)
                said = list(value) if isinstance(value, tuple | list) else value
                values.setdefault(str(said), []).append(row.model)
        if len(values) > 1:
            each = "; ".join(
                f"{value} ({', '.join(dict.fromkeys(models))})" for value, models in values.items()
            )
            notes.append(f"The rows differ in {key}: {each}.")
    return notes


def _missing_notes(rows: Sequence[Row], factors: Sequence[float]) -> list[str]:
    """Say why a factor that has a column has no value in some row."""
    notes = []
    for factor in factors:
        reasons: dict[str, list[str]] = {}
        for row in rows:
            if row.curves and row.delta_at[factor].mean is None:
                reasons.setdefault(_reason(row, factor), []).append(row.named)
        for reason, labels in reasons.items():
            notes.append(f"No Δ at s = {factor:.3g} for {'; '.join(labels)}: {reason}.")
    return notes


def _reason(row: Row, factor: float) -> str:
    if row.tap is None:
        return "no spatial tap could be measured at all the factors"
    found = [r for c in row.curves for r in c.rows if r.tap == row.tap and same_factor(r.factor, factor)]
    if not found:
        return f"not measured at {row.tap}"
    return f"{found[0].reason or 'not measurable'} at {row.tap}"


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {**row.by, "trained": row.trained, "n": row.n}
    numbers = {"test_error": row.test_error, "delta": row.delta}
    numbers.update({f"delta_{f:.3g}": value for f, value in row.delta_at.items()})
    numbers.update({f"accuracy_{f:.3g}": value for f, value in row.accuracy_at.items()})
    numbers["train_seconds"] = row.train_seconds
    for name, value in numbers.items():
        flat.update({f"{name}_mean": value.mean, f"{name}_std": value.std, f"{name}_n": value.n})
    return {**flat, "tap": row.tap, "parameters": row.parameters}
