"""``secli bench``: how fast networks are on this machine, and what measuring costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from secli.cli.console import bar, note, out, out_json, terminal_width
from secli.cli.options import (
    COUNT,
    MOST_SIDE,
    PRECISIONS,
    PROCESSES,
    ROUNDS,
    Device,
    Threads,
    argument,
    format_option,
    option,
    quiet_option,
    source_option,
)

if TYPE_CHECKING:
    from secli.bench.rows import TimingRequest
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
    models: Annotated[list[str] | None, argument("MODEL", "Networks of the registry.")] = None,
    every: Annotated[bool, option("Every network of the registry.", "--all")] = False,
    train: Annotated[bool, option("Time training steps.", "--train")] = False,
    evaluate: Annotated[bool, option("Time forward passes. Neither: both.", "--eval")] = False,
    literal: Annotated[
        bool,
        option(
            "Also time the literal form of networks that have one, all kernels on the largest support.",
            "--literal/--no-literal",
            default=True,
        ),
    ] = True,
    forms: Annotated[
        bool, option("Instead, time them without each faster form of the layers in turn.", "--forms")
    ] = False,
    memory: Annotated[
        bool,
        option(
            "Also measure a training step's peak memory, in a process of its own.",
            "--memory/--no-memory",
            default=True,
        ),
    ] = True,
    replicas: Annotated[
        int | None,
        option(
            "Instead, time training steps of R networks at once beside R one after the other.",
            metavar="R",
            **PROCESSES,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        option("Side of the pictures in pixels.", default="each network's own", min=16, max=MOST_SIDE),
    ] = None,
    equivariance: Annotated[
        str | None, option("Instead, time the curve of this registered network or run.", metavar="MODEL")
    ] = None,
    data: Annotated[bool, option("Instead, time the making of a dataset.", "--data")] = False,
    dataset: Annotated[
        str, option("With --data: which dataset, realisations 0 to 5.", default=True, metavar="DATASET")
    ] = "mnist-scale",
    export: Annotated[bool, option("With --data: also the trees of PNG files.", "--export-png")] = False,
    source: Annotated[Path | None, source_option()] = None,
    images: Annotated[int, option("Pictures of the curve.", default=True, **COUNT)] = 1000,
    factors: Annotated[int, option("Scale factors below 1 of the curve.", default=True, min=1, max=1000)] = 9,
    repeats: Annotated[
        int | None,
        option(
            "How often all are timed, in turn; the medians count.", default="5; curve 3, data 1", **ROUNDS
        ),
    ] = None,
    batch: Annotated[
        int | None, option("Pictures per pass.", default="32; curve: from measured memory", **COUNT)
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        str,
        option(
            "Arithmetic of the networks, as in training. Where networks alone are timed, float32 stands beside any "
            "other.",
            default=True,
            metavar=PRECISIONS,
        ),
    ] = "32",
    threads: Threads = 0,
    format: Annotated[str, format_option("table", "json")] = "table",
    quiet: Annotated[bool, quiet_option("No progress.")] = False,
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
    from secli.bench.rows import TimingRequest

    both = train == evaluate
    modes: list[Mode] = ["train", "eval"] if both else ["train"] if train else ["eval"]
    request = TimingRequest(names, modes, device, threads, precision, batch or 32, repeats or 5, image_size)
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
    request: TimingRequest, forms: bool, replicas: int | None, literal: bool, memory: bool
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
    from secli.bench.rows import noisy_rows

    unit = "timings" if benchmark.title == "timing" else "rounds"
    with bar(unit, quiet, benchmark.title) as tell:
        rows = benchmark.measure(on_progress=tell)
    if format == "json":
        out_json(rows[0] if "network" in rows[0] else rows)  # of one curve an object, not a list
    else:
        out(benchmark.table(rows, terminal_width()))
    noisy = noisy_rows(rows)
    if noisy:
        note(
            f"the repeats differ too much to decide ({', '.join(noisy)}); time again on a quieter machine, "
            "or with more --repeats"
        )
