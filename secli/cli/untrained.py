"""``secli untrained``: Δ of freshly drawn networks, every family beside the plain one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secli.cli.console import out, progress
from secli.cli.limits import COUNT, MOST, ROUNDS, THREADS

if TYPE_CHECKING:
    from secli.sweeps.untrained import Untrained

KEYS = {"model", "variant", "tap", "field", "factor", "mean", "low", "high", "compared", "seeds", "images"}


def untrained(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Networks of the registry. \\[default: all that take small grey pictures, then the options that "
            "something is expected of]",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Unscaled pictures to measure on, of one channel.", show_default=False)
    ] = None,
    images: Annotated[int, typer.Option(**COUNT, help="Pictures, from the first.")] = 200,
    large_images: Annotated[
        int | None,
        typer.Option(
            **COUNT, help="Pictures for networks that enlarge them to 56×56.", show_default="--images"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(**ROUNDS, help="Seeds 0 to SEEDS − 1.")] = 3,
    border: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=MOST,
            help="Pixels left out along the edges of picture and canvas.",
            show_default="0 for pictures on black",
        ),
    ] = None,
    rows: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Print what --format json gave, measuring nothing.", show_default=False
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the markdown between the markers of this page."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    threads: Annotated[int, typer.Option(**THREADS, help="CPU threads; 0: one per core.")] = 0,
    format: Annotated[str, typer.Option(metavar="markdown|json", help="What is printed.")] = "markdown",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Measure untrained networks: what an architecture promises before it has learned anything."""
    import json

    from secli.config import MeasureSettings, validated
    from secli.errors import InputError
    from secli.provenance import command_line
    from secli.storage.disk_space import check_file
    from secli.storage.writing import write_text
    from secli.tables.untrained import block, replaced

    if format not in ("markdown", "json"):
        raise InputError(f"--format {format}: known: markdown, json")
    if border is not None:
        validated(MeasureSettings, {"border": border}, "--border")  # not every version of typer refuses nan
    if (data is None) == (not rows):
        raise InputError("--data or --rows: give the pictures to measure on, or what was measured")
    if page is not None:
        check_file(page, "--page")
    if rows:
        found = [row for file in rows for row in _read(file)]
    else:
        assert data is not None
        found = _measure(
            models or [], data, images, large_images or images, seeds, border, device, threads, quiet
        )
    if page is not None:
        try:
            text = replaced(page.read_text(encoding="utf-8"), block(found, command_line()))
        except ValueError as error:
            raise InputError(f"--page {page}: {error}") from None
        write_text(page, text)
    elif format == "json":
        out(json.dumps(found, indent=1, ensure_ascii=False), "json")
    else:
        out(block(found, command_line()))


def _read(file: Path) -> list[dict[str, Any]]:
    import json

    from secli.errors import InputError

    try:
        found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        if not found or any(KEYS - row.keys() for row in found):
            raise TypeError
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"--rows {file}: is not what 'secli untrained --format json' prints") from None
    return found


def wanted_networks(models: list[str]) -> list[Untrained]:
    """Return what is measured: the networks named, or all that take small grey pictures and their options."""
    from secli.catalogue import MODELS
    from secli.sweeps.untrained import VARIANTS, Untrained

    if models:
        return [Untrained(MODELS[name].name) for name in models]
    return [*(Untrained(name) for name in MODELS.own if _small(name)), *VARIANTS]


def _small(name: str) -> bool:
    """Say whether a network is meant for small grey pictures, rather than for photographs."""
    return not name.startswith("wrn_") and not name.endswith("resnet50")


def _measure(
    models: list[str],
    data: Path,
    images: int,
    large: int,
    seeds: int,
    border: float | None,
    device: str,
    threads: int,
    quiet: bool,
) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from secli.datasets.pictures import open_pictures
    from secli.sweeps.measure import machine
    from secli.sweeps.untrained import measure_untrained
    from secli.training.determinism import reproducible

    wanted = wanted_networks(models)
    pictures = open_pictures(data, images=max(images, large))
    where = machine(device, threads)
    found = []
    with progress(quiet) as display, reproducible(where, strict=False):
        task = display.add_task("", total=len(wanted), unit="networks", detail="")
        for done, each in enumerate(wanted):
            display.update(task, description=f"{each.model} {each.said}".strip(), completed=done)
            count = large if "_56" in each.model else images
            found += measure_untrained(
                [each],
                pictures.images[:count],
                seeds=range(seeds),
                border=border,
                on_black=pictures.on_black,
                device=where.device,
            )
    return [asdict(row) for row in found]
