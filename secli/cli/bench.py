"""``secli bench``: how fast networks are on this machine, and what measuring costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secli.cli.bench_rows import Asked
from secli.cli.limits import COUNT, MOST_SIDE, PROCESSES, ROUNDS, THREADS

if TYPE_CHECKING:
    from secli.training.speed import Mode


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
    from secli.errors import InputError

    if format not in ("table", "json"):
        raise InputError(f"--format {format}: known: table, json")
    kinds = {
        "--forms": forms,
        "--replicas": replicas is not None,
        "--equivariance": equivariance is not None,
        "--data": data,
    }
    chosen = [kind for kind, wanted in kinds.items() if wanted]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)} exclude each other: each times something else")
    networks = bool(models or every or train or evaluate or image_size or precision != "32")
    if networks and (equivariance is not None or data):
        goes = "--images, --factors, --repeats, --batch" if equivariance else "--dataset, --source, --repeats"
        raise InputError(f"{chosen[0]} times no networks in training or evaluation; it goes with {goes}")
    if replicas is not None and evaluate:
        raise InputError("--replicas times training steps; leave out --eval")
    if export and not data:
        raise InputError("--export-png goes with --data")
    if equivariance is not None:
        from secli.cli.bench_curve import time_curve

        time_curve(equivariance, images, factors, repeats or 3, batch, device, threads, format, quiet)
        return
    if data:
        from secli.cli.bench_data import time_data

        time_data(dataset, source, repeats or 1, format, quiet, export)
        return
    from secli.catalogue import MODELS

    names = list(MODELS.own) if every else [MODELS[name].name for name in models or []]
    if not names:
        raise InputError(
            "name the networks to time (see 'secli models'), or give --all, --equivariance MODEL or --data"
        )
    modes: list[Mode] = (
        ["train"] if train and not evaluate else ["eval"] if evaluate and not train else ["train", "eval"]
    )
    asked = Asked(
        names, modes, device, threads, precision, batch or 32, repeats or 5, image_size, format, quiet
    )
    if forms:
        from secli.cli.bench_forms import time_forms

        time_forms(asked)
    elif replicas is not None:
        from secli.cli.bench_replicas import time_replicas

        time_replicas(asked, replicas)
    else:
        from secli.cli.bench_networks import time_networks

        time_networks(asked, literal, memory)
