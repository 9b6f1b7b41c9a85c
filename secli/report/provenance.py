"""Where the numbers of a report come from: versions, commits, machines, dates, data, and what is mixed among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from secli.records.schema import Provenance
from secli.report.content import Fact, ReportProvenance
from secli.tables.collect import Run
from secli.tables.dataset_names import called
from secli.tables.table import Cell, Column, Table

# what decides numbers to the last digit: a reader must know where records differ in it
_FACTS: dict[str, Callable[[Provenance], str]] = {
    "secli": lambda one: one.secli,
    "commit": lambda one: one.commit or "none (no git checkout)",
    "Python": lambda one: one.python,
    "platform": lambda one: one.platform,
    "device": lambda one: one.device,
    "threads": lambda one: str(one.threads),
}
# what several of them are called; of all else, libraries too, there are versions
_SEVERAL = {
    "commit": "several commits",
    "Python": "several Pythons",
    "platform": "several platforms",
    "device": "several devices",
    "threads": "several numbers of threads",
}


def origin(runs: Sequence[Run]) -> ReportProvenance:
    """Collect the provenance of all records of the runs."""
    records = [one.provenance for run in runs for one in (run.training, run.curves) if one is not None]
    counted = {name: Counter(map(value, records)) for name, value in _FACTS.items()}
    libraries: dict[str, Counter[str]] = {}
    for record in records:
        for name, version in record.libraries.items():
            libraries.setdefault(name, Counter())[version] += 1
    versions = [f"{name} {' / '.join(_with_counts(counts))}" for name, counts in libraries.items()]
    # the first and the last time of writing, in UTC, to the minute
    times = sorted({record.created.replace("T", " ")[:16] for record in records})
    facts = [Fact(name, _with_counts(counts)) for name, counts in counted.items()]
    facts.append(Fact("libraries", (", ".join(versions),)))
    facts.append(Fact("recorded", (f"{' to '.join(dict.fromkeys((times[0], times[-1])))} UTC",)))
    data = _data(runs)
    facts += [Fact("data", data)] if data else []
    commands = _with_counts(Counter(record.command for record in records))
    return ReportProvenance(
        tuple(_mixes({**counted, **libraries})), tuple(facts), commands, _runs_table(runs)
    )


def _with_counts(counts: Counter[str]) -> tuple[str, ...]:
    if len(counts) == 1:
        return tuple(counts)
    return tuple(f"{value} ({count} records)" for value, count in sorted(counts.items()))


def _mixes(counted: Mapping[str, Counter[str]]) -> list[str]:
    mixes = []
    for name, counts in counted.items():
        if len(counts) > 1:
            each = ", ".join(f"{value} ({count})" for value, count in sorted(counts.items()))
            mixes.append(
                f"The records come from {_SEVERAL.get(name, f'several versions of {name}')}: {each}."
            )
    commits = counted["commit"]
    changed = sum(count for commit, count in commits.items() if commit.endswith("+"))
    if changed:
        mixes.append(f"{changed} of {commits.total()} records were made with uncommitted changes (+).")
    return mixes


def _data(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return each set of images once, with its digest and what it served for."""
    uses: dict[tuple[str, int, str], dict[str, None]] = {}
    for run in runs:
        measured_on = run.curves.data if run.curves is not None else None
        for info, use in ((run.trained_on, "trained on"), (measured_on, "measured on")):
            if info is not None:
                uses.setdefault((info.name, info.realisation, info.digest), {})[use] = None
    return tuple(
        f"{name} r{realisation} ({', '.join(own)}): sha256 {digest}"
        for (name, realisation, digest), own in sorted(uses.items(), key=lambda item: item[0])
    )


def _runs_table(runs: Sequence[Run]) -> Table:
    columns = (
        Column("run", "run", text=True),
        Column("model", "model", text=True),
        Column("dataset", "trained on", text=True),
        Column("realisation", "realisation"),
        Column("seed", "seed"),
        Column("test_error", "test error (%)", percent=True, digits=2),
        Column("secli", "secli", text=True),
        Column("commit", "commit", text=True),
        Column("device", "device", text=True),
        Column("threads", "threads"),
        Column("created", "recorded (UTC)", text=True),
    )
    names = called(run.trained_on for run in runs if run.trained_on is not None)
    lines = []
    for run in runs:
        made = run.record.provenance
        results = run.training.results if run.training is not None else None
        values: dict[str, Any] = {
            **made.model_dump(include={"secli", "commit", "device", "threads"}),
            "run": str(run.path),
            "model": run.called if run.trained else f"{run.called} (untrained)",
            "dataset": run.trained_on.name if run.trained_on is not None else None,
            "realisation": run.realisation,
            "seed": run.seed,
            "test_error": results.test_error if results is not None else None,
            "created": made.created.removesuffix("+00:00").replace("T", " "),
        }
        words = {"dataset": names.get(values["dataset"], "")}
        lines.append(tuple(Cell(values[one.key], words=words.get(one.key, "")) for one in columns))
    return Table("All runs", columns, tuple(lines))
