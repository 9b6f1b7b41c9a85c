"""``secli make-data``: from raw pictures to verified dataset directories."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from secli.cli import console
from secli.cli.options import offline_option, option, out_option, quiet_option, source_option
from secli.datasets.protocols import DATASETS
from secli.errors import InputError

NAMES = ", ".join(DATASETS)
KEPT = "what was whole is kept, the same command makes the rest"


def make_data(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help=f"One of {NAMES}.")],
    realisations: Annotated[
        str | None,
        option(
            "Realisations r, the seeds of split and factors: 0, 0-5 or 0,2,4.",
            default="0; with --verify, all there are",
            metavar="LIST",
        ),
    ] = None,
    out: Annotated[Path, out_option("Where DATASET/r<k>/ are written.")] = Path("data"),
    source: Annotated[Path | None, source_option()] = None,
    offline: Annotated[bool, offline_option()] = False,
    factors: Annotated[
        tuple[float, float] | None,
        option("Range of the scale factor, uniform; below 1 shrinks.", default="0.3 1", metavar="LOW HIGH"),
    ] = None,
    sizes: Annotated[
        tuple[int, int, int] | None,
        option(
            "Images per split.", default="the protocol's (folder: 60, 10, 30 %)", metavar="TRAIN VAL TEST"
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        option(
            "Bring the raw pictures to PX×PX pixels, antialiased; larger than a network's input they are photographs "
            "with surroundings.",
            "--image-size",
            "--canvas",
            default="as they are",
            metavar="PX",
        ),
    ] = None,
    jobs: Annotated[int | None, option("Worker processes.", default="one per core", metavar="N")] = None,
    preview: Annotated[
        Path | None, option("Draw samples of the first realisation (.png, .pdf or .svg).", metavar="FILE.png")
    ] = None,
    export_to: Annotated[
        Path | None,
        option(
            "Also write pictures to DIR/DATASET/r<k>/, as <split>/<class>/<index>.png.",
            "--export-png",
            metavar="DIR",
        ),
    ] = None,
    verify: Annotated[
        bool, option("Only check what stands in --out against its digests; make nothing.", "--verify")
    ] = False,
    quiet: Annotated[bool, quiet_option("No progress.")] = False,
) -> None:
    """Make a dataset: raw pictures become verified directories.

    Each realisation r<k> is a directory OUT/DATASET/r<k>/ with images, labels
    and scale factors of train, val and test, and a manifest with the sha256 of
    every file. What stands there already is verified, not made again.

    Other parameters than the protocol's (--factors, --sizes, --image-size) give
    the dataset a folder of its own, DATASET-<hash>.

    The paths of the directories go to stdout, one per line.
    """
    from secli.datasets.build import make_dataset
    from secli.datasets.preview import check_preview_path, write_preview
    from secli.datasets.store import open_dataset
    from secli.storage.disk_space import check_file, check_writable

    spec = DATASETS[dataset]
    if preview is not None:
        check_preview_path(preview)
        check_file(preview, "--preview")
    if export_to is not None:
        check_writable(export_to)
    if verify:
        chosen = None if realisations is None else parse_realisations(realisations)
        paths = _verify(out, spec.folder(spec.parameters(factors, sizes, image_size)), chosen)
    else:
        chosen = parse_realisations("0" if realisations is None else realisations)
        with console.advice(KEPT), console.bar("images", quiet, "writing") as advance:
            results = make_dataset(
                dataset,
                out,
                chosen,
                source,
                offline,
                factors,
                sizes,
                image_size,
                jobs,
                advance,
                not quiet and sys.stderr.isatty(),
                _telling_of_waiting(quiet),
            )
        paths = [result.path for result in results]
        for text in dict.fromkeys(text for result in results for text in result.remarks):
            console.note(f"remark: {text}")
        for result in results:
            state = "made" if result.made else "complete, verified"
            console.note(f"{result.path.parent.name} {result.path.name}: {state}")
    if preview is not None:
        write_preview(open_dataset(paths[0]), preview)
        console.note(f"preview of {paths[0]}: {preview}")
    if export_to is not None:
        _export(paths, export_to, quiet, jobs)
    for path in paths:
        console.out(str(path))


def parse_realisations(text: str) -> tuple[int, ...]:
    """Read realisations: ``0``, a range ``0-5``, or a list of both, ``0,2-4``.

    Raises
    ------
    InputError
        When the text has another form, a range runs backwards, or a number comes twice.

    Examples
    --------
    >>> parse_realisations("0,2-4")
    (0, 2, 3, 4)
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", part, re.ASCII)
        if match is None:
            raise InputError(f"--realisations {text}: write a number, a range like 0-5 or a list like 0,2,4")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= 10_000:
            raise InputError(f"--realisations {text}: the range {part.strip()} runs backwards or is too long")
        numbers += range(first, last + 1)
        if len(numbers) > 10_000:
            raise InputError(f"--realisations {text}: more than 10000 realisations")
    if len(set(numbers)) < len(numbers):
        raise InputError(f"--realisations {text}: a realisation is given twice")
    return tuple(numbers)


def _verify(out: Path, folder: str, realisations: tuple[int, ...] | None) -> list[Path]:
    """Verify the realisations asked for, or all that there are of a dataset, and return their directories."""
    from secli.datasets.build import verify_dataset

    homes = [out / folder] if (out / folder).is_dir() else []
    homes += sorted(home for home in out.glob(f"{folder}-*") if re.fullmatch(r".*-[0-9a-f]{8}", home.name))
    if realisations is not None:
        paths = [home / f"r{realisation}" for home in homes[:1] for realisation in realisations]
    else:
        found = [path for home in homes for path in home.glob("r*") if re.fullmatch(r"r\d+", path.name)]
        paths = sorted(found, key=lambda path: (path.parent, int(path.name[1:])))
    if not paths:
        raise InputError(f"--verify: no realisation of {folder} in {out}; is --out right?")
    for path in paths:
        checked = verify_dataset(path)
        console.note(f"{checked.name} r{checked.realisation}: verified")
    return paths


def _export(paths: list[Path], directory: Path, quiet: bool, jobs: int | None) -> None:
    from secli.datasets.export import export_path, export_png
    from secli.datasets.store import open_dataset

    for path in paths:
        export_path(directory, path.parent.name, int(path.name[1:]))
    for path in paths:
        with console.advice(KEPT), console.bar("PNG files", quiet, "writing") as advance:
            tree = export_png(open_dataset(path), directory, advance, jobs)
        console.note(f"{path.parent.name} {path.name}: exported to {tree}")


def _telling_of_waiting(quiet: bool) -> Callable[[Path], None]:
    def tell(folder: Path) -> None:
        if not quiet:
            console.note(f"{folder}: another process is making data here; waiting for it")

    return tell
