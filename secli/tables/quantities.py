"""The quantities that a cell of a pivot may hold, and how each is read off a run."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from secli.errors import UnknownNameError
from secli.records.schema import TrainingResults
from secli.tables.collect import Run
from secli.tables.deltas import accuracy_at, mean_over, value_at

_AT = re.compile(r"^(delta|accuracy)_(\d*\.?\d+)$")


@dataclass(frozen=True)
class Reading:
    """Where Δ and accuracy are read: the tap, and the factors that Δ and accuracy are averaged over."""

    tap: str | None = None
    delta_factors: tuple[float, ...] = ()
    accuracy_factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Quantity:
    """One quantity.

    Attributes
    ----------
    key, title
        Name on the command line and in CSV and JSON; heading with the unit.
    read
        Its value for one run; None where there is none.
    lower_is_better
        Whether the smallest is the best; None where neither end is.
    percent, digits
        As in ``Column``.
    curves
        Whether it comes from the equivariance curves.
    """

    key: str
    title: str
    read: Callable[[Run, Reading], float | None]
    lower_is_better: bool | None
    percent: bool = False
    digits: int | None = None
    curves: bool = False

    @property
    def at_tap(self) -> bool:
        """Whether it is read at a tap: Δ, of which two values compare only where the tap is the same."""
        return self.key.startswith("delta")

    @property
    def factor(self) -> float | None:
        """The one scale factor that it is read at; None for a mean over several, and for what has none."""
        match = _AT.match(self.key)
        return float(match[2]) if match else None


def _of_results(read: Callable[[TrainingResults], float | None]) -> Callable[[Run, Reading], float | None]:
    def value(run: Run, reading: Reading) -> float | None:
        if run.training is None or run.training.results is None:
            return None
        return read(run.training.results)

    return value


def _delta(run: Run, reading: Reading) -> float | None:
    if run.curves is None or reading.tap is None:
        return None
    return mean_over(run.curves, reading.tap, reading.delta_factors)


def _accuracy(run: Run, reading: Reading) -> float | None:
    if run.curves is None:
        return None
    values = [accuracy_at(run.curves, factor) for factor in reading.accuracy_factors]
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there and len(there) == len(values) else None


def _delta_at(factor: float) -> Callable[[Run, Reading], float | None]:
    def value(run: Run, reading: Reading) -> float | None:
        return (
            None if run.curves is None or reading.tap is None else value_at(run.curves, reading.tap, factor)
        )

    return value


def _accuracy_at(factor: float) -> Callable[[Run, Reading], float | None]:
    return lambda run, reading: None if run.curves is None else accuracy_at(run.curves, factor)


def _right(results: TrainingResults) -> float | None:
    return None if results.test_error is None else 1 - results.test_error


QUANTITIES: dict[str, Quantity] = {
    each.key: each
    for each in (
        Quantity("test_error", "test error (%)", _of_results(lambda r: r.test_error), True, True, 2),
        Quantity("test_accuracy", "test accuracy (%)", _of_results(_right), False, True, 2),
        Quantity(
            "validation_error",
            "validation error (%)",
            _of_results(lambda r: r.validation_error),
            True,
            True,
            2,
        ),
        Quantity("delta", "Δ", _delta, True, curves=True),
        Quantity("accuracy", "accuracy on rescaled images (%)", _accuracy, False, True, 2, curves=True),
        Quantity("parameters", "parameters", lambda run, _: float(run.model.parameters), None, digits=0),
        Quantity("train_seconds", "training (s)", _of_results(lambda r: r.train_seconds), None),
        Quantity(
            "images_per_second",
            "training images/s",
            _of_results(lambda r: r.images_per_second),
            None,
            digits=0,
        ),
    )
}
"""The quantities by name; ``delta_S`` and ``accuracy_S`` are those at the scale factor S alone."""


def quantity(key: str, where: str = "value --value") -> Quantity:
    """Return a quantity by its name, ``delta_0.5`` and ``accuracy_0.5`` included.

    Raises
    ------
    UnknownNameError
        With the near miss.
    """
    key = "test_error" if key == "error" else key
    if key in QUANTITIES:
        return QUANTITIES[key]
    match = _AT.match(key)
    factor = float(match[2]) if match else 0.0
    if not match or not (math.isfinite(factor) and factor > 0):
        raise UnknownNameError(where, key, [*QUANTITIES, "error", "delta_0.5", "accuracy_0.5"])
    if match[1] == "delta":
        return delta_at(factor)
    return accuracy_at_factor(factor)


def delta_at(factor: float) -> Quantity:
    """Return Δ at one scale factor."""
    return Quantity(f"delta_{factor:.3g}", f"Δ({factor:.3g})", _delta_at(factor), True, curves=True)


def accuracy_at_factor(factor: float) -> Quantity:
    """Return the accuracy on images rescaled by one factor."""
    title = f"accuracy at s\u00a0=\u00a0{factor:.3g}\u00a0(%)"
    return Quantity(f"accuracy_{factor:.3g}", title, _accuracy_at(factor), False, True, 2, curves=True)


def factors_of(quantities: Sequence[Quantity]) -> tuple[float, ...]:
    """Return the factors that quantities at one factor name."""
    return tuple(dict.fromkeys(each.factor for each in quantities if each.factor is not None))
