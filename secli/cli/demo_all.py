"""``secli demo --all``: every network of the registry, trained for one epoch and measured, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secli.cli.console import note, out, terminal_width

if TYPE_CHECKING:
    from secli.sweeps.spec import Sweep

DIGITS = {"name": "digits-scale", "sizes": [200, 50, 50]}
SIDE = 96
PICTURES = {"train": 2, "val": 1, "test": 1}
"""Pictures of each of ten kinds."""
FACTORS = [1.0, 0.5]


def demo_all(directory: Path, seed: int, jobs: int, quiet: bool, names: Sequence[str] | None = None) -> None:
    """Train and measure every registered network, or those named, ``jobs`` of them at once.

    On a few digits, and on a few drawn pictures of 96×96 pixels.

    Raises
    ------
    SecliError
        When a network fails.
    """
    from secli.catalogue import MODELS
    from secli.cli.sweep import carry_out_jobs, prepare_jobs
    from secli.errors import InterruptedRunError, SecliError
    from secli.sweeps.local import LocalEngine
    from secli.sweeps.plan import plan
    from secli.sweeps.prepare_data import Sources

    chosen = list(MODELS.own) if names is None else list(names)
    large = [name for name in chosen if name.startswith("wrn_")]
    small = [name for name in chosen if name not in large]
    pictures, data = directory / "pictures", directory / "data"
    draw_pictures(pictures, seed)
    failed, folders = [], []
    for title, models, dataset, images, sources in (
        ("all-digits", small, DIGITS, 20, Sources(data)),
        ("all-pictures", large, {"name": "folder"}, 4, Sources(data, source=pictures)),
    ):
        if not models:
            continue
        sweep = _sweep(title, models, dataset, seed, images)
        if not quiet:
            note(f"{sweep.about}: {len(models)} networks")
        folder = directory / sweep.name
        runs = plan(sweep)
        _, todo = prepare_jobs(sweep, runs, runs, sources, folder, quiet, "secli demo --all")
        outcome = carry_out_jobs(todo, LocalEngine(jobs), retry_failed=True, quiet=quiet)
        if outcome.left:
            raise InterruptedRunError("repeat the command to go on")
        failed += [f"{job.model.name}: {reason}" for job, reason in outcome.failed.values()]
        folders.append(folder)
    _print(folders)
    if failed:
        raise SecliError(f"{len(failed)} networks failed, the first: {failed[0]}")


def _print(folders: Sequence[Path]) -> None:
    """Print one table: the networks on digits, then those on drawn pictures; their figures are not comparable."""
    from dataclasses import replace

    from secli.tables.compare import compare
    from secli.tables.groups import summarise
    from secli.tables.render import render

    tables = [compare(summarise([folder], by=["model", "dataset"], factors=[0.5])).main for folder in folders]
    rows = tuple(row for table in tables for row in table.rows)
    notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
    table = replace(
        tables[0], title="Every network once: one epoch of a few pictures", rows=rows, notes=notes
    )
    out(render(table, "table", terminal_width()))


def _sweep(name: str, models: list[str], dataset: dict[str, Any], seed: int, images: int) -> Sweep:
    from secli.sweeps.spec import Sweep

    return Sweep.model_validate(
        {
            "name": name,
            "about": f"One epoch of each network on {dataset['name']}",
            "models": models,
            "datasets": [dataset],
            "seeds": [seed],
            "training": {"epochs": 1, "milestones": [], "batch": 8 if dataset["name"] == "folder" else 32},
            "measure": {"factors": FACTORS, "images": images, "batch": 4, "border": 0},
        }
    )


def draw_pictures(directory: Path, seed: int) -> None:
    """Draw a folder of small colour pictures, ten kinds of polygons, unless it is there."""
    import numpy as np
    from PIL import Image, ImageDraw

    from secli.storage.writing import atomic_directory

    if directory.exists():
        return
    generator = np.random.default_rng(seed)
    with atomic_directory(directory) as temporary:
        for part, count in PICTURES.items():
            for corners in range(3, 13):
                folder = temporary / part / f"{corners:02}-corners"
                folder.mkdir(parents=True)
                for index in range(count):
                    ground, colour = (tuple(int(c) for c in generator.integers(0, 256, 3)) for _ in range(2))
                    x, y, radius, turn = (
                        int(v) for v in generator.integers((35, 35, 10, 0), (SIDE - 35, SIDE - 35, 30, 90))
                    )
                    image = Image.new("RGB", (SIDE, SIDE), ground)
                    ImageDraw.Draw(image).regular_polygon((x, y, radius), corners, turn, fill=colour)
                    image.save(folder / f"{index:02}.png")
