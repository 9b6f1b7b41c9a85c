"""The part of ``secli bench`` that times the making of a dataset."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median

from secli.cli.console import out, progress

REALISATIONS = tuple(range(6))


def time_data(
    dataset: str, source: Path | None, repeats: int, format: str, quiet: bool, export: bool = False
) -> None:
    """Make six realisations in a folder of the system's own, as often as asked, and print how long it took.

    With ``export`` also their trees of PNG files, as ``make-data --export-png`` writes them, and the seconds of both.
    """
    from secli.datasets.build import make_dataset
    from secli.datasets.export import export_png
    from secli.datasets.manifest import SPLITS
    from secli.datasets.protocols import DATASETS
    from secli.datasets.store import open_dataset
    from secli.provenance import command_line
    from secli.storage.writing import scratch_folder
    from secli.training.devices import cores, device_name

    name = DATASETS[dataset].name
    seconds: list[float] = []
    exported: list[float] = []
    with progress(quiet) as display, scratch_folder(Path(tempfile.gettempdir()) / "secli-bench") as folder:
        task = display.add_task(name, total=repeats, unit="rounds", detail="")
        for turn in range(repeats):
            start = time.perf_counter()
            made = make_dataset(name, folder / str(turn), REALISATIONS, source)
            seconds.append(time.perf_counter() - start)
            if export:
                for each in made:
                    export_png(open_dataset(each.path), folder / f"{turn}-png")
                exported.append(time.perf_counter() - start)
            display.update(task, completed=turn + 1)
        images = sum(len(open_dataset(each.path).split(split).labels) for each in made for split in SPLITS)
    row = {
        "data": name,
        "realisations": len(REALISATIONS),
        "images": images,
        "seconds": median(seconds),
        "repeats_s": seconds,
        "with_export_s": median(exported) if exported else None,
        "images_per_second": images / median(seconds),
        "device": device_name("cpu"),
        "jobs": cores(),
        "command": command_line(),
    }
    if format == "json":
        out(json.dumps([row], indent=1, ensure_ascii=False), "json")
        return
    out(
        f"{name}, {len(REALISATIONS)} realisations, {images} images: {median(seconds):.2f} s "
        f"({min(seconds):.2f} to {max(seconds):.2f}), {row['images_per_second']:.0f} images/s; "
        f"{row['device']}, {row['jobs']} cores"
    )
    if exported:
        out(f"with PNG export: {median(exported):.2f} s ({min(exported):.2f} to {max(exported):.2f})")
