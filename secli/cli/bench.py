"""``secli bench``: what measuring costs on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from secli.cli.console import out, progress

if TYPE_CHECKING:
    from torch import Tensor


def bench(
    equivariance: Annotated[
        str,
        typer.Option(
            metavar="MODEL", help="Time the curve of this registered network or run.", show_default=False
        ),
    ],
    images: Annotated[int, typer.Option(min=1, help="Pictures.")] = 1000,
    factors: Annotated[int, typer.Option(min=1, help="Scale factors below 1.")] = 9,
    repeats: Annotated[int, typer.Option(min=1, help="How often both are timed; the medians count.")] = 3,
    batch: Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")] = 100,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
    format: Annotated[str, typer.Option(metavar="table|json", help="What is printed.")] = "table",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Time measuring an equivariance curve, every tap and its floor, against the network's own forward passes.

    Both are timed in turn within one run; a ratio of 1 would mean that measuring costs nothing beside them.
    """
    import json

    from secli.equivariance.benchmark import curve_cost
    from secli.errors import InputError
    from secli.experiments.measuring import machine
    from secli.training.determinism import reproducible
    from secli.training.devices import device_name
    from secli.training.loading import load_subject

    if format not in ("table", "json"):
        raise InputError(f"--format {format}: known: table, json")
    where = machine(device, threads)
    subject = load_subject(equivariance)
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
