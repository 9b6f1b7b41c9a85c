"""Where the numbers of a report come from: versions, commits, machines, dates, data, and what is mixed among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from secli.records.schema import DataInfo, Provenance
from secli.tables.collect import Run
from secli.tables.formats import Cell, Column, Table
from secli.tables.naming import called
from secli.tables.report.content import Fact, Origin

# what decides numbers to the last digit: a reader must know where records differ in it
MIXABLE = ("secli", "commit", "Python", "platform", "device", "threads")


def origin(runs: Sequence[Run]) -> Origin:
    """Collect the provenance of all records of the runs."""
    records = [
        record.provenance for run in runs for record in (run.training, run.curves) if record is not None
    ]
    counted = {
        "secli": Counter(one.secli for one in records),
        "commit": Counter(one.commit or "none (no git checkout)" for one in records),
        "Python": Counter(one.python for one in records),
        "platform": Counter(one.platform for one in records),
        "device": Counter(one.device for one in records),
        "threads": Counter(str(one.threads) for one in records),
    }
    libraries = _libraries(records)
    facts = [Fact(name, _with_counts(counts)) for name, counts in counted.items()]
    facts.append(
        Fact("libraries", (", ".join(f"{n} {' / '.join(_with_counts(c))}" for n, c in libraries.items()),))
    )
    facts.append(Fact("recorded", (_dates(records),)))
    facts += [Fact("data", _data(runs))] if _data(runs) else []
    return Origin(
        mixes=tuple(_mixes({**counted, **libraries})),
        facts=tuple(facts),
        commands=_with_counts(Counter(one.command for one in records)),
        runs=_runs_table(runs),
    )


def _libraries(records: Iterable[Provenance]) -> dict[str, Counter[str]]:
    counted: dict[str, Counter[str]] = {}
    for one in records:
        for name, version in one.libraries.items():
            counted.setdefault(name, Counter())[version] += 1
    return counted


def _dates(records: Sequence[Provenance]) -> str:
    """Return the first and the last time of writing, in UTC, to the minute."""
    times = sorted(one.created.replace("T", " ")[:16] for one in records)
    return f"{times[0]} UTC" if times[0] == times[-1] else f"{times[0]} to {times[-1]} UTC"


def _with_counts(counts: Counter[str]) -> tuple[str, ...]:
    if len(counts) == 1:
        return tuple(counts)
    return tuple(f"{value} ({count} records)" for value, count in sorted(counts.items()))


def _mixes(counted: dict[str, Counter[str]]) -> list[str]:
    mixes = []
    for name, counts in counted.items():
        if len(counts) > 1:
            said = ", ".join(f"{value} ({count})" for value, count in sorted(counts.items()))
            what = "numbers of threads" if name == "threads" else f"{name}s" if name in MIXABLE[1:] else name
            of = "several" if name in MIXABLE[1:] else "several versions of"
            mixes.append(f"The records come from {of} {what}: {said}.")
    changed = sum(count for commit, count in counted["commit"].items() if commit.endswith("+"))
    if changed:
        mixes.append(
            f"{changed} of {counted['commit'].total()} records were made with uncommitted changes (+)."
        )
    return mixes


def _data(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return each set of images once, with its digest and what it served for."""
    uses: dict[tuple[str, int, str], list[str]] = {}
    for run in runs:
        for info, use in ((run.trained_on, "trained on"), (_measured_on(run), "measured on")):
            if info is not None:
                served = uses.setdefault((info.name, info.realisation, info.digest), [])
                served += [] if use in served else [use]
    return tuple(
        f"{name} r{realisation} ({', '.join(served)}): sha256 {digest}"
        for (name, realisation, digest), served in sorted(uses.items())
    )


def _measured_on(run: Run) -> DataInfo | None:
    return None if run.curves is None else run.curves.data


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
    return Table("All runs", columns, tuple(_run_line(run, names) for run in runs))


def _run_line(run: Run, names: Mapping[str, str]) -> tuple[Cell, ...]:
    record = run.training if run.training is not None else run.curves
    if record is None:
        raise ValueError(f"{run.path}: a run needs at least one record")
    results = run.training.results if run.training is not None else None
    said = record.provenance
    return (
        Cell(str(run.path)),
        Cell(run.called if run.trained else f"{run.called} (untrained)"),
        Cell(None) if run.trained_on is None else Cell(run.trained_on.name, said=names[run.trained_on.name]),
        Cell(run.realisation),
        Cell(run.seed),
        Cell(results.test_error if results is not None else None),
        Cell(said.secli),
        Cell(said.commit),
        Cell(said.device),
        Cell(said.threads),
        Cell(said.created.removesuffix("+00:00").replace("T", " ")),
    )
