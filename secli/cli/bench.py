"""``secli bench``: how fast networks are on this machine, and what measuring costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from secli.cli.console import out, progress

if TYPE_CHECKING:
    from torch import Tensor


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Networks of the registry.", show_default=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every network of the registry.")] = False,
    train: Annotated[bool, typer.Option("--train", help="Time training steps.")] = False,
    evaluate: Annotated[bool, typer.Option("--eval", help="Time forward passes. Neither: both.")] = False,
    image_size: Annotated[
        int | None,
        typer.Option(min=16, help="Side of the pictures in pixels.", show_default="each network's own"),
    ] = None,
    equivariance: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Instead, time the curve of this registered network or run.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Pictures of the curve.")] = 1000,
    factors: Annotated[int, typer.Option(min=1, help="Scale factors below 1 of the curve.")] = 9,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1, help="How often all are timed, in turn; the medians count.", show_default="5; curve 3"
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Pictures per pass.", show_default="32; curve 100")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
    format: Annotated[str, typer.Option(metavar="table|json", help="What is printed.")] = "table",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Time networks: images per second in training and in evaluation.

    All take turns in each round, freshly initialised, on noise of their own size. With --equivariance: the time of
    a whole curve, every tap and its floor, against the network's own forward passes.
    """
    from secli.errors import InputError

    if format not in ("table", "json"):
        raise InputError(f"--format {format}: known: table, json")
    if equivariance is not None:
        if models or every or train or evaluate or image_size:
            raise InputError(
                "--equivariance times one curve; it goes with --images, --factors, --repeats, --batch"
            )
        _curve(equivariance, images, factors, repeats or 3, batch or 100, device, threads, format, quiet)
        return
    from secli.catalogue import MODELS

    names = list(MODELS.own) if every else [MODELS[name].name for name in models or []]
    if not names:
        raise InputError(
            "name the networks to time (see 'secli models'), or give --all, or --equivariance MODEL"
        )
    modes = [mode for mode, wanted in (("train", train), ("eval", evaluate)) if wanted] or ["train", "eval"]
    _speeds(names, modes, image_size, repeats or 5, batch or 32, device, threads, format, quiet)


def _speeds(
    names: list[str],
    modes: list[str],
    image_size: int | None,
    repeats: int,
    batch: int,
    device: str,
    threads: int,
    format: str,
    quiet: bool,
) -> None:
    """Time networks and print a row for each mode."""
    import json
    from dataclasses import asdict

    from secli.experiments.measuring import machine
    from secli.provenance import command_line, library_versions
    from secli.training.determinism import reproducible
    from secli.training.devices import device_name
    from secli.training.speed import measure_speed

    where = machine(device, threads)
    with progress(quiet) as display, reproducible(where, strict=False):
        task = display.add_task("timing", total=None, unit="timings", detail="")
        speeds = measure_speed(
            names,
            ["train" if mode == "train" else "eval" for mode in modes],
            batch=batch,
            repeats=repeats,
            device=where.device,
            image_size=image_size,
            on_progress=lambda done, total: display.update(task, completed=done, total=total),
        )
    place = {
        "device": device_name(where.device),
        "threads": where.threads,
        "torch": library_versions()["torch"],
        "command": command_line(),
    }
    if format == "json":
        out(json.dumps([asdict(speed) | place for speed in speeds], indent=1, ensure_ascii=False))
        return
    width = max(len(name) for name in names)
    out(f"{place['device']}, {place['threads']} threads, batch {batch}, {repeats} repeats: images per second")
    for each in speeds:
        rate = f"{each.images_per_second:10.1f}   ({each.low:.1f} to {each.high:.1f})"
        out(f"{each.model:{width}}   {each.mode:5}   {rate}")


def _curve(
    name: str,
    images: int,
    factors: int,
    repeats: int,
    batch: int,
    device: str,
    threads: int,
    format: str,
    quiet: bool,
) -> None:
    """Time one curve and print what it costs beside the forward passes."""
    import json

    from secli.equivariance.benchmark import curve_cost
    from secli.experiments.measuring import machine
    from secli.training.determinism import reproducible
    from secli.training.devices import device_name
    from secli.training.loading import load_subject

    where = machine(device, threads)
    subject = load_subject(name)
    with progress(quiet) as display, reproducible(where):
        task = display.add_task(subject.info.name, total=repeats, unit="rounds", detail="")
        cost: dict[str, Any] = curve_cost(
            subject.model,
            _noise(images, subject.info.options),
            factors=factors,
            repeats=repeats,
            batch=batch,
            device=where.device,
            on_progress=lambda done, _: display.update(task, completed=done),
        )
    place = {
        "network": subject.info.name,
        "device": device_name(where.device),
        "threads": where.threads,
    }
    out(json.dumps(place | cost, indent=1) if format == "json" else _table(place | cost))


def _noise(count: int, options: dict[str, Any]) -> Tensor:
    """Return random pictures of the network's shape: time does not depend on what they show."""
    import torch

    channels, height, width = options.get("input") or (
        options.get("in_channels", 1),
        *[options.get("image_size", 28)] * 2,
    )
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def _table(cost: dict[str, Any]) -> str:
    from statistics import median

    return "\n".join(
        [
            f"{cost['network']}: {cost['taps']} taps, {cost['factors']} factors, {cost['images']} images in batches "
            f"of {cost['batch']}; {cost['device']}, {cost['threads']} threads",
            f"{cost['passes']} forward passes   {median(cost['forward_s']):8.2f} s",
            f"the whole curve     {median(cost['measure_s']):8.2f} s",
            f"ratio of medians    {cost['ratio']:8.3f}   (each repeat: "
            f"{', '.join(f'{ratio:.3f}' for ratio in cost['ratios'])})",
        ]
    )
