"""What measuring costs, against the forward passes that it cannot do without and against a loop with scipy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from secli.action.fields import Canvas, Field, Plane, ScaleSpace, read_levels
from secli.action.images import rescale
from secli.bench.rows import Row
from secli.bench.scipy_loop import looped_error
from secli.bench.timing import OnProgress, duration
from secli.config import MeasureSettings
from secli.equivariance.batching import batches
from secli.equivariance.cell_error import SMALLEST_PLANE, TapError
from secli.equivariance.comparison import pieces
from secli.equivariance.curves import curve_batch, measure_curves
from secli.equivariance.evaluation_mode import measuring
from secli.equivariance.features import taken
from secli.models.contract import Features, Model
from secli.provenance import command_line
from secli.sweeps.measure import machine
from secli.training.determinism import reproducible
from secli.training.devices import device_name
from secli.training.load import load_subject

SMALLEST = 1 / 3
ZOOMED = SMALLEST**0.5
"""The factor in the middle of a curve's."""
LOOPED = 2
"""Pictures that the slow loop is given: it takes some milliseconds for each and every tap."""


def curve_cost(
    model: Model,
    images: Float[Tensor, "n c h w"],
    *,
    factors: int = 9,
    repeats: int = 3,
    batch: int | None = None,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Time a whole curve, every declared tap with its floor, against the network's own forward passes.

    The two are timed in turn, so that a machine which grows slower or busier slows both alike, and the ratio is
    that of their medians. A first, untimed round of one batch warms caches and operators.

    Parameters
    ----------
    model : Model
        The network.
    images : tensor (N, C, H, W)
        Pixels in [0, 1].
    factors : int
        Scale factors below 1, geometrically spaced from 1/3; the curve makes one forward pass more, at s = 1.
    repeats : int
        How often both are timed.
    batch : int, optional
        Images per forward pass, in both; default: as many as a curve takes.
    device : str
        Where to compute.
    on_progress : callable, optional
        Called with (rounds done, rounds in all).

    Returns
    -------
    dict
        ``forward_s`` and ``measure_s``, the seconds of each repeat; ``ratio`` of their medians, ``ratios`` of each
        repeat; ``images``, ``factors``, ``passes``, ``taps``, ``batch``.
    """
    chosen = tuple(SMALLEST ** ((k + 1) / factors) for k in range(factors))
    settings = MeasureSettings(factors=chosen, images=len(images), batch=batch)
    batch = curve_batch(model, images, settings, on_black=True, device=device)
    forward_s, measure_s = [], []
    _forward(model, images[:batch], 1, batch, device)
    _measure(model, images[:batch], settings, device)
    for done in range(repeats):
        forward_s.append(_forward(model, images, factors + 1, batch, device))
        measure_s.append(_measure(model, images, settings, device))
        if on_progress:
            on_progress(done + 1, repeats)
    return {
        "images": len(images),
        "batch": batch,
        "factors": factors,
        "passes": factors + 1,
        "taps": len(model.taps),
        "forward_s": forward_s,
        "measure_s": measure_s,
        "ratios": [all_ / own for all_, own in zip(measure_s, forward_s, strict=True)],
        "ratio": median(measure_s) / median(forward_s),
    }


def zoom_cost(
    model: Model,
    images: Float[Tensor, "n c h w"],
    *,
    factor: float = ZOOMED,
    repeats: int = 3,
    looped: int = LOOPED,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Time L_s with its comparison against a loop over pictures, channels and levels with ``scipy.ndimage``.

    Both get the same features and compare the same levels, without a floor; the loop does so for a few of the
    images. They are timed in turn.

    Parameters
    ----------
    model : Model
        The network; its taps on planes and scale spaces that are large enough at this factor are taken.
    images : tensor (N, C, H, W)
        One batch.
    factor : float
        Scale factor s.
    repeats : int
        How often both are timed.
    looped : int
        Images that the loop is given.
    device : str
        Where L_s is computed; the loop is the CPU's.
    on_progress : callable, optional
        Called with (rounds done, rounds in all).

    Returns
    -------
    dict
        ``action_us`` and ``loop_us``, microseconds per image and tap of each repeat; ``zoom_ratio`` of their
        medians, ``zoom_ratios`` of each repeat; ``zoom_taps``, ``zoom_factor``, ``zoom_images``. Without any such
        tap there is nothing but null.
    """
    with measuring(model, device) as dtype:
        batch = next(batches(images, len(images), device, dtype))
        canvas = Canvas(batch.shape[-2], batch.shape[-1])
        before, after = model.features(batch), model.features(rescale(batch, factor))
        taps = {tap: field for tap, field in model.taps.items() if _planar(field, before[tap], factor)}
        loops = [_loop_planes(field, before[tap], after[tap], factor, looped) for tap, field in taps.items()]

        def act() -> None:
            for tap, field in taps.items():
                for part in pieces(after[tap]):
                    one, other = taken(before[tap], part), taken(after[tap], part)
                    TapError(field, factor, "squared", floor=False).add(one, other, one, other, canvas)

        def loop() -> None:
            for planes, others, stride in loops:
                for picture, answer in zip(planes, others, strict=True):
                    looped_error(picture, answer, factor, stride)

        action_s, loop_s = [], []
        for done in range(-1, repeats):  # the first round warms up
            one, other = duration(act, 1, device), duration(loop, 1, "cpu")
            if done >= 0:
                action_s.append(one)
                loop_s.append(other)
                if on_progress:
                    on_progress(done + 1, repeats)
    few = min(looped, len(images))
    action_us = [1e6 * seconds / len(images) / len(taps) for seconds in action_s if taps]
    loop_us = [1e6 * seconds / few / len(taps) for seconds in loop_s if taps]
    return {
        "zoom_factor": factor,
        "zoom_images": few,
        "zoom_taps": list(taps),
        "action_us": action_us,
        "loop_us": loop_us,
        "zoom_ratios": [slow / fast for slow, fast in zip(loop_us, action_us, strict=True)],
        "zoom_ratio": median(loop_us) / median(action_us) if taps else None,
    }


def _planar(field: Field, features: Features, factor: float) -> bool:
    """Say whether a tap has planes that are large enough, and levels that are known."""
    if not isinstance(field, (Plane, ScaleSpace)) or isinstance(features, list):
        return False
    known = not isinstance(field, ScaleSpace) or any(source is not None for source in field.sources(factor))
    return known and min(features.shape[-2:]) * factor >= SMALLEST_PLANE


def _loop_planes(
    field: Field, before: Features, after: Features, factor: float, images: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the planes (images, planes, H, W) that a loop rescales and compares, and the image pixels per cell."""
    assert isinstance(before, Tensor)
    assert isinstance(after, Tensor)
    assert isinstance(field, (Plane, ScaleSpace))
    before, after = before[:images], after[:images]
    if isinstance(field, ScaleSpace):
        sources = field.sources(factor)
        used = [k for k, source in enumerate(sources) if source is not None]
        before = read_levels(before, [source for source in sources if source is not None])
        after = after[:, :, used]
    stride = field.stride[0] if isinstance(field.stride, tuple) else field.stride
    one, other = (
        tensor.reshape(len(tensor), -1, *tensor.shape[-2:]).cpu().numpy() for tensor in (before, after)
    )
    return one, other, stride


def _forward(model: Model, images: Float[Tensor, "n c h w"], passes: int, batch: int, device: str) -> float:
    """Return the seconds of so many passes over all images."""
    with measuring(model, device) as dtype:

        def run() -> None:
            for part in batches(images, batch, device, dtype):
                for _ in range(passes):
                    model(part)

        return duration(run, 1, device)


def _measure(model: Model, images: Float[Tensor, "n c h w"], settings: MeasureSettings, device: str) -> float:
    """Return the seconds of one curve."""
    return duration(lambda: measure_curves(model, images, settings, on_black=True, device=device), 1, device)


def measure_cost_rows(
    network: str,
    images: int = 1000,
    factors: int = 9,
    *,
    repeats: int = 3,
    batch: int | None = None,
    device: str = "auto",
    threads: int = 0,
    on_progress: OnProgress,
) -> list[Row]:
    """Time a network's curve on this machine, and L_s against the loop with scipy: one row.

    Parameters
    ----------
    network : str
        Registered name or run directory.
    images, factors, repeats, batch
        As in :func:`curve_cost`.
    device, threads
        Not yet resolved for this machine.
    on_progress : callable
        Called with (rounds done, rounds in all).
    """
    where = machine(device, threads)
    subject = load_subject(network)
    pictures = _noise(images, subject.info.options)
    with reproducible(where):
        cost = curve_cost(
            subject.model,
            pictures,
            factors=factors,
            repeats=repeats,
            batch=batch,
            device=where.device,
            on_progress=lambda done, _: on_progress(done, 2 * repeats),
        )
        zoom = zoom_cost(
            subject.model,
            pictures[: cost["batch"]],
            repeats=repeats,
            device=where.device,
            on_progress=lambda done, _: on_progress(repeats + done, 2 * repeats),
        )
    return [
        {
            "network": subject.info.name,
            "device": device_name(where.device),
            "threads": where.threads,
            **cost,
            **zoom,
            "command": command_line(),
        }
    ]


def _noise(count: int, options: Mapping[str, Any]) -> Float[Tensor, "n c h w"]:
    """Return random pictures of the network's shape: time does not depend on what they show."""
    side = options.get("image_size", 28)
    channels, height, width = options.get("input") or (options.get("in_channels", 1), side, side)
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def measure_cost_table(rows: Sequence[Row], width: int) -> str:
    """Return what a curve costs, a line for each time."""
    (row,) = rows
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


def _each(ratios: Sequence[float], digits: int) -> str:
    return ", ".join(f"{ratio:.{digits}f}" for ratio in ratios)
