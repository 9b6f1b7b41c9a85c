"""Write the section of docs/results.md that comes from ``results/``: ``python -m tools.results_page``.

Each row: what was measured, what is published of the same network, the difference in standard errors, and a verdict.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from secli.errors import InputError
from secli.records.schema import SWEEP_FILE, Provenance, read_sweep_record
from secli.storage.writing import write_text
from secli.tables.groups import Group, summarise
from secli.tables.paired_tests import standard_errors
from secli.tables.published import KINDS, Reported, load_published, reported, source_notes
from secli.tables.quantities import QUANTITIES
from secli.tables.statistic import Statistic

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "results.md", ROOT / "results"
COMMAND = "python -m tools.results_page"
BEGIN, END = "<!-- kept records: begin -->", "<!-- kept records: end -->"
LEAST = 3
"""Runs from which on a verdict is spoken."""
MOST_ERRORS = 2.0
"""Standard errors between two means that are taken for equal."""
ERROR = QUANTITIES["test_error"]
COLUMNS = (
    *("network", "augment", "n", "test error (%)", "published (%)", "apart (s.e.)"),
    *("hours a run", "machine", "verdict"),
)


def section(results: Path) -> str:
    """Return the section, its markers included."""
    lines = [
        BEGIN,
        "## From kept records",
        "",
        f"Written by `{COMMAND}` from `results/`, which holds the finished runs' records without their weights",
        "(`python -m tools.keep_results SWEEP`); edit neither this section nor them.",
        "",
    ]
    return "\n".join([*lines, *_body(results), END]) + "\n"


def _body(results: Path) -> list[str]:
    if not any(results.glob("*/*/*/record.json")):
        return ["No run of full length has been kept yet.", ""]
    sweeps = [read_sweep_record(file.parent) for file in sorted(results.glob(f"*/{SWEEP_FILE}"))]
    commands = [sweep.command for sweep in sweeps if sweep is not None]
    summary = summarise([results], by=("model", "augment"))
    rows = summary.rows
    published = load_published()
    found = [reported(row, published) for row in rows]
    lines = ["```text", *dict.fromkeys(commands), "secli compare results --published", "```", ""]
    lines += [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
    lines += [_line(_cells(row, figures)) for row, figures in zip(rows, found, strict=True)]
    lines += [
        "",
        "- Mean ± standard deviation (n − 1) over n runs: realisations of the data.",
        "- apart: (measured − published) in standard errors of the difference of both means, where both are known.",
        f"- reproduced: {LEAST} runs or more, at most {MOST_ERRORS:g} standard errors from the first figure named; "
        "open: fewer runs.",
    ]
    entries = [
        (one.source.kind, one.source.text, one.protocol.description) for figures in found for one in figures
    ]
    aside = [f"set aside: {_below(results, one.path)}: {one.reason}" for one in summary.set_aside]
    return [*lines, *(f"- {note}" for note in (*source_notes(dict.fromkeys(entries)), *aside)), ""]


def _below(results: Path, path: str) -> str:
    return str(Path(path).relative_to(results)) if Path(path).is_relative_to(results) else path


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Group, figures: Sequence[Reported]) -> list[str]:
    figures = sorted(
        (one for one in figures if one.value(ERROR) is not None),
        key=lambda one: list(KINDS).index(one.source.kind),
    )
    ours, hours = row.statistic(ERROR), row.statistic(QUANTITIES["train_seconds"])
    settings = row.settings or {}
    machines = dict.fromkeys(_machine(run.record.provenance) for run in row.members)
    return [
        row.model.name,
        str(settings.get("augment", "—")),
        str(row.n),
        percent(ours),
        "; ".join(f"{percent(one.statistic(ERROR))} ({KINDS[one.source.kind]})" for one in figures) or "—",
        "; ".join(_apart(ours, one) for one in figures) or "—",
        "—" if hours.mean is None else f"{hours.mean / 3600:.2f}",
        "; ".join(machines),
        verdict(ours, figures),
    ]


def _machine(made: Provenance) -> str:
    return f"{made.device}, {made.threads} thread{'s' * (made.threads != 1)}"


def percent(value: Statistic) -> str:
    """Return mean ± standard deviation in per cent."""
    if value.mean is None:
        return "—"
    return f"{100 * value.mean:.2f}" + (f" ± {100 * value.std:.2f}" if value.std is not None else "")


def _apart(ours: Statistic, figure: Reported) -> str:
    errors = apart(ours, figure)
    return "—" if errors is None else f"{errors:+.1f}"


def apart(ours: Statistic, figure: Reported) -> float | None:
    """Return by how many standard errors a measured mean is above a published one; None where that is not known."""
    theirs = figure.statistic(ERROR)
    if ours.mean is None or theirs.mean is None:
        return None
    return standard_errors(ours.mean, ours.std, ours.n, theirs.mean, theirs.std, theirs.n)


def verdict(ours: Statistic, figures: Sequence[Reported]) -> str:
    """Say in a word whether a published figure was found again; the paper's own comes before a reproduction's."""
    if not figures:
        return "nothing published"
    first = figures[0]
    if first.departures:
        return f"other protocol: {'; '.join(first.departures)}"
    if ours.n < LEAST:
        return f"open: n = {ours.n}"
    errors = apart(ours, first)
    if errors is None:
        return "open: no deviation published"
    if abs(errors) <= MOST_ERRORS:
        return "reproduced"
    return f"not reproduced: {'worse' if errors > 0 else 'better'}"


def with_section(page: str, results: Path) -> str:
    """Return a page with the section as the records now have it.

    Raises
    ------
    InputError
        When the page has not both markers, once.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(END) < page.index(BEGIN):
        raise InputError(f"{PAGE.name}: needs one '{BEGIN}' and one '{END}' after it")
    before, _, rest = page.partition(BEGIN)
    return before + section(results) + rest.partition(END)[2].removeprefix("\n")


def main() -> None:
    """Write the section into the page."""
    write_text(PAGE, with_section(PAGE.read_text(encoding="utf-8"), RESULTS))
    print(f"{PAGE.relative_to(ROOT)}: written", file=sys.stderr)


if __name__ == "__main__":
    main()
