"""Write the tables and the figure of ``docs/where-error-comes-from.md``: what canvas, levels and grid cost, untrained.

``python -m tools.where_error_page --data data/mnist/r0 > docs/where-error-comes-from.json`` measures,
``python -m tools.where_error_page --rows docs/where-error-comes-from.json --page docs/where-error-comes-from.md``
writes the page's table and the figure beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from secli.config import MeasureSettings
from secli.datasets.pictures import open_pictures
from secli.equivariance.explain import explain
from secli.figures.page import save_figure
from secli.models.building import build
from secli.records.schema import ExplainRow
from secli.storage.writing import write_text
from secli.sweeps.measure import machine
from secli.training.determinism import reproducible

BEGIN = "<!-- written by `python -m tools.where_error_page`: edit the text around it, not this -->"
END = "<!-- end of what `python -m tools.where_error_page` wrote -->"
NETWORKS = (
    "mnist_cnn_28",
    "mnist_kanazawa_28",
    "mnist_dss_vector_28",
    "mnist_ses_vector_28",
    "mnist_xu_28",
    "mnist_sevf_vector_28",
    "mnist_ss_28",
)
"""One of each family whose body is the same."""
FACTORS = (3**-0.5, 1 / 1.26)
SEEDS = (0, 1, 2)
COLUMNS = 2
"""Of the figure."""
READINGS = ("error", "with_margin", "on_lattice", "enlarged")


@dataclass(frozen=True)
class Explained:
    """The readings of one tap at one factor, means over seeds; None where a seed has no value."""

    model: str
    tap: str
    factor: float
    error: float | None
    with_margin: float | None
    on_lattice: float | None
    enlarged: float | None
    seeds: int
    images: int


def measure(data: Path, networks: Sequence[str], images: int) -> list[Explained]:
    """Return the readings of freshly drawn networks."""
    pictures = open_pictures(data, images=images)
    where = machine("cpu", 1)
    found = []
    for name in networks:
        rows = []
        for seed in SEEDS:
            with reproducible(where, strict=False):
                settings = MeasureSettings(factors=FACTORS, images=images)
                rows += explain(build(name, seed=seed).eval(), pictures.images, settings, on_black=True)
            print(f"{name}, seed {seed}", file=sys.stderr)
        for tap, factor in dict.fromkeys((row.tap, row.factor) for row in rows):
            same = [row for row in rows if (row.tap, row.factor) == (tap, factor)]
            means = {key: _mean([getattr(row, key) for row in same]) for key in READINGS}
            if means["with_margin"] is not None:
                found.append(Explained(name, tap, factor, **means, seeds=len(same), images=images))
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the readings and their differences as a markdown table."""
    lines = [
        "| network | tap | s | Δ | with a margin | canvas | between levels | grid |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    before = None
    for row in rows:
        name = str(row["model"]) if row["model"] != before else ""
        before = row["model"]
        own = {key: _number(row[key]) for key in READINGS}
        read = ExplainRow(tap=str(row["tap"]), factor=_number(row["factor"]), n=row["images"], **own)
        costs = (read.error, read.with_margin, read.canvas, read.levels, read.grid)
        cells = [f"`{name}`" if name else "", read.tap, f"{read.factor:.3f}", *map(_text, costs)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"


def draw(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Draw Δ as it stands, with a margin, and enlarged, at the smallest factor: a panel per network."""
    import matplotlib
    from matplotlib.figure import Figure

    from secli.figures.explained import bars
    from secli.figures.style import STYLE

    smallest = min(FACTORS)
    names = list(dict.fromkeys(str(row["model"]) for row in rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.1 * -(-len(names) // COLUMNS)), layout="constrained")
        axes = figure.subplots(-(-len(names) // COLUMNS), COLUMNS, squeeze=False).flatten()
        for axis in axes[len(names) :]:
            axis.set_visible(False)
        for axis, name in zip(axes, names, strict=False):
            own = [row for row in rows if row["model"] == name and row["factor"] == smallest]
            bars(axis, [(str(row["tap"]), {key: _number(row[key]) for key in READINGS}) for row in own])
            axis.set_title(name)
        for axis in axes[::COLUMNS]:
            axis.set_ylabel("Δ")
        axes[0].legend(frameon=False)
        save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or write page and figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="unscaled MNIST, as 'secli make-data mnist' writes it")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rows", type=Path, help="what was measured")
    parser.add_argument("--page", type=Path, help="the page whose table is written")
    given = parser.parse_args(arguments)
    if given.rows is None:
        rows = [asdict(row) for row in measure(given.data, given.networks, given.images)]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    rows = json.loads(given.rows.read_text(encoding="utf-8"))
    text = given.page.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    write_text(given.page, f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}")
    draw(rows, given.page.with_suffix(".png"))


if __name__ == "__main__":
    main()
