"""The report as markdown, with its figures as PNGs beside it, for a repository."""

from __future__ import annotations

import re
from collections.abc import Sequence

from secli.errors import printable
from secli.provenance import secli_version
from secli.report.content import FigurePart, Report, ReportProvenance, TablePart
from secli.tables.render.markdown import markdown
from secli.tables.table import Table

# what markdown, and the HTML that it allows, would read as markup
_MARKUP = re.compile(r"([\\`*_\[\]<>|])")


def to_markdown(report: Report, pictures: Sequence[str]) -> str:
    """Return the report as markdown; ``pictures`` are the files of its figures, as they are linked to."""
    parts = [f"# {plain(report.title)}", *map(plain, report.lead)]
    parts += [_table(part) for part in report.tables]
    parts += [_figure(part, file, report) for part, file in zip(report.figures, pictures, strict=True)]
    parts += [_table(report.set_aside)] if report.set_aside is not None else []
    numbers = [table for part in report.figures for table in part.numbers]
    if numbers:
        parts += ["## The numbers behind the figures", *map(_rendered, numbers)]
    parts += [_provenance(report.origin, report.command)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def plain(text: str) -> str:
    """Return text that markdown shows as it is.

    Examples
    --------
    >>> plain("dss_v1 <b>")
    'dss\\\\_v1 \\\\<b\\\\>'
    """
    return _MARKUP.sub(r"\\\1", printable(text.replace("\n", " ")))


def _table(part: TablePart) -> str:
    made = f"\n\nMade by {code(part.command)}" if part.command else ""
    return f"## {plain(part.table.title)}\n\n{_rendered(part.table, title=False)}{made}"


def _figure(part: FigurePart, file: str, report: Report) -> str:
    lines = [f"Drawn by {code(report.command)}"]
    lines += [f"Measured by {', '.join(map(code, part.measured_by))}"] if part.measured_by else []
    return "\n\n".join(
        [
            f"## {plain(part.title)}",
            f"![{plain(part.title)}](<{file}>)",
            plain(part.caption),
            "<br>\n".join(lines),
        ]
    )


def _rendered(table: Table, title: bool = True) -> str:
    """Write a table whose words markdown shows as they are."""
    text = markdown(table, plain).rstrip("\n")
    return text if title else text.split("\n\n", 1)[1]


def code(text: str) -> str:
    """Return text as code, fenced by more backticks than it holds in a row."""
    text = printable(text.replace("\n", " "))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _provenance(origin: ReportProvenance, command: str) -> str:
    facts = [f"- {plain(fact.name)}: {'; '.join(map(plain, fact.values))}" for fact in origin.facts]
    commands = "\n".join(f"- {code(line)}" for line in origin.commands)
    return "\n\n".join(
        [
            "## Provenance",
            *([" ".join(map(plain, origin.mixes))] if origin.mixes else []),
            "\n".join(facts),
            f"Report written by secli {plain(secli_version())}: {code(command)}",
            f"Commands that trained and measured:\n\n{commands}",
            _rendered(origin.runs),
        ]
    )
