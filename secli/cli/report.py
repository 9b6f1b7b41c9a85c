"""``secli report``: tables, curves, heat maps and provenance of many runs in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from secli.cli.console import names, out
from secli.cli.options import Published, argument, force_option, option


def report(
    paths: Annotated[
        list[Path],
        argument(
            "RUNS...",
            "Run directories, directories that hold runs at any depth, record files, or a sweep's directory.",
        ),
    ],
    output: Annotated[
        Path,
        option(
            "Where to: .html (one file, no network needed), .md (with PNGs beside it), or a directory (report.md "
            "in it).",
            "--output",
            "-o",
            default=True,
        ),
    ] = Path("report.html"),
    title: Annotated[str | None, option("Heading.", default="the sweep's name, or the training data")] = None,
    by: Annotated[
        str | None,
        option(
            "What makes a row, comma-separated, as for 'secli compare'.",
            default="all in which the runs of a model differ",
        ),
    ] = None,
    published: Published = False,
    force: Annotated[bool, force_option("a report")] = False,
) -> None:
    """Write a report of runs: sortable tables, equivariance curves, heat maps, and where every number comes from.

    Every table and figure stands with the command that made it. The last line printed is the file to open.
    """
    from secli.provenance import command_line
    from secli.report.files import report_file, write_report
    from secli.report.gather import gather

    file = report_file(output, force)
    keys = None if by is None else list(names("--by", by))
    content = gather(paths, command_line(), title, keys, published)
    written = write_report(content, file, force)
    out("\n".join(str(path) for path in reversed(written)))
