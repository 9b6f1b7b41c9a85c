"""What each faster form of the layers brings to a network: its time without the form over its time with all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from secli.bench.rows import Row, TimingRequest, measured_rows, range_text, rows_table, settings_text
from secli.bench.timing import Mode, OnProgress, TimedNetwork, in_turn, ratio
from secli.layers.fast.forms import FORMS, without_forms
from secli.tables.table import Column

WIDE = 100
"""From this width of the terminal on, each form is explained after its name."""


@dataclass(frozen=True)
class FormSpeed:
    """What one form brings to one network in one mode.

    Attributes
    ----------
    model, mode
        As in :class:`secli.bench.networks.Speed`.
    form
        Which form is left out; see :data:`secli.layers.fast.forms.FORMS`.
    ratio
        Median over the rounds of the time without it over the time with all forms.
    low, high
        The lowest and the highest of the rounds.
    repeats, batch
        Rounds, and images per pass.
    noisy
        Whether the middle half of the rounds spans more than 20 % of the median.
    """

    model: str
    mode: Mode
    form: str
    ratio: float
    low: float
    high: float
    repeats: int
    batch: int
    noisy: bool


def measure_forms(
    names: Sequence[str],
    modes: Sequence[Mode] = ("train", "eval"),
    *,
    batch: int = 32,
    repeats: int = 5,
    seconds: float = 0.2,
    device: str = "cpu",
    precision: str = "32",
    image_size: int | None = None,
    on_progress: OnProgress | None = None,
) -> list[FormSpeed]:
    """Time networks with all forms and without each in turn, within the same rounds.

    Parameters
    ----------
    names, modes, batch, repeats, seconds, device, precision, image_size, on_progress
        As in :func:`secli.bench.networks.measure_speed`.

    Returns
    -------
    list of FormSpeed
        Network by network, mode by mode, form by form.
    """
    networks = [TimedNetwork(name, batch, device, image_size, precision) for name in names]
    entrants = [(network, mode) for network in networks for mode in modes]
    left_out: list[tuple[str, ...]] = [(), *((form,) for form in FORMS)]
    works = [partial(_seconds, *entrant, forms) for entrant in entrants for forms in left_out]
    times = iter(in_turn(works, repeats, seconds, on_progress))
    results = []
    for network, mode in entrants:
        whole = next(times)
        for form in FORMS:
            median, low, high, noisy = ratio(next(times), whole)
            results.append(FormSpeed(network.name, mode, form, median, low, high, repeats, batch, noisy))
    return results


def _seconds(network: TimedNetwork, mode: Mode, forms: tuple[str, ...], passes: int) -> float:
    with without_forms(*forms):
        return network.seconds(mode, passes)


def form_rows(request: TimingRequest, on_progress: OnProgress) -> list[Row]:
    """Time networks without each form on this machine: a row for each form."""
    return measured_rows(
        request,
        lambda where: measure_forms(
            request.names, request.modes, on_progress=on_progress, **request.work(where)
        ),
    )


def form_table(rows: Sequence[Row], width: int) -> str:
    """Return the rows as a table that fits a terminal."""
    columns: dict[Column, Callable[[Row], float | str | None]] = {
        Column("model", "model", text=True, whole=True): lambda row: row["model"],
        Column("mode", "mode", text=True, whole=True): lambda row: row["mode"],
        Column("form", "left out", text=True, whole=True): lambda row: row["form"],
        Column("ratio", "ratio", digits=2): lambda row: row["ratio"],
        Column("range", "low to high"): lambda row: range_text(row["low"], row["high"]),
    }
    if width >= WIDE:
        columns[Column("what", "what it is", text=True)] = lambda row: FORMS[row["form"]]
    title = f"Time without a form over time with all: {settings_text(rows[0])}"
    return rows_table(title, columns, rows, 3, width)
