"""The report in a real browser, at the widths of a phone and of a desk: it sorts, fits, and asks nobody anything."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from secli.report.content import TablePart
from secli.report.gather import gather
from secli.report.html import to_html
from secli.tables.table import Cell, Column, Table
from tests.report.browser import Page, find_chromium, page
from tests.tables.fabricate import curves, training, write_run

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs a Chromium (Debian: chromium), on the path or named by SECLI_CHROMIUM"
)
WIDTHS = (390, 1400)
EVIL = "<script>document.title = 'taken over'</script><img src='http://example.org/x.png'>"
# errors in per cent, in the order of the page; dcn's is missing
ERRORS = {"cnn": 0.115, "dcn": None, "dss_v1": 0.09, "mnist_cnn_28": 0.0205, "mnist_xu_28": 0.1}
# of the equivariance error: as digits, 0.0985 would come behind 0.432
LEVELS = {"cnn": 0.5, "dss_v1": 0.1, "mnist_cnn_28": 0.04, "mnist_xu_28": 3.0}
COLUMN = (
    "[...document.querySelectorAll('#comparison thead th')].findIndex(h => h.textContent.startsWith('{}'))"
)
ORDER = "[...document.querySelectorAll('#comparison tbody tr')].map(row => row.cells[{}].textContent)"
HEADING = "document.querySelectorAll('#comparison thead th')[{}]"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    for r in (0, 1):
        for name, error in ERRORS.items():
            measured = curves(name, realisation=r, level=LEVELS[name] + 0.01 * r) if error else None
            record = training(name, None if error is None else error + 0.001 * r, realisation=r)
            write_run(place / "runs" / name / f"r{r}", record, measured)
    write_run(place / "runs" / "failed", training("cnn", status="failed", reason=EVIL, realisation=3))
    report = place / "report.html"
    report.write_text(to_html(gather([place / "runs"], f"secli report {EVIL}", title=f"All {EVIL}")))
    return report


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page(tmp_path_factory.mktemp("profile"), CHROMIUM or "") as opened:
        yield opened


@pytest.fixture
def opened(browser: Page, file: Path, width: int) -> Page:
    browser.errors.clear()
    browser.requests.clear()
    browser.open(file, width)
    return browser


def names(opened: Page) -> list[str]:
    found: list[str] = opened.run(ORDER.format(0))
    return found


@pytest.mark.parametrize("width", WIDTHS)
def test_no_error_and_no_request(opened: Page, file: Path) -> None:
    opened.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    opened.run("new Promise(done => setTimeout(done, 200))")
    assert opened.errors == []
    asked = [address for address in opened.requests if not address.startswith("data:")]
    assert asked == [file.resolve().as_uri()]
    assert opened.run("document.title") == f"All {EVIL}"
    assert opened.run("document.querySelector('h1').textContent") == f"All {EVIL}"


@pytest.mark.parametrize("width", [1400])
def test_the_checks_see_errors_and_requests(opened: Page) -> None:
    """The controls: what the test above would find, it does find."""
    opened.run(
        "setTimeout(() => { throw new Error('thrown'); }, 0); fetch('https://example.org/').catch(() => {});"
        "new Image().src = 'http://example.org/x.png'; const own = document.createElement('script');"
        "own.textContent = 'document.title = 1'; document.body.append(own);"
    )
    opened.run("new Promise(done => setTimeout(done, 300))")
    said = " ".join(opened.errors)
    assert "thrown" in said
    # the page's own policy refuses what the network never sees
    assert said.count("Content Security Policy") >= 3
    assert opened.run("document.title") == f"All {EVIL}"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_no_wider_than_the_window(opened: Page, width: int) -> None:
    opened.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert opened.run("innerWidth") == width
    assert opened.run("document.documentElement.scrollWidth") <= width
    # what is wider scrolls in a box of its own
    boxes = opened.run(
        "[...document.querySelectorAll('.scroll, .plot')].map(b => [b.clientWidth, b.scrollWidth, "
        "getComputedStyle(b).overflowX, b.tabIndex])"
    )
    assert all(own <= width and how == "auto" and tab == 0 for own, _, how, tab in boxes)
    assert any(content > own for own, content, _, _ in boxes) == (width == 390)
    # letters of the drawings can be read
    sizes = opened.run(
        "[...document.querySelectorAll('.plot svg')]"
        ".map(s => s.getBoundingClientRect().width / s.viewBox.baseVal.width)"
    )
    assert len(sizes) == 2
    assert min(sizes) >= 1.3


@pytest.mark.parametrize("width", WIDTHS)
def test_a_click_sorts_numbers_as_numbers(opened: Page) -> None:
    given = names(opened)
    assert given == list(ERRORS)
    column = opened.run(COLUMN.format("test error"))
    heading = HEADING.format(column)
    ascending = ["mnist_cnn_28", "dss_v1", "mnist_xu_28", "cnn"]  # as words, 11.5 and 10 would come first
    for direction, order in (
        ("ascending", [*ascending, "dcn"]),
        ("descending", [*reversed(ascending), "dcn"]),
        ("none", given),
    ):
        opened.run(f"{heading}.querySelector('button').click()")
        assert opened.run(f"{heading}.getAttribute('aria-sort')") == direction
        assert names(opened) == order
        others = f"[...document.querySelectorAll('#comparison thead th')].filter(h => h !== {heading})"
        assert set(opened.run(f"{others}.map(h => h.getAttribute('aria-sort'))")) == {"none"}
    heading = HEADING.format(opened.run(COLUMN.format("Δ(0.8)")))
    opened.run(f"{heading}.querySelector('button').click()")
    assert names(opened) == [*sorted(LEVELS, key=LEVELS.__getitem__), "dcn"]
    assert opened.errors == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("key", ["Enter", " "])
def test_the_keyboard_sorts_words_and_numbers(opened: Page, key: str) -> None:
    opened.run(HEADING.format(0) + ".querySelector('button').focus()")
    opened.press(key)
    assert names(opened) == sorted(ERRORS)
    opened.press(key)
    assert names(opened) == sorted(ERRORS, reverse=True)
    assert (
        opened.run("document.querySelector('#comparison [aria-live]').textContent")
        == "sorted by model, descending"
    )
    parameters = opened.run(COLUMN.format("parameters"))
    opened.press("Tab")
    assert opened.run("document.activeElement.textContent") == "n"
    opened.run(HEADING.format(parameters) + ".querySelector('button').focus()")
    opened.press(key)
    shown = [int("".join(text.split())) for text in opened.run(ORDER.format(parameters))]
    assert shown == sorted(shown)
    assert len(set(shown)) > 2


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_are_sorted_each_for_itself(opened: Page) -> None:
    before = names(opened)
    opened.run("document.querySelectorAll('#provenance details').forEach(one => { one.open = true; })")
    opened.run("document.querySelector('#provenance thead th button').click()")
    opened.run("document.querySelector('#provenance thead th button').click()")
    paths = opened.run("[...document.querySelectorAll('#provenance tbody th')].map(h => h.textContent)")
    assert paths == sorted(paths, reverse=True)
    assert len(paths) == 10
    assert names(opened) == before
    # intervals and floors belong to the line above: such tables stay as they are
    assert opened.run("document.querySelectorAll('#curves-1 thead button').length") == 0
    assert opened.run("document.querySelectorAll('#curves-1 table').length") >= 4


@pytest.mark.parametrize("width", WIDTHS)
def test_lines_stay_with_their_row(browser: Page, tmp_path: Path, width: int) -> None:
    """A pivot with published figures: they go on with the row above, however it is sorted."""
    columns = (
        Column("model", "model", text=True),
        Column("from", "from", text=True),
        Column("error", "error"),
    )
    rows: list[tuple[Cell, ...]] = []
    for name, value in (("b", 2.0), ("c", None), ("a", 10.0)):
        rows.append((Cell(name), Cell("measured"), Cell(value, "*")))
        rows.append((Cell(""), Cell(f"published of {name}"), Cell(1.0)))
    report = gather([write_run(tmp_path / "run", training())], "c")
    part = TablePart("pivot", Table("Pivot", columns, tuple(rows), heads=2))
    file = tmp_path / "r.html"
    file.write_text(to_html(replace(report, tables=(part,))))
    browser.open(file, width)
    lines = "[...document.querySelectorAll('#pivot tbody tr')]"
    order = f"{lines}.map(r => r.cells[0].textContent || r.cells[1].textContent)"
    button = "document.querySelectorAll('#pivot thead button')[2]"
    for wanted in ("bac", "abc", "bca"):
        browser.run(f"{button}.click()")
        assert browser.run(order) == [line for name in wanted for line in (name, f"published of {name}")]
    assert browser.run(f"{lines}.map(r => r.querySelectorAll('th').length)") == [2] * 6


@pytest.mark.parametrize("width", [390])
def test_in_the_dark_the_page_is_dark_and_figures_keep_their_paper(
    browser: Page, file: Path, width: int
) -> None:
    colours = {}
    for dark in (False, True):
        browser.open(file, width, dark=dark)
        colours[dark] = browser.run(
            "['body', '.plot'].map(s => getComputedStyle(document.querySelector(s)).backgroundColor)"
        )
    assert colours[False] == ["rgb(255, 255, 255)", "rgb(255, 255, 255)"]
    assert colours[True] == ["rgb(20, 24, 29)", "rgb(255, 255, 255)"]


@pytest.mark.parametrize("width", [1400])
def test_figures_are_drawn(opened: Page, tmp_path: Path) -> None:
    opened.run("document.querySelector('#heatmap-1').scrollIntoView()")
    opened.screenshot(tmp_path / "shot.png", whole=False)
    with Image.open(io.BytesIO((tmp_path / "shot.png").read_bytes())) as shot:
        colours = shot.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 100  # viridis and the letters' edges; a blank page has a handful


@pytest.mark.parametrize("width", [1400])
def test_on_paper_everything_is_unfolded(opened: Page) -> None:
    script = (
        "new Promise(done => { window.dispatchEvent(new Event('beforeprint')); "
        "const open = document.querySelectorAll('details[open]').length; "
        "window.dispatchEvent(new Event('afterprint')); "
        "const count = what => document.querySelectorAll(what).length;"
        "done([open, count('details'), count('details[open]')]); })"
    )
    during, everything, after = opened.run(script)
    assert during == everything == 3
    assert after == 0
    assert opened.pdf().startswith(b"%PDF")
    assert opened.errors == []
