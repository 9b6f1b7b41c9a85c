"""The part of ``secli bench`` that times a curve: beside its forward passes, and beside a loop with scipy."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING, Any

from secli.cli.console import out, progress

if TYPE_CHECKING:
    from torch import Tensor


def time_curve(
    name: str,
    images: int,
    factors: int,
    repeats: int,
    batch: int | None,
    device: str,
    threads: int,
    format: str,
    quiet: bool,
) -> None:
    """Time one curve and print what it costs beside the forward passes, and L_s beside a loop over planes."""
    from secli.equivariance.benchmark import curve_cost, zoom_cost
    from secli.provenance import command_line
    from secli.sweeps.measure import machine
    from secli.training.determinism import reproducible
    from secli.training.devices import device_name
    from secli.training.load import load_subject

    where = machine(device, threads)
    subject = load_subject(name)
    pictures = _noise(images, subject.info.options)
    with progress(quiet) as display, reproducible(where):
        task = display.add_task(subject.info.name, total=2 * repeats, unit="rounds", detail="")
        cost = curve_cost(
            subject.model,
            pictures,
            factors=factors,
            repeats=repeats,
            batch=batch,
            device=where.device,
            on_progress=lambda done, _: display.update(task, completed=done),
        )
        zoom = zoom_cost(
            subject.model,
            pictures[: cost["batch"]],
            repeats=repeats,
            device=where.device,
            on_progress=lambda done, _: display.update(task, completed=repeats + done),
        )
    row = {
        "network": subject.info.name,
        "device": device_name(where.device),
        "threads": where.threads,
        **cost,
        **zoom,
        "command": command_line(),
    }
    out(json.dumps(row, indent=1, ensure_ascii=False) if format == "json" else _table(row), format)


def _noise(count: int, options: dict[str, Any]) -> Tensor:
    """Return random pictures of the network's shape: time does not depend on what they show."""
    import torch

    channels, height, width = options.get("input") or (
        options.get("in_channels", 1),
        *[options.get("image_size", 28)] * 2,
    )
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def _table(row: dict[str, Any]) -> str:
    lines = [
        f"{row['network']}: {row['taps']} taps, {row['factors']} factors, {row['images']} images in batches "
        f"of {row['batch']}; {row['device']}, {row['threads']} threads",
        f"{row['passes']} forward passes   {median(row['forward_s']):8.2f} s",
        f"the whole curve     {median(row['measure_s']):8.2f} s",
        f"ratio of medians    {row['ratio']:8.3f}   (each repeat: {_each(row['ratios'], 3)})",
    ]
    if row["zoom_ratio"] is not None:
        lines += [
            f"L_s and comparison  {median(row['action_us']):8.0f} µs per image and tap "
            f"({', '.join(row['zoom_taps'])}; s = {row['zoom_factor']:.3f})",
            f"a loop with scipy   {median(row['loop_us']):8.0f} µs per image and tap ({row['zoom_images']} images)",
            f"ratio of medians    {row['zoom_ratio']:8.1f}   (each repeat: {_each(row['zoom_ratios'], 1)})",
        ]
    return "\n".join(lines)


def _each(ratios: list[float], digits: int) -> str:
    return ", ".join(f"{ratio:.{digits}f}" for ratio in ratios)
