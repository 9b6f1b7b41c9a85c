"""From the paths that a user names to the content of a report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from secli.errors import InputError
from secli.records.schema import SWEEP_FILE, SweepRecord, read_sweep_record
from secli.tables.aggregate import Summary, summarise, trained_words
from secli.tables.collect import SetAside, collect
from secli.tables.comparison import compare
from secli.tables.published import load_published
from secli.tables.report.content import Report, TablePart
from secli.tables.report.drawing import figures
from secli.tables.report.grouping import telling_keys
from secli.tables.report.origin import origin
from secli.tables.sweep import sweep_tables

ASIDE_TITLE = "Set aside, with the reason"


def gather(
    paths: Sequence[Path],
    command: str,
    title: str | None = None,
    by: Sequence[str] | None = None,
    published: bool = False,
) -> Report:
    """Read runs, results and sweeps, and lay out what a report says of them.

    Parameters
    ----------
    paths : sequence of Path
        Run directories, directories that hold runs, record files, directories of sweeps.
    command : str
        The command that writes the report.
    title : str, optional
        Its heading; by default the sweep's name, else what the networks were trained on.
    by : sequence of str, optional
        What makes a row; by default all in which the runs of one model differ.
    published : bool
        Whether published figures stand beside the measured ones.

    Raises
    ------
    InputError
        On no paths, a path without a record, a damaged record, an unknown grouping, or when nothing is left.
    """
    if not paths:
        raise InputError("no runs given: name run directories, directories that hold runs, or a sweep's")
    damaged: list[SetAside] = []
    sweeps = _sweeps(paths, damaged)
    runs, _ = collect(paths)
    keys = tuple(by) if by is not None else telling_keys(runs)
    summary = summarise(paths, keys)
    # of a damaged sweep with runs, the summary knows already
    summary = replace(summary, set_aside=tuple(dict.fromkeys((*summary.set_aside, *damaged))))
    comparison = compare(summary, load_published() if published else None, accuracy=True)
    again = _compare_command(paths, summary, published)
    main = [*_sweep_parts(sweeps), TablePart("comparison", comparison.main, again)]
    main += [TablePart(f"table-{n}", table, again) for n, table in enumerate(comparison.others, start=1)]
    aside = comparison.set_aside
    return Report(
        title=title or _title(summary, sweeps),
        lead=tuple(_lead(summary, sweeps)),
        command=command,
        tables=tuple(main),
        figures=tuple(figures(summary.rows, [sweep.command for _, sweep in sweeps])),
        set_aside=None if aside is None else TablePart("set-aside", aside, again),
        origin=origin(runs),
    )


def _sweeps(paths: Sequence[Path], aside: list[SetAside]) -> list[tuple[Path, SweepRecord]]:
    """Return the sweeps that the paths are, or hold at any depth; a damaged one below a path is set aside."""
    found: dict[Path, SweepRecord] = {}
    for path in paths:
        if not path.is_dir():
            continue
        for file in sorted(path.rglob(SWEEP_FILE)):
            if any(part.startswith(".") for part in file.relative_to(path).parts):
                continue
            try:
                record = read_sweep_record(file.parent)
            except InputError as error:
                aside.append(SetAside(str(file), str(error).removeprefix(f"{file}: ")))
                continue
            if record is not None:
                found.setdefault(file.parent, record)
    return list(found.items())


def _sweep_parts(sweeps: Sequence[tuple[Path, SweepRecord]]) -> list[TablePart]:
    """Return the tables that the sweeps' files name; one that names none ends in the comparison, which follows."""
    parts: list[TablePart] = []
    for directory, record in sweeps:
        if not record.tables:
            continue
        try:
            tables = sweep_tables(directory)
        except InputError:  # nothing is finished yet: the lead says how many runs are planned
            continue
        for table in tables:
            if table.title == ASIDE_TITLE:
                table = replace(table, title=f"Set aside from the tables of the sweep {record.name}")
            parts.append(TablePart(f"sweep-{len(parts) + 1}", table, record.command))
    return parts


def _compare_command(paths: Sequence[Path], summary: Summary, published: bool) -> str:
    by = ["--by", ",".join(summary.by)] if len(summary.by) > 1 else []
    more = [*by, *(["--published"] if published else []), "--accuracy"]
    return shlex.join(["secli", "compare", *map(str, paths), *more])


def _title(summary: Summary, sweeps: Sequence[tuple[Path, SweepRecord]]) -> str:
    if sweeps:
        return "Sweep " + ", ".join(dict.fromkeys(record.name for _, record in sweeps))
    words = trained_words(summary.rows)
    trained = any(row.data is not None for row in summary.rows)
    return words[0].upper() + words[1:] if trained else "Untrained networks under change of scale"


def _lead(summary: Summary, sweeps: Sequence[tuple[Path, SweepRecord]]) -> list[str]:
    runs = sum(row.n for row in summary.rows)
    models = len({row.model for row in summary.rows})
    said = [
        record.about[:1].upper() + record.about[1:].rstrip(".") + "." for _, record in sweeps if record.about
    ]
    for _, record in sweeps:
        said.append(f"'{record.command}' planned {len(record.runs)} runs ({record.name}).")
    count = f"{runs} {'run' if runs == 1 else 'runs'} of {models} {'model' if models == 1 else 'models'}"
    rows = f" in {len(summary.rows)} rows" if len(summary.rows) != models else ""
    aside = f"; {len(summary.set_aside)} set aside, with the reason below" if summary.set_aside else ""
    return [*said, f"{count}{rows}{aside}."]
