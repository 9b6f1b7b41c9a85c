"""How many images a network trains on, or evaluates, per second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.models.building import build, resolve_options
from secli.training.optim import make_optimizer, set_learning_rate

Mode = Literal["train", "eval"]
PIXELS = 28
"""Side of the images of a network that takes any."""


@dataclass(frozen=True)
class Speed:
    """Images per second of one network in one mode.

    Attributes
    ----------
    model, mode
        Registry name; ``train`` (forward, backward, step of the optimiser) or ``eval`` (forward alone).
    images_per_second
        Median of the repeats.
    low, high
        The slowest and the fastest repeat.
    repeats
        How many there were; those of all networks and modes took turns.
    batch
        Images per pass.
    input
        Channels, height and width of an image.
    """

    model: str
    mode: Mode
    images_per_second: float
    low: float
    high: float
    repeats: int
    batch: int
    input: tuple[int, int, int]


class _Subject:
    """A network with a batch of noise and its own optimiser, whose rate is zero: the same work, nothing diverges."""

    def __init__(self, name: str, batch: int, device: str, image_size: int | None) -> None:
        spec = MODELS[name]
        options = resolve_options(spec)
        side = image_size or options.get("image_size", PIXELS)
        self.name, self.device = name, device
        self.input = (options.get("in_channels", 1), side, side)
        sized = {"image_size": side} if "image_size" in options else {}
        self.model: nn.Module = build(name, sized).to(device)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(batch, *self.input, generator=generator).to(device)
        self.labels = (torch.arange(batch) % options.get("classes", 10)).to(device)
        self.optimizer = make_optimizer(self.model.parameters(), TrainingSettings(**spec.training))
        set_learning_rate(self.optimizer, 0.0)

    def seconds(self, mode: Mode, passes: int) -> float:
        """Return how long so many passes take."""
        self.model.train(mode == "train")
        self._wait()
        start = time.perf_counter()
        for _ in range(passes):
            self._pass(mode)
        self._wait()
        return time.perf_counter() - start

    def _pass(self, mode: Mode) -> None:
        if mode == "eval":
            with torch.no_grad():
                self.model(self.images)
            return
        logits: Tensor = self.model(self.images)
        self.optimizer.zero_grad()
        functional.cross_entropy(logits, self.labels).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _wait(self) -> None:
        """Let an accelerator finish what was asked of it."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def measure_speed(
    names: Sequence[str],
    modes: Sequence[Mode] = ("train", "eval"),
    *,
    batch: int = 32,
    repeats: int = 5,
    seconds: float = 0.2,
    device: str = "cpu",
    image_size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Speed]:
    """Time networks of the registry, freshly initialised, on images of their own size.

    All networks and modes take turns within each round, so that a machine which grows slower or busier slows all
    alike. Before that each is run once to warm it, and once more to learn how many passes fill ``seconds``.

    Parameters
    ----------
    names : sequence of str
        Registry names.
    modes : sequence of "train" or "eval"
        What is timed.
    batch : int
        Images per pass.
    repeats : int
        Rounds; the median counts.
    seconds : float
        A repeat makes as many whole passes as fill this time, at least one.
    device : str
        ``cpu``, ``cuda`` or ``mps``.
    image_size : int, optional
        Side of the images in pixels, instead of each network's own.
    on_progress : callable, optional
        Called with (timings done, timings in all).

    Returns
    -------
    list of Speed
        Network by network, in the order of the names and modes.
    """
    subjects = [_Subject(name, batch, device, image_size) for name in names]
    pairs = [(subject, mode) for subject in subjects for mode in modes]
    total = len(pairs) * (repeats + 1)
    passes = []
    for done, (subject, mode) in enumerate(pairs, start=1):
        subject.seconds(mode, 1)
        passes.append(max(1, math.ceil(seconds / subject.seconds(mode, 1))))
        if on_progress:
            on_progress(done, total)
    rates: list[list[float]] = [[] for _ in pairs]
    for turn in range(repeats):
        for i, (subject, mode) in enumerate(pairs):
            rates[i].append(passes[i] * batch / subject.seconds(mode, passes[i]))
            if on_progress:
                on_progress((turn + 1) * len(pairs) + i + 1, total)
    return [
        Speed(subject.name, mode, median(each), min(each), max(each), repeats, batch, subject.input)
        for (subject, mode), each in zip(pairs, rates, strict=True)
    ]
