"""How everything here is timed: networks on noise, in turn within each round, their ratios round by round."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median, quantiles
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.layers.fast.forms import without_forms
from secli.layers.literal import literal_twin
from secli.models.building import build, resolve_options
from secli.models.flops import formulas
from secli.training.optim import make_optimizer, set_learning_rate

Mode = Literal["train", "eval"]
OnProgress = Callable[[int, int], None]
"""Called with what is done, and how much there is in all."""
PIXELS = 28
"""Side of the images of a network that takes any."""
NOISE = 0.2
"""A middle half of the repeats wider than this share of their median: the machine is too busy to decide."""


class TimedNetwork:
    """A network with a batch of noise and its own optimiser, whose rate is zero: the same work, nothing diverges."""

    def __init__(
        self, name: str, batch: int, device: str, image_size: int | None, precision: str = "32"
    ) -> None:
        spec = MODELS[name]
        options = resolve_options(spec)
        side = image_size or options.get("image_size", PIXELS)
        self.name, self.device, self.precision = name, device, precision
        self.input = (options.get("in_channels", 1), side, side)
        self.options = {"image_size": side} if "image_size" in options else {}
        self.model: nn.Module = build(name, self.options).to(device)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(batch, *self.input, generator=generator).to(device)
        self.labels = (torch.arange(batch) % options.get("classes", 10)).to(device)
        self.training = TrainingSettings(**spec.training)
        self._fresh_optimizer()

    def _fresh_optimizer(self) -> None:
        self.optimizer = make_optimizer(self.model.parameters(), self.training)
        set_learning_rate(self.optimizer, 0.0)

    def literal(self) -> TimedNetwork | None:
        """Return the same with the network's literal form; None where there is none."""
        twin = literal_twin(self.model)
        if twin is None:
            return None
        other = copy.copy(self)
        other.model = twin
        other._fresh_optimizer()
        return other

    def in_float32(self) -> TimedNetwork | None:
        """Return the same in float32, with weights of its own; None where it is in float32 already."""
        if self.precision == "32":
            return None
        other = copy.copy(self)
        other.model, other.precision = copy.deepcopy(self.model), "32"
        other._fresh_optimizer()
        return other

    def seconds(self, mode: Mode, passes: int) -> float:
        """Return how long so many passes take."""
        self.model.train(mode == "train")
        with tf32(self.precision == "tf32"):
            return duration(lambda: self.run(mode), passes, self.device)

    def flops(self, mode: Mode) -> int:
        """Return the multiply–adds × 2 of one pass, which is run."""
        self.model.train(mode == "train")
        counter = FlopCounterMode(display=False, custom_mapping=formulas(self.images))
        with without_forms("fourier"), counter:
            self.run(mode)
        return int(counter.get_total_flops())

    def run(self, mode: Mode) -> None:
        """Make one pass."""
        if mode == "eval":
            with torch.no_grad(), autocast(self.device, self.precision):
                self.model(self.images)
            return
        with autocast(self.device, self.precision):
            logits: Tensor = self.model(self.images)
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(logits.float(), self.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """Return what the precisions of training mean for a pass; tf32 is a global switch."""
    kinds = {"bf16": torch.bfloat16, "16": torch.float16}
    return torch.autocast(device, dtype=kinds[precision]) if precision in kinds else nullcontext()


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Set torch's global switches for TF32 while the body runs."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        torch.backends.cudnn.allow_tf32 = on
        torch.set_float32_matmul_precision("high" if on else "highest")
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)


def wait(device: str) -> None:
    """Let an accelerator finish what was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def duration(work: Callable[[], object], passes: int, device: str) -> float:
    """Return how many seconds so many passes take, the device's own work included."""
    wait(device)
    start = time.perf_counter()
    for _ in range(passes):
        work()
    wait(device)
    return time.perf_counter() - start


def in_turn(
    works: Sequence[Callable[[int], float]],
    repeats: int,
    seconds: float,
    on_work: OnProgress | None = None,
    on_round: Callable[[int], None] = lambda rounds: None,
) -> list[list[float]]:
    """Time pieces of work in turn within each round, and return the seconds per pass of each, round by round.

    Before the rounds each is run once to warm it, and once more to learn how many passes fill the time.

    Parameters
    ----------
    works : sequence of callable
        Each makes so many passes and returns the seconds that they took.
    repeats : int
        Rounds.
    seconds : float
        A turn makes as many whole passes as fill this time, at least one.
    on_work : callable, optional
        Called with (works done, works in all), the warming included.
    on_round : callable
        Called after each round with the number of rounds done.
    """
    total = len(works) * (repeats + 1)
    passes: list[int] = []
    for done, work in enumerate(works, start=1):
        work(1)
        passes.append(max(1, math.ceil(seconds / work(1))))
        if on_work:
            on_work(done, total)
    times: list[list[float]] = [[] for _ in works]
    for turn in range(1, repeats + 1):
        for at, (work, count, own) in enumerate(zip(works, passes, times, strict=True), start=1):
            own.append(work(count) / count)
            if on_work:
                on_work(turn * len(works) + at, total)
        on_round(turn)
    return times


class Ratio(NamedTuple):
    """How many times longer one piece of work takes than another, round by round.

    Attributes
    ----------
    median, low, high
        Over the rounds.
    noisy
        Whether the middle half of the rounds spans more than 20 % of their median.
    """

    median: float
    low: float
    high: float
    noisy: bool


def ratio(longer: Sequence[float], shorter: Sequence[float]) -> Ratio:
    """Return the seconds of one piece of work over those of another in the same rounds."""
    ratios = [one / other for one, other in zip(longer, shorter, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios), spread(ratios) > NOISE)


def spread(rates: Sequence[float]) -> float:
    """Return how wide the middle half of some rates is, as a share of their median; 0 of a single one."""
    if len(rates) < 2:
        return 0.0
    low, _, high = quantiles(rates, n=4, method="inclusive")
    return (high - low) / median(rates)
