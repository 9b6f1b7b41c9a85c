"""Tables in LaTeX with booktabs: they compile as they stand, whatever stands in a name or a note."""

from __future__ import annotations

import re
from collections.abc import Sequence

from secli.tables.render.columns import Laid, blocks
from secli.tables.table import Cell, Table, cell_parts

# A line of an article holds about this many characters of small type; one is about this many em wide.
PAGE_WIDTH = 74
CHARACTER = 0.5

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_\allowbreak{}",
    "{": r"\{",
    "}": r"\}",
    "/": r"/\allowbreak{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",  # a straight one needs another font encoding
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "Φ": r"$\Phi$",
    "σ": r"$\sigma$",
    "‖": r"$\|$",
    "−": r"$-$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "≈": r"$\approx$",
    "α": r"$\alpha$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "√": r"$\surd$",
    "²": r"$^2$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    "—": "\0-",
    "–": "\0",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "°": r"$^\circ$",
    "\u00a0": "~",
    "\u202f": r"\,",
}
_SYMBOL = re.compile(r"(?<![A-Za-z0-9_])(Δ|L)_s(?![A-Za-z0-9_])")
_SCIENTIFIC = re.compile(r"^(-?\d+(?:\.\d+)?)e(-?)0*(\d+)$")


def escape(text: str) -> str:
    """Return text that LaTeX prints as it reads; what pdfLaTeX cannot print is named by its code point.

    Examples
    --------
    >>> escape("50 % ± 1")
    '50 \\\\% $\\\\pm$ 1'
    """
    # two hyphens would be set as a dash
    parts = _SYMBOL.split(text)  # every second part is Δ or L, whose index s stood behind it
    escaped = "".join(
        f"${'L' if part == 'L' else chr(92) + 'Delta'}_s$"
        if index % 2
        else "".join(_character(character) for character in part)
        for index, part in enumerate(parts)
    )
    return re.sub("-(?=-)", "-{}", escaped).replace("\0", "--")


def latex(table: Table) -> str:
    """Write a ``table`` environment with booktabs rules, its notes set small below.

    Columns that would run over the page stand in a second ``tabular`` that repeats those that name the row.
    """
    lines = ["% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering", "\\small"]
    lines += ["\\setlength{\\tabcolsep}{4pt}", f"\\caption{{{escape(table.title)}}}", "\\smallskip"]
    for number, block in enumerate(blocks(table, PAGE_WIDTH, stack=False)):
        lines += ["", "\\medskip"] if number else []
        lines.append(_tabular(table, block))
    if table.notes:
        lines += ["", "\\medskip", "\\begin{minipage}{\\linewidth}", "\\footnotesize\\raggedright"]
        lines += [f"{escape(note)}\\par" for note in table.notes]
        lines += ["\\end{minipage}"]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _tabular(table: Table, block: Sequence[Laid]) -> str:
    from pandas import DataFrame

    cells = [[_set(laid, row[laid.index]) for laid in block] for row in table.rows]
    style = DataFrame(cells, columns=range(len(block)), dtype=object).style.hide(axis="index")
    # pandas reads a label as a format
    headings = [_heading(laid).replace("{", "{{").replace("}", "}}") for laid in block]
    style = style.relabel_index(headings, axis="columns")
    columns = "".join("l" if laid.column.text else "r" for laid in block)
    return str(style.to_latex(column_format=columns, hrules=True)).rstrip("\n")


def _set(laid: Laid, cell: Cell) -> str:
    """Set one cell; words that the layout wrapped stand in a box of the width that they were given."""
    text = " ".join(_cell(part) for part in cell_parts(cell, laid.column))
    if not any(len(lines) > 1 for lines in laid.cells):
        return text
    # as the layout, LaTeX may break a name behind a dot
    text = text.replace(".", ".\\allowbreak{}")
    return f"\\parbox[t]{{{CHARACTER * laid.width:.1f}em}}{{\\raggedright {text}\\strut}}"


def _heading(laid: Laid) -> str:
    lines = [escape(line) for line in laid.heading]
    if len(lines) == 1:
        return lines[0]
    stacked = " \\\\ ".join(lines)
    return f"\\shortstack[{'l' if laid.column.text else 'r'}]{{\\strut {stacked}}}"


def _cell(part: str) -> str:
    """Escape a part of a cell, numbers as numbers (a space between digit groups, powers of ten)."""
    sign, text = ("$\\pm$ ", part[2:]) if part.startswith("± ") else ("", part)
    match = _SCIENTIFIC.match(text)
    if match:
        return f"{sign}${match[1]} \\times 10^{{{match[2]}{match[3]}}}$"
    if re.fullmatch(r"\d{1,3}( \d{3})+", text):
        return sign + text.replace(" ", "\\,")
    return sign + escape(text)


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character == "\n" or character == "\t":
        return " "
    if " " <= character <= "~":
        return character
    # Latin letters with accents are in pdfLaTeX's default input encoding
    if character.isalpha() and "\u00c0" <= character <= "\u017f":
        return character
    return f"[U+{ord(character):04X}]"
