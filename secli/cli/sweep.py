"""``secli sweep``: every run of a file, on whatever machine there is, and the tables at its end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from secli.cli.console import advice, bar, note, out, out_json, terminal_width
from secli.cli.options import (
    COUNT,
    MOST_THREADS,
    PROCESSES,
    TABLES,
    Quiet,
    Track,
    argument,
    format_option,
    offline_option,
    option,
    out_option,
    set_option,
    source_option,
)

if TYPE_CHECKING:
    from secli.records.schema import DataInfo
    from secli.sweeps.engine import Engine
    from secli.sweeps.jobs import SweepJob
    from secli.sweeps.plan import PlannedRun
    from secli.sweeps.scheduler import SweepOutcome
    from secli.sweeps.spec import Sweep

of_workers = partial(option, panel="Workers")
of_data = partial(option, panel="Data")


def sweep(
    file: Annotated[Path, argument("FILE", "YAML file of the sweep, as in configs/.")],
    directory: Annotated[Path | None, out_option("Its directory.", "sweeps/NAME")] = None,
    dry_run: Annotated[
        bool, option("List the runs with an estimate of time and memory, and leave.", "--dry-run")
    ] = False,
    only: Annotated[
        list[str] | None,
        option(
            "Only these runs: dss_* (a model), realisation=0, training.augment=scale, model.base=2; repeatable.",
            metavar="KEY=PATTERN",
        ),
    ] = None,
    limit: Annotated[int | None, option("At most so many runs, from the first.", **COUNT)] = None,
    assignments: Annotated[
        list[str] | None, set_option("training.KEY=V", "A training setting of all runs, over the file's")
    ] = None,
    retry_failed: Annotated[
        bool, option("Try runs again that failed in an earlier call.", "--retry-failed")
    ] = False,
    results: Annotated[
        list[Path] | None,
        option(
            "Finished records that count as done, weights or not, beside those that the file names; repeatable.",
            metavar="DIR",
        ),
    ] = None,
    engine: Annotated[
        str, of_workers("Worker processes here, or a Ray cluster.", default=True, metavar="local|ray")
    ] = "local",
    address: Annotated[
        str | None, of_workers("The Ray cluster.", default="one on this machine", metavar="auto|HOST:PORT")
    ] = None,
    jobs: Annotated[
        int | None,
        of_workers("Runs at once.", default="as many as GPUs, else as cores divided by threads", **PROCESSES),
    ] = None,
    threads: Annotated[
        int,
        of_workers(
            "CPU threads of each run where the file does not say; part of its settings.",
            default=True,
            min=1,
            max=MOST_THREADS,
        ),
    ] = 1,
    data: Annotated[
        Path, of_data("Directory in which datasets are made, or found.", default=True, metavar="DIR")
    ] = Path("data"),
    source: Annotated[Path | None, source_option("Data")] = None,
    offline: Annotated[bool, offline_option("Data")] = False,
    stand_ins: Annotated[
        list[str] | None,
        of_data(
            "Take DIR/r0, DIR/r1, … in place of a dataset; the tables then name it; repeatable.",
            "--stand-in",
            metavar="DATASET=DIR",
        ),
    ] = None,
    track: Track = None,
    format: Annotated[str, format_option(*TABLES, note=" (with --dry-run: table or json)")] = "table",
    quiet: Quiet = False,
) -> None:
    """Train and measure every run of a file, then print its tables.

    Finished runs are skipped and interrupted ones gone on with: after Ctrl-C, a crash or a power cut, give the same
    command again. A run that fails hinders no other; --retry-failed tries it again.
    """
    from secli.config import parse_assignments
    from secli.errors import InputError, InterruptedRunError
    from secli.sweeps.spec import read_sweep

    if dry_run and format not in ("table", "json"):
        raise InputError(f"--format {format}: --dry-run prints a table or json")
    spec = read_sweep(file)
    given = parse_assignments(assignments or [], ["training"])["training"]

    # these bring torch, for which a mistake in the file does not wait
    from secli.sweeps.finished_records import check_places
    from secli.sweeps.model_check import check_taps
    from secli.sweeps.plan import plan
    from secli.sweeps.prepare_data import Sources, check_sources, requested_datasets, so_far
    from secli.sweeps.scheduler import chosen

    sources = Sources(data, source, offline, _stand_ins(stand_ins or []))
    everything = plan(spec, threads, given, sources.shape_of())
    runs = chosen(everything, only or [], limit)
    folder = directory or Path("sweeps") / spec.name
    carrier = _engine(engine, address, jobs, runs)
    check_sources(requested_datasets(runs), sources, folder, writes=not dry_run)
    check_taps(runs)
    check_places(results or [])
    places = [*(results or []), *spec.results]
    if dry_run:
        from secli.cli.sweep_dry_run import print_plan

        states = so_far(runs, sources, folder, places)
        print_plan(spec, runs, states, folder, carrier.slots, retry_failed, format, quiet)
        return
    trackers = _trackers(track or [], folder)
    command = _command(file, assignments or [])
    try:
        with advice(f"sweep {spec.name}: repeat the command to go on"):
            listed, mine = prepare_jobs(spec, everything, runs, sources, folder, quiet, command)
            take_over(mine, places, quiet)
        mine = [job.model_copy(update={"trackers": trackers, "tracked_in": folder}) for job in mine]
        outcome = carry_out_jobs(mine, carrier, retry_failed, quiet)
    except KeyboardInterrupt:  # a second time
        raise InterruptedRunError(f"sweep {spec.name}: repeat the command to go on") from None
    _finish(spec, folder, outcome, listed, format, quiet)


def take_over(jobs: Sequence[SweepJob], places: Sequence[Path], quiet: bool) -> None:
    """Let records of runs that were finished elsewhere count as done, and tell how many; damaged ones are named."""
    from secli.sweeps.finished_records import take_finished

    taken = take_finished(jobs, places, note)
    if taken and not quiet:
        note(f"{taken} finished run{'s' * (taken != 1)} taken from kept records, without weights")


def _trackers(names: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Open the trackers once, so that one that cannot be had is told before anything is made."""
    if names:
        from secli.trackers.forward import open_trackers

        for tracker in open_trackers(names, folder).values():
            tracker.close()
    return tuple(dict.fromkeys(names))


def _engine(name: str, address: str | None, jobs: int | None, runs: Sequence[PlannedRun]) -> Engine:
    """Return the engine, before anything is made, so that a wrong name costs no time."""
    from secli.errors import InputError, UnknownNameError

    if name == "local":
        if address is not None:
            raise InputError(f"--address {address}: belongs to --engine ray")
        from secli.sweeps.local import LocalEngine, visible_gpus
        from secli.training.devices import cores, on_this_machine

        _check_threads(runs, cores())
        for training in {run.resolved.training.model_copy(update={"seed": 0}) for run in runs}:
            on_this_machine(training)
        gpus, threads = visible_gpus(), max(run.resolved.training.threads or cores() for run in runs)
        return LocalEngine(jobs or len(gpus) or max(1, cores() // threads), threads, gpus)
    if name == "ray":
        from secli.sweeps.ray.cluster import RayEngine

        return RayEngine(address, jobs, max(run.resolved.training.threads for run in runs))
    raise UnknownNameError("engine --engine", name, ["local", "ray"])


def _check_threads(runs: Sequence[PlannedRun], cores: int) -> None:
    """Refuse runs of more threads than this machine has cores: they would hinder one another."""
    from secli.errors import InputError

    most = max(run.resolved.training.threads for run in runs)
    if most > cores:
        raise InputError(
            f"threads {most}: this machine has {cores} core{'s' * (cores != 1)}; "
            "set --threads or the file's training.threads to no more, or take --engine ray"
        )


def _stand_ins(texts: Sequence[str]) -> dict[str, Path]:
    from secli.datasets.protocols import DATASETS
    from secli.errors import InputError

    found = {}
    for text in texts:
        name, equals, directory = text.partition("=")
        if not equals or not directory:
            raise InputError(f"--stand-in {text}: write DATASET=DIR")
        found[DATASETS[name].name] = Path(directory)
    return found


def _command(file: Path, assignments: Sequence[str]) -> str:
    """Return the command that makes every run of the sweep: without what a call leaves out, or how it works."""
    import shlex

    return shlex.join(
        ["secli", "sweep", str(file), *(part for text in assignments for part in ("--set", text))]
    )


def prepare_jobs(
    spec: Sweep,
    everything: Sequence[PlannedRun],
    runs: Sequence[PlannedRun],
    sources: Any,
    folder: Path,
    quiet: bool,
    command: str,
) -> tuple[list[SweepJob], list[SweepJob]]:
    """Make the datasets of this call's runs, write down what the sweep holds; return all jobs and those of this call.

    Other runs of the sweep are listed as far as their datasets stand already: their names depend on them. So are those
    of a call before, as long as their directories stand.
    """
    from secli.sweeps.model_check import Fitting
    from secli.sweeps.prepare_data import jobs_of, prepare, present, requested_datasets, shape_in
    from secli.sweeps.scheduler import data_before

    with bar("images", quiet) as tell:
        fitting = Fitting()
        fitting.check(
            runs,
            sources.shape_of(),
            lambda done, total: tell(done, total, "try networks on an empty picture"),
        )
        needed = requested_datasets(runs)
        others = [each for each in requested_datasets(everything) if each not in needed]
        ready = prepare(
            [*needed, *present(others, sources)],
            sources,
            lambda name, done, total: tell(done, total, f"make {name}"),
        )
        fitting.check(runs, lambda data: shape_in(ready[data]))
    at_hand = [run.data in ready and (run.measure is None or run.measure.on in ready) for run in everything]
    data = [
        ready[run.data].info() if there else before
        for run, there, before in zip(everything, at_hand, data_before(folder, everything), strict=True)
    ]
    found = [(run, info) for run, info in zip(everything, data, strict=True) if info]
    _record_sweep(spec, folder, found, command)
    listed = jobs_of([run for run, there in zip(everything, at_hand, strict=True) if there], ready, folder)
    mine = {run.key(ready[run.data].digest) for run in runs}
    chosen = [job.model_copy(update={"command": command}) for job in listed if job.key in mine]
    return listed, chosen


def _record_sweep(
    spec: Sweep, folder: Path, found: Sequence[tuple[PlannedRun, DataInfo]], command: str
) -> None:
    """Record in the sweep's directory which runs it holds, of those whose data are known."""
    from secli.sweeps.plan import run_folder
    from secli.sweeps.scheduler import write_sweep

    keys = [run.key(info.digest) for run, info in found]
    folders = {key: run_folder(run, info.digest) for key, (run, info) in zip(keys, found, strict=True)}
    names = {key: info.name for key, (_, info) in zip(keys, found, strict=True)}
    write_sweep(folder, spec, [run for run, _ in found], folders, keys, command, names)


def carry_out_jobs(jobs: Sequence[SweepJob], engine: Engine, retry_failed: bool, quiet: bool) -> SweepOutcome:
    """Carry out what is left of the jobs, with the live view."""
    from secli.cli.sweep_progress import watching
    from secli.sweeps.scheduler import given_up, job_states, run_jobs
    from secli.training.interruption import catching_signals

    states = job_states(jobs)
    done = sum(state.state == "done" for state in states.values())
    hopeless = {key for key, state in states.items() if given_up(state, retry_failed)}
    weights = {
        job.key: float(job.training.epochs)
        for job in jobs
        if states[job.key].state != "done" and job.key not in hopeless
    }
    with (
        catching_signals() as interruption,
        watching(len(jobs), done, len(hopeless), weights, quiet) as show,
    ):
        return run_jobs(jobs, engine, show, lambda: interruption.requested, retry_failed)


def _finish(
    spec: Sweep, folder: Path, outcome: SweepOutcome, jobs: Sequence[SweepJob], format: str, quiet: bool
) -> None:
    """Print the tables of what is finished, and leave with the code that says whether all is."""
    from secli.errors import InterruptedRunError, SecliError

    if outcome.finished:
        print_tables(folder, format)
    failed = _failures(outcome, len(jobs))
    held = [(job, reason) for job, reason in outcome.left.values() if reason not in ("", "interrupted")]
    if held and len(held) == len(outcome.left):
        raise SecliError(
            f"sweep {spec.name}: {len(held)} runs are in other hands, the first: {held[0][1]}; "
            "repeat the command when they are done" + (failed and f"; {failed}")
        )
    if outcome.left:
        raise InterruptedRunError(
            f"sweep {spec.name}: stopped with {len(outcome.left)} runs to do; their state is saved: "
            "repeat the command to go on" + (failed and f"; {failed}")
        )
    if failed:
        raise SecliError(f"sweep {spec.name}: {failed}")
    if not quiet:
        note(f"sweep {spec.name}: {len(outcome.finished)} runs finished in {folder}")


def _failures(outcome: SweepOutcome, count: int) -> str:
    """Say how many runs failed, which the first is, and what to do; empty where none did."""
    if not outcome.failed:
        return ""
    job, reason = next(iter(outcome.failed.values()))
    told = f"{len(outcome.failed)} of {count} runs failed, the first: {job.title}: {reason}"
    if len(outcome.failed) > len(outcome.hopeless):
        told += "; --retry-failed tries them again"
    return told


def print_tables(directory: Path, format: str) -> None:
    """Print the tables of what is finished in a sweep's directory; for programs, as one document."""
    from secli.records.schema import read_sweep_record
    from secli.tables.render import render
    from secli.tables.render.csv import csv_document
    from secli.tables.render.json import document
    from secli.tables.sweep_tables import sweep_tables

    tables = sweep_tables(directory)
    if format == "json":
        record = read_sweep_record(directory)
        assert record is not None  # sweep_tables has read it
        out_json(document(tables, name=record.name, about=record.about, command=record.command))
    elif format == "csv":
        out(csv_document(tables), "csv")
    else:
        out(render(tables, format, terminal_width()))
