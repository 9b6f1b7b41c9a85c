"""The report as one HTML file: style, script and drawings inside, nothing asked of any network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape as escape_html
from importlib.resources import files
from string import Template

from secli.errors import printable
from secli.provenance import secli_version
from secli.report.content import FigurePart, Origin, Report, TablePart
from secli.report.svg import inline_svg
from secli.tables.curve_tables import INDENT
from secli.tables.layout import BEST
from secli.tables.statistic import Statistic
from secli.tables.table import Cell, Column, Table, cell_parts

_PAUSE = re.compile(r"([_/,])(?=\w)")
SHORT = 28  # characters: words that stand on one line where there is room
NUMBERS = "The numbers as tables"


def escape(text: str) -> str:
    """Return text that a browser shows as it reads, whatever stands in a name or a note."""
    return escape_html(printable(text))


def to_html(report: Report) -> str:
    """Return the report as one HTML document; all text of the records is escaped."""
    room = files("secli.report") / "templates"
    script = (room / "sorting.js").read_text(encoding="utf-8")
    sections = [
        *(_table_section(part) for part in report.tables),
        *(_figure_section(part, report.command) for part in report.figures),
        *([_table_section(report.set_aside)] if report.set_aside is not None else []),
    ]
    return Template((room / "page.html").read_text(encoding="utf-8")).substitute(
        policy=escape(_policy(script)),
        version=escape(secli_version()),
        title=escape(report.title),
        style=(room / "style.css").read_text(encoding="utf-8"),
        lead="\n".join(f'<p class="lead">{escape(sentence)}</p>' for sentence in report.lead),
        contents="\n".join(
            f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title in _contents(report)
        ),
        main="\n".join(sections),
        provenance=_provenance(report.origin, report.command),
        script=script,
    )


def _policy(script: str) -> str:
    """Return what a browser may do with the page: draw it and run its own script, known by its digest."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _contents(report: Report) -> Iterable[tuple[str, str]]:
    yield from ((part.key, part.table.title) for part in report.tables)
    yield from ((part.key, part.title) for part in report.figures)
    if report.set_aside is not None:
        yield report.set_aside.key, report.set_aside.table.title
    yield "provenance", "Provenance"


def _table_section(part: TablePart) -> str:
    return "\n".join(
        [
            f'<section id="{part.key}">',
            f"<h2>{escape(part.table.title)}</h2>",
            table_html(part.table, sortable=len(part.table.rows) > 1),
            _commands("Made by", [part.command] if part.command else []),
            "</section>",
        ]
    )


def _figure_section(part: FigurePart, command: str) -> str:
    svg = inline_svg(part.draw(), part.key, f"{part.title}. {part.caption}")
    tables = [
        f"<h3>{escape(table.title)}</h3>\n{table_html(table, sortable=False)}" for table in part.numbers
    ]
    numbers = f"<details><summary>{NUMBERS}</summary>\n{''.join(tables)}\n</details>" if tables else ""
    return "\n".join(
        [
            f'<section id="{part.key}">',
            f"<h2>{escape(part.title)}</h2>",
            "<figure>",
            f'<div class="plot" tabindex="0" role="region" aria-label="{escape(part.title)}">{svg}</div>',
            f"<figcaption>{escape(part.caption)}</figcaption>",
            "</figure>",
            _commands("Drawn by", [command]),
            _commands("Measured by", part.measured_by),
            numbers,
            "</section>",
        ]
    )


def table_html(table: Table, sortable: bool) -> str:
    """Return a table in a box of its own that scrolls, with its notes below.

    Each number stands in ``data-value`` unrounded, a fraction as a fraction: that is what is sorted by.
    """
    shown = table.shown
    columns = [table.columns[index] for index in shown]
    heads = "".join(f'<th scope="col"{_css(column.text)}>{escape(column.title)}</th>' for column in columns)
    lines = []
    for row in table.rows:
        cells = [
            _cell(row[index], table.columns[index], "th" if place < table.heads else "td")
            for place, index in enumerate(shown)
        ]
        # a line without a name of its own goes on with the one above, also when rows are sorted
        name = row[shown[0]].value
        more = ' class="more"' if isinstance(name, str) and (not name or name.startswith(INDENT)) else ""
        lines.append(f"<tr{more}>{''.join(cells)}</tr>")
    css = ' class="sortable"' if sortable else ""
    body = (
        f"<table{css}>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody>\n</table>"
    )
    box = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">{body}</div>'
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return box + (f'\n<ul class="notes">{notes}</ul>' if notes else "")


def _cell(cell: Cell, column: Column, tag: str) -> str:
    text = _breakable(escape(" ".join(_whole(part, column) for part in cell_parts(cell, column))), column)
    value = cell.value.mean if isinstance(cell.value, Statistic) else cell.value
    short = ["short"] if isinstance(value, str) and len(value) <= SHORT else []
    best = ["best"] if BEST in cell.mark else []
    classes = [*(["text"] if column.text else []), *short, *best, *(["missing"] if value is None else [])]
    number = f' data-value="{float(value)!r}"' if isinstance(value, int | float) else ""
    scope = ' scope="row"' if tag == "th" else ""
    return f"<{tag}{scope}{_class(classes)}{number}>{text}</{tag}>"


def _whole(part: str, column: Column) -> str:
    """Keep a number on one line (34 670, ± 0.07)."""
    return part if column.text else part.replace(" ", "\u00a0")


def _breakable(text: str, column: Column) -> str:
    """Let a name or a path break where one reads a pause, instead of anywhere."""
    return _PAUSE.sub(r"\1<wbr>", text) if column.text else text


def _css(text: bool) -> str:
    return _class(["text"] if text else [])


def _class(names: Sequence[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""


def _commands(said: str, commands: Sequence[str]) -> str:
    if not commands:
        return ""
    listed = "<br>".join(f"<code>{escape(command)}</code>" for command in commands)
    return f'<p class="command">{said} {listed}</p>'


def _provenance(origin: Origin, command: str) -> str:
    facts = "\n".join(
        f"<dt>{escape(fact.name)}</dt><dd>{'<br>'.join(map(escape, fact.values))}</dd>"
        for fact in origin.facts
    )
    mixes = "".join(f"<li>{escape(sentence)}</li>" for sentence in origin.mixes)
    commands = "".join(f"<li><code>{escape(line)}</code></li>" for line in origin.commands)
    return "\n".join(
        [
            "<h2>Provenance</h2>",
            f'<ul class="mixes">{mixes}</ul>' if mixes else "",
            f"<dl>\n{facts}\n</dl>",
            _commands(f"Report written by secli {escape(secli_version())}:", [command]),
            f"<details><summary>Commands that trained and measured</summary><ul>{commands}</ul></details>",
            f"<details><summary>{escape(origin.runs.title)} ({len(origin.runs.rows)})</summary>",
            table_html(origin.runs, sortable=len(origin.runs.rows) > 1),
            "</details>",
        ]
    )
