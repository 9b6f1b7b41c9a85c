"""The five formats: nothing cut, nothing unescaped, null stays null."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import string
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secli.errors import UnknownNameError
from secli.tables.render import FORMATS, render
from secli.tables.render.csv import csv_document
from secli.tables.render.latex import escape
from secli.tables.statistic import NOTHING, Statistic
from secli.tables.table import MISSING, Cell, Column, Table, number

NASTY = "50 % & more_of_it #1 $x^2$ {a} \\ ~ \"q\" 'r' < > | — – -- --- Δ_s ± σ ‖L_sΦ‖² × † ° é ☃ /a/b\nc"


def table(title: str = "Title", name: str = "mnist_cnn_28", extra: int = 0) -> Table:
    columns = (
        Column("model", "model", text=True),
        Column("n", "n"),
        Column("error", "test error (%)", percent=True, digits=2, statistic=True),
        Column("delta", "Δ", statistic=True),
        Column("parameters", "parameters"),
        Column("why", "departures", text=True, machine=True),
        *(Column(f"x{i}", f"Δ({i})", statistic=True) for i in range(extra)),
    )
    more = (Cell(Statistic(0.12345, 0.0067, 3)),) * extra
    first = (Cell(name), Cell(2), Cell(Statistic(0.0507, 0.0009, 2), "†"), Cell(Statistic(0.00002, None, 1)))
    second = (Cell("dcn"), Cell(1), Cell(Statistic(0.05, None, 1)), Cell(NOTHING))
    rows = ((*first, Cell(494549), Cell("epochs"), *more), (*second, Cell(None), Cell(None), *more))
    return Table(title, columns, rows, ("A note.",))


def test_terminal_reads_as_it_should() -> None:
    assert render(table(), "table", 80).splitlines() == [
        "Title",
        "",
        "                   test error",
        "model         n           (%)       Δ  parameters",
        "─" * 49,
        "mnist_cnn_28  2  5.07 ± 0.09†  2.0e-5     494 549",
        "dcn           1          5.00       —           —",
        "",
        "A note.",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 160])
@pytest.mark.parametrize("extra", [0, 3, 9])
def test_terminal_fits_and_cuts_no_number(width: int, extra: int) -> None:
    text = render(table(name="mnist_ses_vector_28p_with_a_long_name", extra=extra), "table", width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    assert text.count("0.123") == 2 * extra
    assert text.count("± 0.007") == 2 * extra
    assert text.count("494 549") == 1
    assert "".join(text.split()).count("5.07±0.09†") == 1 or ("5.07" in text and "± 0.09†" in text)


@given(st.text(string.ascii_lowercase + "_ /", min_size=1, max_size=60), st.integers(30, 120))
def test_terminal_keeps_every_character_of_a_name(name: str, width: int) -> None:
    text = render(table(name=name), "table", width)
    body = "".join(text.split())
    for letter in set(name) - {" "}:
        assert body.count(letter) >= name.count(letter)


def test_markdown_is_a_table_and_escapes_bars() -> None:
    text = render(table(name="a|b"), "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert "a\\|b" in lines[2]
    assert {line.replace("\\|", "").count("|") for line in lines} == {6}
    assert "- A note." in text
    assert f" {MISSING} |" in lines[3]


def test_csv_has_one_column_per_number() -> None:
    first, second = csv.DictReader(io.StringIO(render(table(), "csv")))
    assert first["error_percent_mean"] == "5.07"
    assert first["error_percent_std"] == "0.09"
    assert first["error_percent_n"] == "2"
    assert (first["parameters"], first["why"]) == ("494549", "epochs")
    assert (second["delta_mean"], second["delta_std"], second["delta_n"], second["parameters"]) == (
        "",
        "",
        "0",
        "",
    )


def test_json_keeps_fractions_and_null() -> None:
    first, second = json.loads(render(table(), "json"))
    assert first["error"] == {"mean": 0.0507, "std": 0.0009, "n": 2}
    assert second["delta"] == {"mean": None, "std": None, "n": 0}
    assert second["parameters"] is None
    assert set(json.loads(render([table("A"), table("B")], "json"))) == {"A", "B"}


def test_unknown_format_suggests_the_near_miss() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'markdown'"):
        render(table(), "markdwn")


def test_small_numbers_are_not_rounded_to_nothing_unless_decimals_are_fixed() -> None:
    assert number(0.00002, 4) == "2.0e-5"
    assert number(0.123456, 3) == "0.123"
    assert number(0.0, 3) == "0"
    assert number(0.0, 2) == "0.00"
    assert number(0.004, 2) == "0.00"
    assert number(-0.5, 1) == "-0.5"


def test_latex_is_well_formed() -> None:
    text = render(table(NASTY, name=NASTY, extra=6), "latex")
    blocks = text.count("\\begin{tabular}")
    assert blocks > 1
    assert {text.count(f"\\{word}") for word in ("end{tabular}", "toprule", "midrule", "bottomrule")} == {
        blocks
    }
    assert text.isascii() or set(filter(lambda c: not c.isascii(), text)) == {"é"}
    for line in text.splitlines():
        if line.endswith("\\\\") and "shortstack" not in line:
            assert line.count(" & ") >= 1


@given(st.text(max_size=30))
def test_latex_escape_leaves_nothing_special(text: str) -> None:
    escaped = escape(text)
    assert all(c.isascii() or "\u00c0" <= c <= "\u017f" for c in escaped)
    depth = 0
    for place, character in enumerate(escaped):
        if escaped[place - 1 : place] != "\\" or escaped[place - 2 : place] == "\\\\":
            depth += {"{": 1, "}": -1}.get(character, 0)
            assert character not in "&%#"
        assert depth >= 0
    assert depth == 0


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)"
)
def test_latex_compiles_as_it_stands(tmp_path: Path) -> None:
    columns = (Column("a", "run", text=True), Column("b", "reason", text=True))
    long = Table("Set aside", columns, ((Cell("a/" * 60), Cell(NASTY * 3)),))
    body = render([table(NASTY, name=NASTY, extra=6), table(), long], "latex")
    document = (
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + body + "\\end{document}\n"
    )
    (tmp_path / "table.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stdout[-1500:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000


def test_all_formats_end_with_a_newline() -> None:
    for format in FORMATS:
        assert render(table(), format).endswith("\n")


FORMULAS = ('=HYPERLINK("http://x","y")', "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1")


@pytest.mark.parametrize("name", FORMULAS)
def test_csv_holds_no_formula(name: str) -> None:
    named = table(name=name)
    for text in (render(named, "csv"), csv_document([Table(name, named.columns, named.rows)] * 2)):
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert not [cell for cell in cells if cell[:1] in "=+-@\t\r\n\uff1d" and cell]
        assert any(cell.startswith("'") for cell in cells)


def test_numbers_stay_numbers_in_csv() -> None:
    columns = (Column("a", "a"), Column("b", "b", text=True), Column("c", "c", text=True))
    text = render(Table("t", columns, ((Cell(-0.5), Cell("-0.5"), Cell("-1e-5")),)), "csv")
    assert text.splitlines()[1] == "-0.5,-0.5,-1e-5"


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_holds_what_a_terminal_would_obey(format: str) -> None:
    name = "\x1b]0;t\x07\x1b[31mred\x9b31m\u202e"
    text = render(Table(name, table().columns, table(name=name).rows, (name,)), format)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    if format == "json":
        assert json.loads(text)[0]["model"] == name


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "![x](http://x)", "`x`", "&lt;b&gt;"])
def test_markdown_holds_no_tag_and_no_link(name: str) -> None:
    text = render(Table(name, table().columns, table(name=name).rows, (name,)), "markdown")
    assert not re.search(
        r"<[a-z/]|(?<!\\)\[|(?<!\\)`|&lt;b", text.replace("&amp;lt;", "").replace("&lt;script>", "")
    )
