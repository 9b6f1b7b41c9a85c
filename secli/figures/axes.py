"""Axes of a figure: scale factors on a log axis, errors on a linear or a log one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# in the order in which they are kept where there is no room for all
FACTOR_TICKS = {
    1.0: "1", 0.5: "0.5", 2.0: "2", 1 / 3: "1/3", 3.0: "3", 0.1: "0.1", 10.0: "10", 1.5: "1.5", 0.2: "0.2",
    5.0: "5", 0.7: "0.7", 0.15: "0.15",
}  # fmt: skip
CLOSEST_TICKS = 0.16  # of the axis


def factor_axis(axes: Axes, factors: Sequence[float]) -> None:
    """Set the log axis of scale factors with plain tick labels (1/3, 0.5, 0.7, 1, 1.5), as many as have room."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    low, high = min(factors), max(factors)
    span = math.log(high / low) or 1.0
    ticks: dict[float, str] = {}
    for tick, text in FACTOR_TICKS.items():
        near = any(abs(math.log(tick / other)) < CLOSEST_TICKS * span for other in ticks)
        if low / 1.01 <= tick <= high * 1.01 and not near:
            ticks[tick] = text
    if len(ticks) < 2:
        ticks = {factor: f"{factor:.3g}" for factor in sorted({low, high})}
    ticks = dict(sorted(ticks.items()))
    margin = 1.06 if low < high else 1.2
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_major_formatter(FixedFormatter(list(ticks.values())))
    axes.xaxis.set_minor_locator(NullLocator())


def error_axis(axes: Axes, values: Sequence[float], tops: Sequence[float] = (), log: bool = False) -> None:
    """Set the vertical axis of errors: linear from 0, or with ``log`` a log one, which zeros are not on.

    ``tops`` are upper ends of intervals, which shall be seen too.
    """
    light_grid(axes)
    positive = [value for value in values if value > 0]
    if not positive:
        return
    top = max([*positive, *(value for value in tops if math.isfinite(value))])
    if log:
        _log_axis(axes, min(positive), top)
    else:
        axes.set_ylim(-0.03 * top, 1.06 * top)  # a point at zero is seen whole


def mark_identity(axes: Axes) -> None:
    """Mark s = 1, where nothing is asked of a network and every error is 0."""
    across = axes.get_xaxis_transform()
    axes.vlines(1, 0, 1, transform=across, color="0.75", linewidth=0.7, linestyle=(0, (1, 2)), zorder=0)


def light_grid(axes: Axes) -> None:
    """Draw pale horizontal lines below the data."""
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def power_label(value: float) -> str:
    """Return a power of ten as a tick names it."""
    plain = 1e-3 <= value <= 1e3 or not math.log10(value).is_integer()
    return f"{value:g}" if plain else f"$10^{{{round(math.log10(value))}}}$"


def _log_axis(axes: Axes, low: float, top: float) -> None:
    """Set a log axis over the values; what is not positive is left out of it."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylim(low / 1.4, 1.4 * top)
    exponents = range(math.ceil(math.log10(low / 1.4)), math.floor(math.log10(1.4 * top)) + 1)
    step = max(1, math.ceil(len(exponents) / 6))
    ticks = [10.0**exponent for exponent in exponents[::step]]
    if len(ticks) < 2:
        ticks = [float(f"{end:.1g}") for end in (low, top)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter(list(map(power_label, ticks))))
    axes.yaxis.set_minor_locator(NullLocator())
