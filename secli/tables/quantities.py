"""The quantities that a cell may hold, and how each is read off a run."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from secli.errors import UnknownNameError
from secli.tables.collect import Run
from secli.tables.readings import ReadAt, accuracy_at, mean_over, value_at
from secli.tables.statistic import mean_of_all

Read = Callable[[Run, ReadAt], float | None]

_AT = re.compile(r"^(delta|accuracy)_(\d*\.?\d+)$")


@dataclass(frozen=True)
class Quantity:
    """One quantity: its name on the command line and in CSV and JSON, its heading, and how it is read off a run.

    ``lower_is_better`` is None where neither end is the best, ``percent`` and ``digits`` are as in ``Column``, and
    ``curves`` tells whether it comes from the equivariance curves.
    """

    key: str
    title: str
    read: Read
    lower_is_better: bool | None
    percent: bool = False
    digits: int | None = None
    curves: bool = False

    @property
    def at_tap(self) -> bool:
        """Whether it is Δ at the tap of its row, of which two values compare only at one depth."""
        return self.key.startswith("delta") and self.key != "delta_logits"

    @property
    def factor(self) -> float | None:
        """The one scale factor that it is read at; None for a mean over several, and for what has none."""
        match = _AT.match(self.key)
        return float(match[2]) if match else None


def _result(name: str) -> Read:
    def read(run: Run, at: ReadAt) -> float | None:
        results = run.training.results if run.training is not None else None
        value: float | None = getattr(results, name, None)
        return value

    return read


def _right(run: Run, at: ReadAt) -> float | None:
    error = _result("test_error")(run, at)
    return None if error is None else 1 - error


def _delta(run: Run, at: ReadAt) -> float | None:
    if run.curves is None or at.tap is None:
        return None
    return mean_over(run.curves, at.tap, at.mean_factors)


def _delta_logits(run: Run, at: ReadAt) -> float | None:
    return None if run.curves is None else mean_over(run.curves, "logits", at.mean_factors)


def _accuracy(run: Run, at: ReadAt) -> float | None:
    if run.curves is None:
        return None
    return mean_of_all([accuracy_at(run.curves, factor) for factor in at.accuracy_factors])


QUANTITIES: dict[str, Quantity] = {
    each.key: each
    for each in (
        Quantity("test_error", "test error (%)", _result("test_error"), True, True, 2),
        Quantity("test_accuracy", "test accuracy (%)", _right, False, True, 2),
        Quantity("validation_error", "validation error (%)", _result("validation_error"), True, True, 2),
        Quantity("delta", "Δ", _delta, True, curves=True),
        Quantity("delta_logits", "Δ logits", _delta_logits, True, curves=True),
        Quantity("accuracy", "accuracy on rescaled images (%)", _accuracy, False, True, 2, curves=True),
        Quantity("parameters", "parameters", lambda run, _: float(run.model.parameters), None, digits=0),
        Quantity("train_seconds", "training (s)", _result("train_seconds"), None),
        Quantity("images_per_second", "training images/s", _result("images_per_second"), None, digits=0),
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
    return delta_at(factor) if match[1] == "delta" else accuracy_at_factor(factor)


def delta_at(factor: float) -> Quantity:
    """Return Δ at one scale factor."""

    def read(run: Run, at: ReadAt) -> float | None:
        if run.curves is None or at.tap is None:
            return None
        return value_at(run.curves, at.tap, factor)

    return Quantity(f"delta_{factor:.3g}", f"Δ({factor:.3g})", read, True, curves=True)


def accuracy_at_factor(factor: float) -> Quantity:
    """Return the accuracy on images rescaled by one factor."""

    def read(run: Run, at: ReadAt) -> float | None:
        return None if run.curves is None else accuracy_at(run.curves, factor)

    title = f"accuracy at s\u00a0=\u00a0{factor:.3g}\u00a0(%)"
    return Quantity(f"accuracy_{factor:.3g}", title, read, False, True, 2, curves=True)


def factors_of(quantities: Sequence[Quantity]) -> tuple[float, ...]:
    """Return the factors that quantities at one factor name."""
    return tuple(dict.fromkeys(each.factor for each in quantities if each.factor is not None))
