"""Published figures as they stand beside a cell of a pivot: the same quantity, and what departs from its setting."""

from __future__ import annotations

from dataclasses import dataclass

from secli.tables.groups import Row
from secli.tables.paired_tests import standard_errors
from secli.tables.published import Figure, Published, reported
from secli.tables.quantities import Quantity
from secli.tables.readings import same_factor
from secli.tables.statistic import Statistic


@dataclass(frozen=True)
class Beside:
    """One published figure beside a measured value.

    Attributes
    ----------
    kind
        ``paper``, ``reproduction``, ``citation`` or ``code``.
    statistic
        The figure; n is 0 where nobody said it.
    departures
        In what the measured runs depart from its setting.
    source, protocol
        Where it was printed, and how it was measured.
    """

    kind: str
    statistic: Statistic
    departures: tuple[str, ...]
    source: str
    protocol: str

    def difference(self, ours: Statistic) -> float | None:
        """Return (ours − theirs) in standard errors; None where one of them has none."""
        theirs = self.statistic
        if ours.mean is None or theirs.mean is None:
            return None
        return standard_errors(ours.mean, ours.std, ours.n, theirs.mean, theirs.std, theirs.n)


def beside(row: Row, quantity: Quantity, published: Published | None) -> tuple[Beside, ...]:
    """Return the figures of a quantity that may stand beside a row, the first of each kind."""
    found: dict[str, Beside] = {}
    for entry in reported(row, published) if published is not None else ():
        value = _value(entry.figure, quantity)
        if value is None:
            continue
        note = ""
        if entry.figure.uncertainty:
            note = f", read off {entry.figure.place}, ±{entry.figure.uncertainty:g}"
        figure = Statistic(value, entry.figure.std, entry.protocol.realisations or 0)
        found.setdefault(
            entry.source.kind,
            Beside(
                entry.source.kind,
                figure,
                entry.departures,
                entry.source.text + note,
                entry.protocol.description,
            ),
        )
    return tuple(found.values())


def _value(figure: Figure, quantity: Quantity) -> float | None:
    """Return the figure as the quantity, where it is one; error and accuracy are each other's complement."""
    if figure.value is not None and quantity.key in ("test_error", "test_accuracy"):
        return figure.value if figure.metric == quantity.key.replace("test_acc", "acc") else 1 - figure.value
    if figure.metric == "accuracy" and quantity.key.startswith("accuracy_") and quantity.factor is not None:
        near = [value for s, value in figure.by_factor.items() if same_factor(s, quantity.factor)]
        return near[0] if near else None
    return None
