"""What measuring costs beside the forward passes that it cannot do without."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from secli.action.fields import Canvas, Field, Plane, ScaleSpace, read_levels
from secli.action.images import rescale
from secli.config import MeasureSettings
from secli.equivariance.batching import batches
from secli.equivariance.cell_error import SMALLEST_PLANE, TapError
from secli.equivariance.curves import curve_batch, measure_curves, pieces
from secli.equivariance.evaluation_mode import measuring
from secli.equivariance.features import taken
from secli.equivariance.zooming import looped_error
from secli.models.contract import Features, Model

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
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, float | int | list[float]]:
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
    device : torch.device
        Where to compute.
    on_progress : callable, optional
        Called with (rounds done, rounds in all).

    Returns
    -------
    dict
        ``forward_s`` and ``measure_s``, the seconds of each repeat; ``ratio`` of their medians, ``ratios`` of each
        repeat; ``images``, ``factors``, ``passes``, ``taps``, ``batch``.
    """
    wanted = tuple(SMALLEST ** ((k + 1) / factors) for k in range(factors))
    settings = MeasureSettings(factors=wanted, images=len(images), batch=batch)
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
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
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
    device : torch.device
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
        action_s, loop_s = [], []
        for done in range(-1, repeats):  # the first round warms up
            _wait(device)
            start = time.perf_counter()
            for tap, field in taps.items():
                for part in pieces(after[tap]):
                    one, other = taken(before[tap], part), taken(after[tap], part)
                    TapError(field, factor, "squared", floor=False).add(one, other, one, other, canvas)
            _wait(device)
            middle = time.perf_counter()
            for planes, others, stride in loops:
                for picture, answer in zip(planes, others, strict=True):
                    looped_error(picture, answer, factor, stride)
            if done >= 0:
                action_s.append(middle - start)
                loop_s.append(time.perf_counter() - middle)
                if on_progress:
                    on_progress(done + 1, repeats)
    few = min(looped, len(images))
    action = [1e6 * seconds / len(images) / len(taps) for seconds in action_s if taps]
    loop = [1e6 * seconds / few / len(taps) for seconds in loop_s if taps]
    return {
        "zoom_factor": factor,
        "zoom_images": few,
        "zoom_taps": list(taps),
        "action_us": action,
        "loop_us": loop,
        "zoom_ratios": [slow / fast for slow, fast in zip(loop, action, strict=True)],
        "zoom_ratio": median(loop) / median(action) if taps else None,
    }


def _planar(field: Field, features: Features, factor: float) -> bool:
    """Tell whether a tap has planes that are large enough, and levels that are known."""
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


def _forward(
    model: Model, images: Float[Tensor, "n c h w"], passes: int, batch: int, device: torch.device | str
) -> float:
    """Return the seconds of so many passes over all images."""
    with measuring(model, device) as dtype:
        _wait(device)
        start = time.perf_counter()
        for part in batches(images, batch, device, dtype):
            for _ in range(passes):
                model(part)
        _wait(device)
        return time.perf_counter() - start


def _measure(
    model: Model, images: Float[Tensor, "n c h w"], settings: MeasureSettings, device: torch.device | str
) -> float:
    """Return the seconds of one curve."""
    _wait(device)
    start = time.perf_counter()
    measure_curves(model, images, settings, on_black=True, device=device)
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device | str) -> None:
    """Let an accelerator finish what was asked of it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
