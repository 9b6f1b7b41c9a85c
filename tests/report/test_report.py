"""The report: what stands in it, that it is harmless and self-contained, and that it is written whole or not at all."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from secli.errors import InputError
from secli.records.schema import SWEEP_FILE, EquivarianceRecord, SweepRecord, SweptRun, write_record
from secli.report.content import Report
from secli.report.figures import networks_of, shared_figures
from secli.report.files import report_file, write_report
from secli.report.gather import gather
from secli.report.grouping import telling_keys
from secli.report.html import _environment, to_html
from secli.report.markdown import to_markdown
from secli.report.provenance import origin
from secli.tables.collect import collect
from secli.tables.compare import compare
from secli.tables.groups import summarise
from secli.tables.table import Cell, Column, Table
from tests.tables.fabricate import curve_row, curves, data, training, write_run

EVIL = "<script>alert(1)</script>\"'&$x$</table>"
SVG = "{http://www.w3.org/2000/svg}"


class Reader(HTMLParser):
    """Checks that every element is closed where it should be, and collects what a test asks for."""

    VOID = frozenset({"meta", "br", "wbr", "link", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two measured models with two realisations each, one that was not measured, one that failed."""
    place = tmp_path / "runs"
    for r in (0, 1):
        for name, error in (("cnn", 0.05), ("dss_v1", 0.02)):
            record = training(name, error + 0.01 * r, realisation=r)
            write_run(
                place / name / f"r{r}", record, curves(name, realisation=r, level=0.5 + error + 0.1 * r)
            )
    write_run(place / "dcn" / "r0", training("dcn", 0.04))
    write_run(place / "dcn" / "r1", training("dcn", realisation=1, status="failed", reason=f"NaN {EVIL}"))
    return place


def report_of(*paths: Path, **changes: Any) -> Report:
    return gather(paths, "secli report runs", **changes)


def drawings(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_the_page_is_whole_and_its_ids_are_its_own(runs: Path) -> None:
    page = to_html(report_of(runs, published=True))
    reader = Reader(page)
    assert len(reader.ids) == len(set(reader.ids)) > 20
    links = [values["href"] for tag, values in reader.tags if tag == "a"]
    assert "#curves-1" in links
    assert "#heatmap-1" in links
    assert "#provenance" in links
    assert all(link.removeprefix("#") in reader.ids for link in links)


def test_a_note_is_shown_as_it_reads() -> None:
    columns = (Column("model", EVIL, text=True),)
    parts: Any = _environment().get_template("parts.html.j2").module
    page = str(parts.table(Table(EVIL, columns, ((Cell(EVIL, mark=EVIL),),), (EVIL, "\x1b[31mred")), False))
    reader = Reader(page)
    assert {tag for tag, _ in reader.tags} <= {
        "div",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "ul",
        "li",
        "wbr",
    }
    assert "<script" not in page
    assert "\\x1b[31mred" in page


def test_a_drawing_refers_to_what_it_defines_itself(runs: Path) -> None:
    page = to_html(report_of(runs))
    found = drawings(page)
    assert len(found) == 2
    for root in found:
        own = {element.get("id") for element in root.iter()} - {None}
        text = ElementTree.tostring(root, encoding="unicode")
        wanted = set(re.findall(r"url\(#([^)]+)\)", text))
        wanted |= {e.get("href", "").removeprefix("#") for e in root.iter(f"{SVG}use")}
        assert wanted
        assert wanted <= own
        assert root.get("aria-label", "").startswith("Equivariance")
        assert not list(root.iter(f"{SVG}metadata"))
        assert not list(root.iter(f"{SVG}style"))  # it would hold for the whole page


def test_the_same_network_drawn_twice_shares_no_id(runs: Path) -> None:
    twin = report_of(runs)
    page = to_html(Report(**{**vars(twin), "figures": (*twin.figures, *_renamed(twin))}))
    ids = Reader(page).ids
    assert len(ids) == len(set(ids))


def _renamed(report: Report) -> list[Any]:
    return [type(part)(**{**vars(part), "key": f"again-{part.key}"}) for part in report.figures]


def test_nothing_is_asked_of_a_network(runs: Path) -> None:
    page = to_html(report_of(runs, published=True))
    for _, values in Reader(page).tags:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert re.match(r"#|data:image/png;base64,|$", values.get(name, "")), (name, values)
    assert set(re.findall(r"https?://[^\s\"'<]*", page)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src &#x27;none&#x27;" in page


def test_the_same_records_give_the_same_bytes(runs: Path) -> None:
    command = (
        "import sys; from pathlib import Path; from secli.report.gather import gather; "
        "from secli.report.html import to_html; print(to_html(gather([Path(sys.argv[1])], 'c')), end='')"
    )
    pages = [
        subprocess.run([sys.executable, "-c", command, str(runs)], capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert pages[0] == pages[1]
    assert pages[0].decode() == to_html(gather([runs], "c"))


def test_names_are_harmless(tmp_path: Path) -> None:
    place = tmp_path / "a<script>alert(2)<" / "x"
    record = training("cnn", 0.05)
    model = record.model.model_copy(update={"name": f"evil{EVIL}"})
    said = record.provenance.model_copy(update={"command": EVIL, "device": EVIL})
    measured = curves("cnn", taps=["conv1", f"tap{EVIL}"]).model_copy(update={"model": model})
    write_run(place, record.model_copy(update={"model": model, "provenance": said}), measured)
    write_run(tmp_path / "b", training("dcn", status="failed", reason=EVIL, realisation=3))
    report = gather([tmp_path], f"secli report {EVIL}", title=EVIL)
    page = to_html(report)
    tags = [tag for tag, _ in Reader(page).tags]
    assert tags.count("script") == 1
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;script&gt;alert(2)" in page
    assert any(EVIL.split("$")[0] in "".join(root.itertext()) for root in drawings(page))
    text = to_markdown(report, ["a.png", "b.png"])
    outside = re.sub(r"(`+).*?\1", "", text)  # in code, markup is text
    assert not re.search(r"(?<!\\)<(?!br>|[ab]\.png>)", outside)


def cells(page: str, key: str) -> list[list[str]]:
    """The unrounded numbers of a table's cells, row by row; '' where there is none."""
    section = page.split(f'<section id="{key}">')[1].split("</table>")[0]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", section.split("<tbody>")[1], re.DOTALL)
    return [
        [(re.findall(r'data-value="([^"]*)"', one) or [""])[0] for one in re.findall(r"<t[hd][^>]*>", row)]
        for row in rows
    ]


def test_the_numbers_are_those_of_the_comparison(runs: Path) -> None:
    page = to_html(report_of(runs))
    comparison = compare(summarise([runs]), accuracy=True)
    names = [column.key for column in comparison.main.columns]
    found = [dict(zip(names, row, strict=True)) for row in cells(page, "comparison")]
    wanted = json.loads(json.dumps(comparison.as_json()))
    assert [row["model"] for row in wanted] == ["cnn", "dcn", "dss_v1"]
    for line, row in zip(found, wanted, strict=True):
        numbers = {
            "n": row["n"],
            "test_error": row["test_error"]["mean"],
            "delta": row["delta"]["mean"] if row["delta"] else None,
            "parameters": row["parameters"],
            "train_seconds": row["train_seconds"]["mean"],
            **{f"delta_{one['factor']:.3g}": one["mean"] for one in row["delta_at"]},
            **{f"accuracy_{one['factor']:.3g}": one["mean"] for one in row["accuracy_at"]},
        }
        assert set(numbers) == set(names) - {"model", "tap"}
        for key, number in numbers.items():
            assert (float(line[key]) if line[key] else None) == number, key
    assert 'class="missing">—' in page


def test_rows_are_parted_by_all_that_differs(tmp_path: Path) -> None:
    for augment in ("none", "scale"):
        for dataset in ("mnist-scale", "fashion-scale"):
            for r in (0, 1):
                write_run(
                    tmp_path / f"{augment}-{dataset}-{r}",
                    training("cnn", 0.05, realisation=r, augment=augment, dataset=dataset, threads=1 + r),
                )
    report = report_of(tmp_path)
    assert len(report.tables[0].table.rows) == 4
    assert report.set_aside is None
    assert report.tables[0].command == f"secli compare {tmp_path} --by model,dataset,augment --accuracy"
    assert telling_keys(collect([tmp_path / "none-mnist-scale-0"])[0]) == ("model",)
    # an explicit grouping is taken at its word
    assert len(report_of(tmp_path, by=["dataset"]).tables[0].table.rows) == 2


def test_a_key_that_repeats_another_is_no_column(tmp_path: Path) -> None:
    for dataset, mean in (("mnist-scale", 0.1), ("fashion-scale", 0.3)):
        write_run(
            tmp_path / dataset, training("cnn", 0.05, dataset=dataset, options={"mean": mean, "channels": 32})
        )
    assert telling_keys(collect([tmp_path])[0]) == ("model", "dataset")
    write_run(tmp_path / "wide", training("cnn", 0.05, options={"mean": 0.1, "channels": 64}))
    assert telling_keys(collect([tmp_path])[0]) == ("model", "dataset", "model.channels")


def test_curves_are_means_over_runs_with_intervals_over_runs(runs: Path) -> None:
    row = summarise([runs]).rows[0]
    (network,) = networks_of(row)
    own = [[r.mean for r in record.rows] for record in row.curves]
    assert [r.mean for r in network.rows] == pytest.approx(
        [(a + b) / 2 if a is not None and b is not None else None for a, b in zip(*own, strict=True)]
    )
    first = network.rows[0]
    assert first.low is not None
    assert first.high is not None
    assert first.low < (first.mean or 0) < first.high
    caption = report_of(runs).figures[0].caption
    assert "2 runs each" in caption
    assert "over the runs of a network" in caption


def test_runs_measured_at_other_factors_are_drawn_apart(tmp_path: Path) -> None:
    for r, factors in ((0, (0.5, 1.0)), (1, (0.5, 0.8, 1.0))):
        write_run(tmp_path / str(r), training(realisation=r), curves(realisation=r, factors=factors))
    found = networks_of(summarise([tmp_path]).rows[0])
    assert [record.model.name for record in found] == ["cnn, run 1", "cnn, run 2"]
    assert "curves-1" in to_html(report_of(tmp_path))


def networks(*names: str, taps: Sequence[str] = ("conv1",)) -> list[EquivarianceRecord]:
    model = curves("cnn").model
    return [
        curves("cnn", taps=taps).model_copy(update={"model": model.model_copy(update={"name": name})})
        for name in names
    ]


def test_a_figure_holds_no_more_networks_than_can_be_told_apart() -> None:
    few = networks("a", "b")
    other = networks("c", taps=("lift",))
    assert shared_figures([*few, *other], 3) == [[*few, *other]]
    assert shared_figures([*few, *other], 2) == [few, other]
    pairs = networks("a, x", "b, x", "b, y", "c, x", "c, y")
    found = [[record.model.name for record in group] for group in shared_figures(pairs, 3)]
    assert found == [["a, x", "b, x", "b, y"], ["c, x", "c, y"]]
    many = shared_figures(networks(*(f"a, {n}" for n in range(7))), 3)
    assert [len(group) for group in many] == [3, 3, 1]
    assert shared_figures([], 3) == []


def test_without_curves_there_are_tables_only(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training())
    rows = [curve_row("conv1", 0.5, None), curve_row("conv1", 1.0, None)]
    write_run(tmp_path / "b", training("dcn"), curves("dcn", rows=rows, accuracy=False))
    report = report_of(tmp_path)
    assert report.figures == ()
    assert "<svg" not in to_html(report)


def test_provenance_says_what_is_mixed(tmp_path: Path) -> None:
    for r, version in enumerate(("0.0.9", "0.1.0", "0.1.0")):
        record = training("cnn", realisation=r, secli=version, digest=f"{r}" * 64)
        said = record.provenance.model_copy(
            update={
                "commit": "abc+" if r else "abc",
                "device": f"device {r}",
                "libraries": {"torch": f"2.{min(r, 1)}"},
                "created": f"2026-01-0{r + 1}T10:00:00+00:00",
                "command": f"secli train cnn --data r{r}",
            }
        )
        write_run(tmp_path / str(r), record.model_copy(update={"provenance": said}))
    found = origin(collect([tmp_path])[0])
    facts = {fact.name: fact.values for fact in found.facts}
    assert facts["secli"] == ("0.0.9 (1 records)", "0.1.0 (2 records)")
    assert facts["recorded"] == ("2026-01-01 10:00 to 2026-01-03 10:00 UTC",)
    assert facts["data"][2] == f"mnist-scale r2 (trained on): sha256 {'2' * 64}"
    assert facts["threads"] == ("2",)
    said_of_mixes = " ".join(found.mixes)
    assert "several versions of secli: 0.0.9 (1), 0.1.0 (2)." in said_of_mixes
    assert "several versions of torch: 2.0 (1), 2.1 (2)." in said_of_mixes
    assert "several devices" in said_of_mixes
    assert "threads" not in said_of_mixes
    assert "2 of 3 records were made with uncommitted changes" in said_of_mixes
    assert len(found.commands) == 3
    assert len(found.runs.rows) == 3
    page = to_html(report_of(tmp_path))
    assert "several versions of torch" in page
    assert "2" * 64 in page


def test_one_of_everything_mixes_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training())
    assert origin(collect([tmp_path])[0]).mixes == ()


def test_a_sweep_says_what_it_is(runs: Path) -> None:
    sweep = SweepRecord(
        name="quick", about="a trial <b>", command="secli sweep q.yaml", secli="0.1.0", runs=[]
    )
    write_record(runs / SWEEP_FILE, sweep)
    for path in (runs, runs.parent):
        report = report_of(path)
        assert report.title == "Sweep quick"
        assert report.lead[0] == "A trial <b>."
        assert "secli sweep q.yaml" in report.lead[1]
    page = to_html(report)
    assert "A trial &lt;b&gt;." in page
    # the fabricated curves were not measured by a command of secli's equivariance, so the sweep is not named for them
    assert report.figures[0].measured_by == ("secli train",)
    worker = curves("cnn").provenance.model_copy(update={"command": "worker.py"})
    write_run(
        runs / "w", training("cnn", seed=9), curves("cnn", seed=9).model_copy(update={"provenance": worker})
    )
    for record in (runs / "cnn").glob("*/equivariance.json"):
        record.unlink()
    figure = report_of(runs / "w", runs).figures[0]
    assert figure.measured_by == ("secli train", "secli sweep q.yaml")


@pytest.mark.parametrize("begun", [True, False])
def test_a_damaged_sweep_below_is_set_aside(runs: Path, begun: bool) -> None:
    bad = runs / "other"
    bad.mkdir()
    (bad / SWEEP_FILE).write_text("{")
    if begun:
        write_run(bad / "cnn" / "r5", training("cnn", realisation=5))
    report = report_of(runs)
    assert report.set_aside is not None
    said = [[str(cell.value) for cell in line] for line in report.set_aside.table.rows]
    assert said.count([str(bad / SWEEP_FILE), "damaged record (not JSON)"]) == 1
    write_run(bad / "cnn" / "r5", training("cnn", realisation=5))
    alone = report_of(bad).set_aside
    assert alone is not None
    assert [str(cell.value) for cell in alone.table.rows[0]] == [
        str(bad / SWEEP_FILE),
        "damaged record (not JSON)",
    ]


def swept(runs: Path, tables: list[dict[str, Any]]) -> Path:
    listed = [
        SweptRun(key=f"{n}", run=f"{name}/r{r}", model=name, label=name.upper(), tag=None)
        for n, (name, r) in enumerate((name, r) for name in ("cnn", "dss_v1", "dcn") for r in (0, 1))
    ]
    record = SweepRecord(
        name="quick", about="", command="secli sweep q.yaml", secli="0.1.0", runs=listed, tables=tables
    )
    write_record(runs / SWEEP_FILE, record)
    return runs


def test_the_tables_of_a_sweep_come_first(runs: Path) -> None:
    tables = [
        {"title": "Errors", "rows": ["label"], "columns": ["realisation"]},
        {"title": "Cost", "rows": ["label"]},
    ]
    report = report_of(swept(runs, tables))
    parts = {part.key: part for part in report.tables}
    assert [part.table.title for part in report.tables[:3]] == [
        "Errors", "Cost", "Set aside from the tables of the sweep quick",
    ]  # fmt: skip
    assert parts["sweep-1"].command == "secli sweep q.yaml"
    # a pivot: rows of labels, columns of realisations, fractions unrounded in the cells
    assert cells(to_html(report), "sweep-1")[0] == ["", "0.05", "0.060000000000000005"]
    assert parts["comparison"].table.rows
    ids = Reader(to_html(report)).ids
    assert len(ids) == len(set(ids))
    assert "## Errors" in to_markdown(report, ["a.png", "b.png"])
    # without tables of its own a sweep ends in the comparison, once
    assert [part.key for part in report_of(swept(runs, [])).tables] == ["comparison"]


def test_names_that_a_sweep_gives_part_no_rows(runs: Path) -> None:
    swept(runs, [])
    assert telling_keys(collect([runs])[0]) == ("model",)


def test_markdown_and_its_pictures(runs: Path, tmp_path: Path) -> None:
    report = report_of(runs, published=True)
    written = write_report(report, report_file(tmp_path / "out"))
    names = [path.name for path in written]
    assert names == ["report.md", "report-curves-1.png", "report-heatmap-1.png"]
    for path in written[1:]:
        with Image.open(path) as picture:
            assert picture.width > 600
    text = written[0].read_text()
    assert "5.50 ± 0.71" in text
    assert "| dss\\_v1 " in text
    assert all(f"](<{name}>)" in text for name in names[1:])
    assert "## Provenance" in text
    assert "`secli report runs`" in text
    tables = [part.table.title for part in report.tables]
    assert len(tables) >= 2
    page = to_html(report)
    for fact in report.origin.facts:
        assert all(value in page.replace("<br>", "") for value in fact.values)
    assert text.count("\n## ") == len(tables) + 2 + 1 + 1 + 1  # figures, set aside, numbers, provenance


def test_nothing_is_replaced_unasked(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    write_report(report_of(runs), report_file(file))
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"r\.html: already there; add --force"):
        report_file(file)
    write_report(report_of(runs, title="another"), report_file(file, True), True)
    assert file.read_bytes() != before
    (tmp_path / "m-heatmap-1.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"m-heatmap-1\.png: already there"):
        write_report(report_of(runs), report_file(tmp_path / "m.md"))
    assert not (tmp_path / "m.md").exists()
    assert (tmp_path / "m-heatmap-1.png").read_bytes() == b"mine"


@pytest.mark.parametrize("suffix", ["html", "md"])
def test_a_failed_write_leaves_what_stood_there(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    file = tmp_path / "out" / f"r.{suffix}"
    written = write_report(report_of(runs), report_file(file))
    before = {path: path.read_bytes() for path in written}
    full = OSError(errno.ENOSPC, "No space left on device")
    calls = []

    def fail(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        # the text fails at once, of the pictures only the last
        if suffix == "html" or len(calls) == 2:
            raise full

    target = "pathlib.Path.write_bytes" if suffix == "html" else "matplotlib.figure.Figure.savefig"
    report = report_of(runs, title="new")
    monkeypatch.setattr(target, fail)
    with pytest.raises(OSError, match="no space left") as caught:
        write_report(report, file, True)
    assert str(tmp_path / "out") in caught.value.filename
    assert ".tmp" not in caught.value.filename
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_where_a_report_goes(tmp_path: Path) -> None:
    assert report_file(tmp_path) == tmp_path / "report.md"
    assert report_file(tmp_path / "new" / "place") == tmp_path / "new" / "place" / "report.md"
    assert report_file(tmp_path / "a.HTML") == tmp_path / "a.HTML"
    with pytest.raises(InputError, match=r"a\.pdf: a report is written as \.html"):
        report_file(tmp_path / "a.pdf")
    (tmp_path / "d.html").mkdir()
    assert report_file(tmp_path / "d.html") == tmp_path / "d.html" / "report.md"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, not a directory"):
        report_file(tmp_path / "file" / "r.html")


def test_no_torch_is_loaded(runs: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from secli.report.gather import gather; "
        "from secli.report.html import to_html; to_html(gather([Path(sys.argv[1])], 'c')); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(runs)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_untrained_networks_say_so(tmp_path: Path) -> None:
    write_record(tmp_path / "a.json", curves("cnn", trained=False, trained_on=None))
    report = gather([tmp_path / "a.json"], "c")
    assert report.title == "Untrained networks under change of scale"
    assert "cnn (untrained)" in to_html(report)
    assert data().name not in report.title
