"""How long the making of a dataset takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from secli.bench.rows import Row
from secli.bench.timing import OnProgress
from secli.datasets.build import make_dataset
from secli.datasets.export import export_png
from secli.datasets.manifest import SPLITS
from secli.datasets.protocols import DATASETS
from secli.datasets.store import open_dataset
from secli.provenance import command_line
from secli.storage.writing import scratch_folder
from secli.training.devices import cores, device_name

REALISATIONS = tuple(range(6))


def dataset_rows(
    dataset: str,
    source: Path | None = None,
    *,
    export: bool = False,
    repeats: int = 1,
    on_progress: OnProgress,
) -> list[Row]:
    """Make six realisations in a folder of the system's own, as often as asked: one row.

    With ``export`` also their trees of PNG files, as ``make-data --export-png`` writes them, and the seconds of both.
    """
    name = DATASETS[dataset].name
    seconds: list[float] = []
    exported: list[float] = []
    with scratch_folder(Path(tempfile.gettempdir()) / "secli-bench") as folder:
        for turn in range(repeats):
            start = time.perf_counter()
            made = make_dataset(name, folder / str(turn), REALISATIONS, source)
            seconds.append(time.perf_counter() - start)
            if export:
                for each in made:
                    export_png(open_dataset(each.path), folder / f"{turn}-png")
                exported.append(time.perf_counter() - start)
            on_progress(turn + 1, repeats)
        images = sum(len(open_dataset(each.path).split(split).labels) for each in made for split in SPLITS)
    return [
        {
            "data": name,
            "realisations": len(REALISATIONS),
            "images": images,
            "seconds": median(seconds),
            "repeats_s": seconds,
            "with_export_s": median(exported) if exported else None,
            "with_export_repeats_s": exported,
            "images_per_second": images / median(seconds),
            "device": device_name("cpu"),
            "jobs": cores(),
            "command": command_line(),
        }
    ]


def dataset_table(rows: Sequence[Row], width: int) -> str:
    """Return the seconds in words."""
    (row,) = rows
    seconds = row["repeats_s"]
    text = (
        f"{row['data']}, {row['realisations']} realisations, {row['images']} images: {row['seconds']:.2f} s "
        f"({min(seconds):.2f} to {max(seconds):.2f}), {row['images_per_second']:.0f} images/s; "
        f"{row['device']}, {row['jobs']} cores"
    )
    if exported := row["with_export_repeats_s"]:
        text += (
            f"\nwith PNG export: {row['with_export_s']:.2f} s ({min(exported):.2f} to {max(exported):.2f})"
        )
    return text
