"""``secli bench``: how fast networks are on this machine, and what measuring costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from secli.cli.console import note, out, progress
from secli.cli.limits import COUNT, MOST_SIDE, PROCESSES, ROUNDS, THREADS

if TYPE_CHECKING:
    from secli.bench.rows import Request
    from secli.bench.timing import Mode


class Benchmark(NamedTuple):
    """One of the kinds.

    Attributes
    ----------
    title
        What the progress display says.
    measure
        Returns the rows, given ``on_progress``.
    table
        Returns the rows as text that fits a terminal.
    """

    title: str
    measure: Callable[..., list[dict[str, Any]]]
    table: Callable[[Sequence[dict[str, Any]], int], str]


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Networks of the registry.", show_default=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every network of the registry.")] = False,
    train: Annotated[bool, typer.Option("--train", help="Time training steps.")] = False,
    evaluate: Annotated[bool, typer.Option("--eval", help="Time forward passes. Neither: both.")] = False,
    literal: Annotated[
        bool,
        typer.Option(
            "--literal/--no-literal",
            help="Also time the literal form of networks that have one, all kernels on the largest support.",
        ),
    ] = True,
    forms: Annotated[
        bool,
        typer.Option("--forms", help="Instead, time them without each faster form of the layers in turn."),
    ] = False,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory",
            help="Also measure a training step's peak memory, in a process of its own.",
        ),
    ] = True,
    replicas: Annotated[
        int | None,
        typer.Option(
            **PROCESSES,
            metavar="R",
            help="Instead, time training steps of R networks at once beside R one after the other.",
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=16, max=MOST_SIDE, help="Side of the pictures in pixels.", show_default="each network's own"
        ),
    ] = None,
    equivariance: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Instead, time the curve of this registered network or run.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[bool, typer.Option("--data", help="Instead, time the making of a dataset.")] = False,
    dataset: Annotated[
        str, typer.Option(metavar="DATASET", help="With --data: which dataset, realisations 0 to 5.")
    ] = "mnist-scale",
    export: Annotated[
        bool, typer.Option("--export-png", help="With --data: also the trees of PNG files.")
    ] = False,
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Its raw pictures.", show_default="the cache, then a download"),
    ] = None,
    images: Annotated[int, typer.Option(**COUNT, help="Pictures of the curve.")] = 1000,
    factors: Annotated[int, typer.Option(min=1, max=1000, help="Scale factors below 1 of the curve.")] = 9,
    repeats: Annotated[
        int | None,
        typer.Option(
            **ROUNDS,
            help="How often all are timed, in turn; the medians count.",
            show_default="5; curve 3, data 1",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(**COUNT, help="Pictures per pass.", show_default="32; curve: from measured memory"),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            metavar="32|tf32|bf16|16",
            help="Arithmetic of the networks, as in training. Where networks alone are timed, float32 stands beside "
            "any other.",
        ),
    ] = "32",
    threads: Annotated[int, typer.Option(**THREADS, help="CPU threads; 0: one per core.")] = 0,
    format: Annotated[str, typer.Option(metavar="table|json", help="What is printed.")] = "table",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Time networks: images per second in training and in evaluation, beside what the machine can do.

    All take turns in each round, freshly initialised, on noise of their own size, and with them a large convolution
    (of roof: the share of its floating-point operations per second) and the literal form of the steerable networks
    (vs literal: how many times longer that takes; one convolution, all kernels on the largest support).

    With --equivariance: the time of a whole curve, every tap and its floor, against the network's own forward
    passes, and of L_s against a loop over planes with scipy's zoom. With --forms: what each way of computing the
    layers faster brings. With --replicas: training steps of several networks at once, beside one after the other.
    With --data: the time to make six realisations of a dataset.
    """
    from secli.catalogue import MODELS
    from secli.errors import InputError

    if format not in ("table", "json"):
        raise InputError(f"--format {format}: known: table, json")
    kinds = {
        "--forms": forms,
        "--replicas": replicas is not None,
        "--equivariance": equivariance is not None,
        "--data": data,
    }
    networks = bool(models or every or train or evaluate or image_size or precision != "32")
    _refuse_mixtures([kind for kind, given in kinds.items() if given], networks, evaluate, export)
    if equivariance is not None:
        from secli.bench.measure_cost import measure_cost_rows, measure_cost_table

        measure = partial(
            measure_cost_rows,
            equivariance,
            images,
            factors,
            repeats=repeats or 3,
            batch=batch,
            device=device,
            threads=threads,
        )
        _run(Benchmark(equivariance, measure, measure_cost_table), format, quiet)
        return
    if data:
        from secli.bench.datasets import dataset_rows, dataset_table

        measure = partial(dataset_rows, dataset, source, export=export, repeats=repeats or 1)
        _run(Benchmark(dataset, measure, dataset_table), format, quiet)
        return
    names = list(MODELS.own) if every else [MODELS[name].name for name in models or []]
    if not names:
        raise InputError(
            "name the networks to time (see 'secli models'), or give --all, --equivariance MODEL or --data"
        )
    from secli.bench.rows import Request

    both = train == evaluate
    modes: list[Mode] = ["train", "eval"] if both else ["train"] if train else ["eval"]
    request = Request(names, modes, device, threads, precision, batch or 32, repeats or 5, image_size)
    _run(_of_networks(request, forms, replicas, literal, memory), format, quiet)


def _refuse_mixtures(kinds: list[str], networks: bool, evaluate: bool, export: bool) -> None:
    """Raise ``InputError`` on options that go with another kind of benchmark than the one asked for."""
    from secli.errors import InputError

    if len(kinds) > 1:
        raise InputError(f"{' and '.join(kinds)} exclude each other: each times something else")
    alone = {
        "--equivariance": "--images, --factors, --repeats, --batch",
        "--data": "--dataset, --source, --repeats",
    }
    for kind in kinds:
        if networks and kind in alone:
            raise InputError(
                f"{kind} times no networks in training or evaluation; it goes with {alone[kind]}"
            )
    if "--replicas" in kinds and evaluate:
        raise InputError("--replicas times training steps; leave out --eval")
    if export and "--data" not in kinds:
        raise InputError("--export-png goes with --data")


def _of_networks(
    request: Request, forms: bool, replicas: int | None, literal: bool, memory: bool
) -> Benchmark:
    """Return the benchmark that times networks in the way asked for."""
    if forms:
        from secli.bench.layer_forms import form_rows, form_table

        return Benchmark("timing", partial(form_rows, request), form_table)
    if replicas is not None:
        from secli.bench.replicas import replica_rows, replica_table

        return Benchmark("timing", partial(replica_rows, request, replicas), replica_table)
    from secli.bench.networks import network_rows, network_table

    return Benchmark("timing", partial(network_rows, request, literal, memory), network_table)


def _run(benchmark: Benchmark, format: str, quiet: bool) -> None:
    """Carry a benchmark out and print its rows; say on stderr which the machine was too busy to decide."""
    import json
    from shutil import get_terminal_size

    from secli.bench.rows import noisy_rows

    with progress(quiet) as display:
        unit = "timings" if benchmark.title == "timing" else "rounds"
        task = display.add_task(benchmark.title, total=None, unit=unit, detail="")
        rows = benchmark.measure(
            on_progress=lambda done, total: display.update(task, completed=done, total=total)
        )
    if format == "json":
        found = rows[0] if "network" in rows[0] else rows  # of one curve an object, not a list
        out(json.dumps(found, indent=1, ensure_ascii=False), "json")
    else:
        out(benchmark.table(rows, get_terminal_size((100, 24)).columns))
    noisy = noisy_rows(rows)
    if noisy:
        note(
            f"the repeats differ too much to decide ({', '.join(noisy)}); time again on a quieter machine, "
            "or with more --repeats"
        )
