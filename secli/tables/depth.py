"""At which tap each network is read: at one relative depth of all, so that a table compares like with like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from secli.tables.curve_rows import tap_names, whole
from secli.tables.readings import Curves, among, common_factors, value_at

DEEPEST = "deepest"
"""Asks for the deepest spatial tap of each network by itself."""
NEAR = 0.15
"""Taps whose relative depths differ by no more stand at one depth."""
LAST = 1.0
ROUNDING = 1e-9

TapChoice = str | float | None
"""A tap's name, :data:`DEEPEST`, or a relative depth; None: the best depth that all can be read at."""


class TapsRead(NamedTuple):
    """The tap of each group (None: it cannot be read), what Δ is averaged over, and the relative depth of all taps.

    ``depth`` is None where taps were chosen by name, or each for itself.
    """

    taps: tuple[str | None, ...]
    factors: tuple[float, ...]
    depth: float | None = None


class _Candidate(NamedTuple):
    depth: float
    taps: tuple[str, ...]
    spatial: bool = True


def read_taps(
    groups: Sequence[Curves],
    choice: TapChoice = None,
    mean_over: Sequence[float] | None = None,
    shown: Sequence[float] = (),
) -> TapsRead:
    """Choose the tap at which each group of records is read, and the factors that Δ is averaged over.

    By default all are read at one relative depth (a tap's place in the order of its network's taps, 1 for the last):
    of the depths at which every network has a spatial tap, that with a value in all at the most factors, and of
    several the deepest. Where no such depth has a value, all are read at their last taps, the logits.

    Parameters
    ----------
    groups : sequence of sequences of records
        Records of one network each. What was not measured, or has no value at all, is not asked.
    choice : str, float, optional
        A tap's name, ``"deepest"``, or a relative depth.
    mean_over : sequence of float, optional
        Factors that Δ is averaged over, as far as all have them; by default those below 1.
    shown : sequence of float
        Factors that choose where none of the mean has a value in all.
    """
    asked = [group for group in groups if any(row.mean is not None for one in group for row in one.rows)]
    common = common_factors([record for group in asked for record in group])
    wanted = [f for f in common if (f < 1 if mean_over is None else f != 1 and among(f, mean_over))]
    if isinstance(choice, str):
        return _each_for_itself(groups, asked, choice, wanted, shown)
    candidates = list(_candidates(asked, choice))
    if not asked or not candidates:
        return TapsRead((None,) * len(groups), ())

    def worth(one: _Candidate) -> tuple[bool, int, int, float]:
        means, others = len(_read(asked, one.taps, wanted)), len(_read(asked, one.taps, shown))
        return one.spatial and means + others > 0, means, others, one.depth

    best = max(candidates, key=worth)
    taps = {id(group): tap for group, tap in zip(asked, best.taps, strict=True)}
    factors = _read(asked, best.taps, wanted)
    return TapsRead(tuple(taps.get(id(group)) for group in groups), tuple(factors), best.depth)


def _candidates(groups: Sequence[Curves], depth: float | None) -> Iterator[_Candidate]:
    """Yield the taps of all groups at one depth: that which is asked for, else each that all have, and the last."""
    ladders = [_ladder(group) for group in groups]
    spatial = [
        {tap: at for tap, at in ladder.items() if _spatial(group, tap)}
        for group, ladder in zip(groups, ladders, strict=True)
    ]
    asked = sorted({at for ladder in spatial for at in ladder.values()}) if depth is None else [depth]
    for at in asked if all(spatial) else ():
        taps = tuple(_nearest(ladder, at) for ladder in spatial)
        depths = [ladder[tap] for ladder, tap in zip(spatial, taps, strict=True)]
        depths += [] if depth is None else [depth]
        if depth != LAST and max(depths) - min(depths) <= NEAR + ROUNDING:
            yield _Candidate(at, taps)
    if ladders and depth in (None, LAST):
        yield _Candidate(LAST, tuple(_nearest(ladder, LAST) for ladder in ladders), spatial=False)


def _ladder(group: Curves) -> dict[str, float]:
    """Return the relative depths of a network's taps, in its order."""
    names = tap_names(group[0].rows)
    return {name: (index + 1) / len(names) for index, name in enumerate(names)}


def _nearest(ladder: dict[str, float], depth: float) -> str:
    return min(ladder, key=lambda tap: (abs(ladder[tap] - depth), -ladder[tap]))


def _read(groups: Sequence[Curves], taps: Sequence[str], factors: Sequence[float]) -> list[float]:
    """Return the factors at which every record of every group has a value at the group's tap."""
    return [
        factor
        for factor in factors
        if all(
            value_at(record, tap, factor) is not None
            for group, tap in zip(groups, taps, strict=True)
            for record in group
        )
    ]


def _each_for_itself(
    groups: Sequence[Curves],
    asked: Sequence[Curves],
    name: str,
    wanted: Sequence[float],
    shown: Sequence[float],
) -> TapsRead:
    """Read every group at the tap of a name, or at its own deepest; Δ over what all can read that can read any."""
    ladders = [
        [name] if name != DEEPEST else [tap for tap in reversed(_ladder(group)) if _spatial(group, tap)]
        for group in asked
    ]
    able = [
        {factor for factor in wanted if any(_read([group], [tap], [factor]) for tap in ladder)}
        for group, ladder in zip(asked, ladders, strict=True)
    ]
    factors = [f for f in wanted if any(able) and all(f in some for some in able if some)]
    taps: dict[int, str | None] = {}
    for group, ladder in zip(asked, ladders, strict=True):
        full = (
            tap
            for over in (factors, shown)
            if over
            for tap in ladder
            if _read([group], [tap], over) == [*over]
        )
        taps[id(group)] = next(full, name if name != DEEPEST else None)
    return TapsRead(tuple(taps.get(id(group)) for group in groups), tuple(factors))


def _spatial(group: Curves, tap: str) -> bool:
    """Say whether a tap has a plane in every record: the logits have none."""
    fields = [[row.field.lower() for row in whole(record.rows) if row.tap == tap] for record in group]
    return all(own and not any(field.startswith("invariant") for field in own) for own in fields)
