"""The report as one HTML file: style, script and drawings inside, nothing asked of any network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from html import escape as escape_html

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from secli.errors import printable
from secli.provenance import secli_version
from secli.report.content import FigurePart, Report
from secli.report.svg import inline_svg
from secli.tables.curve_tables import INDENT
from secli.tables.layout import BEST
from secli.tables.statistic import Statistic
from secli.tables.table import Cell, Column, Table, cell_parts

_PAUSE = re.compile(r"([_/,])(?=\w)")
SHORT = 28  # characters: words that stand on one line where there is room


def to_html(report: Report) -> str:
    """Return the report as one HTML document; all text of the records is escaped."""
    loader = _environment().loader
    assert loader is not None
    style, script = (loader.get_source(_environment(), name)[0] for name in ("style.css", "sorting.js"))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            policy=_policy(script),
            version=secli_version(),
            contents=_contents(report),
            style=Markup(style),
            script=Markup(script),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("secli.report"),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "classes": _classes,
        "drawing": _drawing,
        "goes_on": _goes_on,
        "sorted_by": _sorted_by,
        "text": _text,
    }
    return environment


def _shown(value: object) -> Markup:
    """Return what a browser shows as it reads, whatever stands in a name or a note; markup of ours stays."""
    return value if isinstance(value, Markup) else Markup(escape_html(printable(str(value))))


def _policy(script: str) -> str:
    """Return what a browser may do with the page: draw it and run its own script, known by its digest."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _contents(report: Report) -> Iterator[tuple[str, str]]:
    yield from ((part.key, part.table.title) for part in report.tables)
    yield from ((part.key, part.title) for part in report.figures)
    if report.set_aside is not None:
        yield report.set_aside.key, report.set_aside.table.title
    yield "provenance", "Provenance"


def _drawing(part: FigurePart) -> Markup:
    return Markup(inline_svg(part.draw(), part.key, f"{part.title}. {part.caption}"))


def _goes_on(table: Table, row: tuple[Cell, ...]) -> bool:
    """Whether a line has no name of its own, so that it goes on with the one above, also when rows are sorted."""
    name = row[table.shown[0]].value
    return isinstance(name, str) and (not name or name.startswith(INDENT))


def _classes(cell: Cell, column: Column) -> list[str]:
    value = cell.value.mean if isinstance(cell.value, Statistic) else cell.value
    held = {
        "text": column.text,
        "short": isinstance(value, str) and len(value) <= SHORT,
        "best": BEST in cell.mark,
        "missing": value is None,
    }
    return [name for name, holds in held.items() if holds]


def _sorted_by(cell: Cell) -> Markup:
    value = cell.value.mean if isinstance(cell.value, Statistic) else cell.value
    return Markup(f' data-value="{float(value)!r}"' if isinstance(value, int | float) else "")


def _text(cell: Cell, column: Column) -> Markup:
    """Return a cell's text: a name or a path may break where one reads a pause, a number stays on one line."""
    parts = cell_parts(cell, column)
    if column.text:
        return Markup(_PAUSE.sub(r"\1<wbr>", str(_shown(" ".join(parts)))))
    return _shown(" ".join(part.replace(" ", "\u00a0") for part in parts))
