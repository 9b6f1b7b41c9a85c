"""What measuring costs beside the forward passes that it cannot do without."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor

from secli.config import MeasureSettings
from secli.equivariance.batching import batches
from secli.equivariance.curves import measure_curves
from secli.equivariance.precision import measuring
from secli.models.contract import Model

SMALLEST = 1 / 3


def curve_cost(
    model: Model,
    images: Float[Tensor, "n c h w"],
    *,
    factors: int = 9,
    repeats: int = 3,
    batch: int = 100,
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
    batch : int
        Images per forward pass.
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
