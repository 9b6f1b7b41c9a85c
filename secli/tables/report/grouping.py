"""What makes a row where nobody says: all in which the runs of one model differ, so that none is set aside for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secli.records.identity import DRAW, MACHINE
from secli.tables.belonging import DERIVED, facts
from secli.tables.collect import Run

# no choice of an experimenter, or said by other keys already
_NEVER = {
    *DRAW,
    *MACHINE,
    *DERIVED,
    "model",
    "trained",
    "options",
    "parameters",
    "test images",
    "lossy source",
}
# what a reader looks for first
_FIRST = ("dataset", "augment", "epochs")


def telling_keys(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the grouping that keeps runs apart which differ in more than seed, realisation and machine.

    Keys are taken as long as each parts runs that the ones before did not; a key that only repeats another (the
    normalisation that follows the data set) is left out.
    """
    known = [facts(run) for run in runs]
    names = [key for key in dict.fromkeys(key for one in known for key in one) if key not in _NEVER]
    chosen = ["model"]
    if len({one["dataset"] for one in known if one["dataset"] is not None}) > 1:
        chosen.append("dataset")  # one average, or one column, must not mix data
    for key in sorted(names, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST)):
        if key not in chosen and _count(known, [*chosen, key]) > _count(known, chosen):
            chosen.append(key)
    return tuple(chosen)


def _count(known: Sequence[dict[str, Any]], keys: Sequence[str]) -> int:
    """Return how many groups the keys make; trained and fresh networks are never in one."""
    return len({(one["trained"], *(one.get(key) for key in keys)) for one in known})
