"""What a reader must know of the groups of runs in a table, in words below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from secli.metrics import METRICS
from secli.tables.collect import Run
from secli.tables.curve_rows import whole
from secli.tables.dataset_names import with_realisations
from secli.tables.depth import LAST
from secli.tables.quantities import delta_at
from secli.tables.readings import Measure, among, same_factor

if TYPE_CHECKING:
    from secli.tables.groups import Group

# What decides an error as much as the architecture does, where it differs between rows.
DECISIVE = ("epochs", "augment", "precision", "optimizer", "lr", "batch", "milestones")
AT_LOGITS = "Δ logits: the same mean at the logits, where the whole network has been passed."
HALF = 0.5
OWN_DEPTHS = "Δ of each network is read at a depth of its own, so that rows do not compare"
MOST_NAMED = 6


def trained_on(groups: Iterable[Group]) -> str:
    """Say what the networks of groups were trained on."""
    infos = [run.trained_on for group in groups for run in group.members if run.trained_on is not None]
    return f"networks trained on {with_realisations(infos)}" if infos else "untrained networks"


def versions(runs: Iterable[Run]) -> list[str]:
    """Say when the records come from several versions of secli."""
    counts = Counter(version for run in runs for version in run.versions)
    if len(counts) < 2:
        return []
    listed = ", ".join(f"{version} ({count})" for version, count in sorted(counts.items()))
    return [f"The records come from several versions of secli: {listed}."]


def trainings(groups: Sequence[Group]) -> list[str]:
    """Say where groups were trained differently in what decides an error as much as the architecture does."""
    notes = []
    for key in DECISIVE:
        models: dict[str, list[str]] = {}
        for group in groups:
            if group.settings is not None and key not in group.by:
                value = group.settings.get(key)
                text = str(list(value) if isinstance(value, tuple | list) else value)
                models.setdefault(text, []).append(group.model.name)
        if len(models) > 1:
            each = "; ".join(f"{value} ({', '.join(dict.fromkeys(who))})" for value, who in models.items())
            notes.append(f"The rows differ in {key}: {each}.")
    return notes


def missing(groups: Sequence[Group], factors: Sequence[float]) -> list[str]:
    """Say why a factor that has a column has no value in some group."""
    notes = []
    for factor in factors:
        reasons: dict[str, list[str]] = {}
        for group in groups:
            if group.curves and group.statistic(delta_at(factor)).mean is None:
                reasons.setdefault(_reason(group, factor), []).append(group.named)
        for reason, names in reasons.items():
            notes.append(f"No Δ at s = {factor:.3g} for {'; '.join(names)}: {reason}.")
    return notes


def _reason(group: Group, factor: float) -> str:
    if group.tap is None:
        return "no spatial tap could be measured at all the factors"
    rows = [row for record in group.curves for row in record.rows if row.tap == group.tap]
    found = [row for row in rows if same_factor(row.factor, factor)]
    if not found:
        return f"not measured at {group.tap}"
    return f"{found[0].reason or 'not measurable'} at {group.tap}"


def measured(measure: Measure, on: str) -> str:
    """Say how Δ was measured, and on which images."""
    metric, background, _, images = measure
    kept = "background Φ(0) subtracted" if background == "empty" else "background kept"
    return f"Δ(s): equivariance error ({METRICS[metric].words}; {kept}) at the tap named, on {images} images of {on}."


def taps(groups: Sequence[Group]) -> list[str]:
    """Say at which taps Δ is read: at one relative depth of all networks, or which ones do not compare."""
    read = [group for group in groups if group.tap is not None]
    if not read:
        return []
    names, depth = list(dict.fromkeys(group.tap for group in read)), read[0].read_at.depth
    if len(names) == 1:
        return [f"Δ is read at tap '{names[0]}' of every network."]
    each = "; ".join(
        f"{name} ({', '.join(dict.fromkeys(group.label for group in read if group.tap == name))})"
        for name in names
    )
    if depth is None:
        return [f"{OWN_DEPTHS}: {each}."]
    at = "their last taps" if depth == LAST else f"one relative depth, {depth:.2g} of their taps"
    return [f"Δ of all networks is read at {at}: {each}."]


def own_depths(groups: Sequence[Group]) -> str:
    """Return what a title says where networks are read at different depths; else nothing."""
    read = [group for group in groups if group.tap is not None]
    alike = len({group.tap for group in read}) < 2 or read[0].read_at.depth is not None
    return "" if alike else f". {OWN_DEPTHS}"


def little_compared(groups: Sequence[Group], factors: Sequence[float]) -> list[str]:
    """Say at which taps Δ at some of the factors is an error of less than half of the cells; nothing if at none."""
    found = []
    for group in groups:
        shares = [
            (row.compared, row.factor)
            for record in group.curves
            for row in whole(record.rows)
            if row.tap == group.tap and row.mean is not None and row.compared is not None
            if among(row.factor, factors)
        ]
        if shares and min(shares)[0] < HALF:
            share, factor = min(shares)
            found.append(f"{group.named}, {group.tap}: {100 * share:.0f} % at s = {factor:.3g}")
    if not found:
        return []
    more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return [f"Δ compares less than half of the tap's cells: {'; '.join(found[:MOST_NAMED])}{more}."]


def departures(marks: Mapping[tuple[str, ...], str]) -> list[str]:
    """Say what each mark at a published figure means."""
    return [f"{mark} Not the published setting: {'; '.join(some)}." for some, mark in marks.items()]


def mark_of(some: tuple[str, ...], marks: dict[tuple[str, ...], str]) -> str:
    """Return the mark of departures, a new one where they have none yet: †, ‡, then doubled and so on."""
    if not some:
        return ""
    return marks.setdefault(some, ("†", "‡")[len(marks) % 2] * (len(marks) // 2 + 1))
