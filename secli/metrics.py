"""The errors that can be measured: a line each, with the formula and what tables and figures call it.

A formula uses the methods of tensors alone, so that tables and figures know every metric without importing torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from secli.plugins import offered
from secli.registry import Registry

GROUP = "secli.metrics"


class Norms(Protocol):
    """Squared Frobenius norms of each image at one tap and factor, over the cells that are compared: tensors (N,)."""

    @property
    def difference(self) -> Any:
        """‖Φ(L_s f) − L_sΦ(f)‖²."""

    @property
    def expected(self) -> Any:
        """‖L_sΦ(f)‖²."""

    @property
    def actual(self) -> Any:
        """‖Φ(L_s f)‖², of a metric that says it ``needs_actual``."""


@dataclass(frozen=True)
class Metric:
    """One way to make a number of L_sΦ(f) and Φ(L_s f).

    Parameters
    ----------
    name : str
        As ``--metric`` and records have it.
    value : callable
        From the squared norms of each image to its error; 0 is perfect.
    title : str
        Above a table of it.
    words : str
        What it is relative to, inside a sentence.
    axis : str
        Along an axis of a figure; ``$…$`` is a formula.
    unit : str
        Its unit, or that it has none.
    symbol : str
        Above a colour bar.
    needs_actual : bool
        Whether the formula reads ‖Φ(L_s f)‖², which costs a pass over the features.
    """

    name: str
    value: Callable[[Norms], Any]
    title: str
    words: str
    axis: str
    unit: str = "no unit"
    symbol: str = "error"
    needs_actual: bool = False


def _offered(name: str, package: str, value: str, loaded: object) -> Metric:
    if not isinstance(loaded, Metric) or loaded.name != name:
        raise ValueError(f"it is not a secli.metrics.Metric of the name '{name}'")
    return loaded


METRICS = Registry(
    "metric",
    [
        Metric(
            "squared",
            lambda norms: norms.difference / norms.expected,
            title="Equivariance error Δ_s (squared, relative to ‖L_sΦ(f)‖²)",
            words="squared, relative to ‖L_sΦ(f)‖²",
            axis="equivariance error $\\Delta_s$",
            symbol="$\\Delta_s$",
        ),
        Metric(
            "relative",
            lambda norms: (norms.difference / norms.expected).sqrt(),
            title="Equivariance error (relative to ‖L_sΦ(f)‖)",
            words="relative to ‖L_sΦ(f)‖",
            axis="relative error",
        ),
        Metric(
            "absolute",
            lambda norms: norms.difference.sqrt(),
            title="Equivariance error ‖L_sΦ(f) − Φ(L_s f)‖",
            words="absolute",
            axis="absolute error",
            unit="in units of the features",
        ),
    ],
    others=lambda: offered(GROUP, _offered),
)
