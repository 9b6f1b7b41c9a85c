"""``secli make-data``: from raw pictures to verified dataset directories."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from secli.cli import console
from secli.datasets.protocols import DATASETS
from secli.errors import InputError

NAMES = ", ".join(DATASETS)
KEPT = "what was whole is kept, the same command makes the rest"


def make_data(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help=f"One of {NAMES}.")],
    realisations: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Realisations r, the seeds of split and factors: 0, 0-5 or 0,2,4. "
            "Default: 0; with --verify, all there are.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Where DATASET/r<k>/ are written. Default: data.", show_default=False
        ),
    ] = Path("data"),
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory with the raw pictures (idx or idx.gz, torchvision's layout, class folders). "
            "Default: the cache (SECLI_CACHE), then a download.",
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never download.")] = False,
    factors: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH", help="Range of the scale factor, uniform; below 1 shrinks. Default: 0.3 1."
        ),
    ] = None,
    sizes: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            metavar="TRAIN VAL TEST", help="Images per split. Default: the protocol's (folder: 60, 10, 30 %)."
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="PX", help="Bring the raw pictures to PX×PX pixels, antialiased. Default: as they are."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Worker processes. Default: one per core.")
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw samples of the first realisation (.png, .pdf or .svg)."),
    ] = None,
    export_to: Annotated[
        Path | None,
        typer.Option(
            "--export-png",
            metavar="DIR",
            help="Also write pictures to DIR/DATASET/r<k>/, as <split>/<class>/<index>.png.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Only check what stands in --out against its digests; make nothing."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Draw no progress.")] = False,
) -> None:
    """Make a dataset: raw pictures become verified directories.

    Each realisation r<k> is a directory OUT/DATASET/r<k>/ with images, labels
    and scale factors of train, val and test, and a manifest with the sha256 of
    every file. What stands there already is verified, not made again.

    Other parameters than the protocol's (--factors, --sizes, --image-size) give
    the dataset a folder of its own, DATASET-<hash>.

    The paths of the directories go to stdout, one per line.
    """
    from secli.datasets.build import make_dataset, verify_dataset
    from secli.datasets.preview import check_preview_path
    from secli.datasets.store import open_dataset
    from secli.storage.disk_space import check_file, check_writable

    spec = DATASETS[dataset]
    if preview is not None:
        check_preview_path(preview)
        check_file(preview, "--preview")
    if export_to is not None:
        check_writable(export_to)
    if verify:
        folder = spec.folder(spec.parameters(factors, sizes, image_size))
        wanted = None if realisations is None else parse_realisations(realisations)
        paths = _standing(out, folder, wanted)
        for path in paths:
            checked = verify_dataset(path)
            console.note(f"{checked.name} r{checked.realisation}: verified")
    else:
        wanted = parse_realisations("0" if realisations is None else realisations)
        with console.advice(KEPT), _bar("images", quiet) as advance:
            show_download = not quiet and sys.stderr.isatty()
            results = make_dataset(
                dataset,
                out,
                wanted,
                source,
                offline,
                factors,
                sizes,
                image_size,
                jobs,
                advance,
                show_download,
                _telling_of_waiting(quiet),
            )
        paths = [result.path for result in results]
        for text in dict.fromkeys(text for result in results for text in result.remarks):
            console.note(f"remark: {text}")
        for result in results:
            state = "made" if result.made else "complete, verified"
            console.note(f"{result.path.parent.name} {result.path.name}: {state}")
    if preview is not None:
        from secli.datasets.preview import write_preview

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


def _standing(out: Path, folder: str, wanted: tuple[int, ...] | None) -> list[Path]:
    """Return the realisations to verify: those asked for, or all that stand under a dataset's name."""
    homes = [out / folder] if (out / folder).is_dir() else []
    homes += sorted(home for home in out.glob(f"{folder}-*") if re.fullmatch(r".*-[0-9a-f]{8}", home.name))
    if wanted is not None:
        paths = [home / f"r{realisation}" for home in homes[:1] for realisation in wanted]
    else:
        found = [path for home in homes for path in home.glob("r*") if re.fullmatch(r"r\d+", path.name)]
        paths = sorted(found, key=lambda path: (path.parent, int(path.name[1:])))
    if not paths:
        raise InputError(f"--verify: no realisation of {folder} in {out}; is --out right?")
    return paths


def _export(paths: list[Path], directory: Path, quiet: bool, jobs: int | None) -> None:
    from secli.datasets.export import export_path, export_png
    from secli.datasets.store import open_dataset

    for path in paths:
        export_path(directory, path.parent.name, int(path.name[1:]))
    for path in paths:
        with console.advice(KEPT), _bar("PNG files", quiet) as advance:
            tree = export_png(open_dataset(path), directory, advance, jobs)
        console.note(f"{path.parent.name} {path.name}: exported to {tree}")


def _telling_of_waiting(quiet: bool) -> Callable[[Path], None]:
    def tell(folder: Path) -> None:
        if not quiet:
            console.note(f"{folder}: another process is making data here; waiting for it")

    return tell


@contextmanager
def _bar(unit: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Give a progress callback; its bar appears with the first call, so that it never meets a download's."""
    with ExitStack() as stack:
        display: Any = None
        task: Any = None

        def advance(done: int, total: int) -> None:
            nonlocal display, task
            if display is None:
                display = stack.enter_context(console.progress(quiet))
                task = display.add_task("writing", total=total, unit=unit, detail="")
            display.update(task, completed=done)

        yield advance
