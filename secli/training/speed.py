"""How many images a network trains on, or evaluates, per second: alone, beside its literal form, beside the machine."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from typing import Literal

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
PIXELS = 28
"""Side of the images of a network that takes any."""
NOISE = 0.2
"""A middle half of the repeats wider than this share of their median: the machine is too busy to decide."""
ROOF = {"cpu": (8, 128, 28), "cuda": (64, 256, 56), "mps": (32, 256, 56)}
"""Images, channels and side of the large 3×3 convolution that says what a device can reach."""


@dataclass(frozen=True)
class Speed:
    """What one network reaches in one mode.

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
    precision
        As in training: 32, tf32, bf16 or 16.
    flops_per_second
        Multiply–adds × 2 of the matrix products and convolutions of a pass, backward included, over its time.
    of_roof
        The same over what the forward pass of a large 3×3 convolution reached in the same rounds.
    vs_literal
        Median over the rounds of the time of the literal form (:mod:`secli.layers.literal`) over the network's own;
        None where there is no literal form.
    vs_literal_low, vs_literal_high
        The lowest and the highest of the rounds.
    vs_float32, vs_float32_low, vs_float32_high
        The same for the time of the same network in float32; None where the precision is 32.
    noisy
        Whether the middle half of the repeats spans more than 20 % of their median.
    """

    model: str
    mode: Mode
    images_per_second: float
    low: float
    high: float
    repeats: int
    batch: int
    input: tuple[int, int, int]
    precision: str = "32"
    flops_per_second: float | None = None
    of_roof: float | None = None
    vs_literal: float | None = None
    vs_literal_low: float | None = None
    vs_literal_high: float | None = None
    vs_float32: float | None = None
    vs_float32_low: float | None = None
    vs_float32_high: float | None = None
    noisy: bool = False


class Subject:
    """A network with a batch of noise and its own optimiser, whose rate is zero: the same work, nothing diverges."""

    def __init__(
        self, name: str, batch: int, device: str, image_size: int | None, precision: str = "32"
    ) -> None:
        spec = MODELS[name]
        options = resolve_options(spec)
        side = image_size or options.get("image_size", PIXELS)
        self.name, self.device, self.precision = name, device, precision
        self.input = (options.get("in_channels", 1), side, side)
        sized = {"image_size": side} if "image_size" in options else {}
        self.model: nn.Module = build(name, sized).to(device)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(batch, *self.input, generator=generator).to(device)
        self.labels = (torch.arange(batch) % options.get("classes", 10)).to(device)
        self.training = TrainingSettings(**spec.training)
        self._fresh_optimizer()

    def _fresh_optimizer(self) -> None:
        self.optimizer = make_optimizer(self.model.parameters(), self.training)
        set_learning_rate(self.optimizer, 0.0)

    def literal(self) -> Subject | None:
        """Return the same with the network's literal form; None where there is none."""
        twin = literal_twin(self.model)
        if twin is None:
            return None
        other = copy.copy(self)
        other.model = twin
        other._fresh_optimizer()
        return other

    def in_float32(self) -> Subject | None:
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


class _Roof:
    """A large convolution, and how many operations a second it reaches."""

    def __init__(self, device: str, precision: str) -> None:
        images, channels, side = ROOF[device]
        self.device, self.precision = device, precision
        self.images = torch.rand(images, channels, side, side, device=device)
        self.kernel = torch.rand(channels, channels, 3, 3, device=device)
        self.flops = 2 * images * side**2 * channels**2 * 9

    def rate(self, passes: int) -> float:
        """Return operations per second over so many passes."""
        with torch.no_grad(), autocast(self.device, self.precision):
            seconds = duration(
                lambda: functional.conv2d(self.images, self.kernel, padding=1), passes, self.device
            )
        return passes * self.flops / seconds


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
    on_work: Callable[[int, int], None] | None = None,
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


def measure_speed(
    names: Sequence[str],
    modes: Sequence[Mode] = ("train", "eval"),
    *,
    batch: int = 32,
    repeats: int = 5,
    seconds: float = 0.2,
    device: str = "cpu",
    precision: str = "32",
    image_size: int | None = None,
    literal: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Speed]:
    """Time networks of the registry, freshly initialised, on images of their own size.

    All networks, modes and literal forms take turns within each round, and so does the large convolution, and float32
    beside any other precision, so that a machine which grows slower or busier slows all alike. Before that each is run
    once to warm it, and once more to learn how many passes fill ``seconds``.

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
    precision : str
        ``32``, ``tf32``, ``bf16`` or ``16``.
    image_size : int, optional
        Side of the images in pixels, instead of each network's own.
    literal : bool
        Whether literal forms are timed beside the networks that have one.
    on_progress : callable, optional
        Called with (timings done, timings in all).

    Returns
    -------
    list of Speed
        Network by network, in the order of the names and modes.
    """
    entrants: list[tuple[Subject, Subject | None, Subject | None, Mode]] = []
    for name in names:
        subject = Subject(name, batch, device, image_size, precision)
        twin = subject.literal() if literal else None
        single = subject.in_float32()
        entrants += [(subject, twin, single, mode) for mode in modes]
    roof = _Roof(device, precision)
    timed = [(each, mode) for *some, mode in entrants for each in some if each is not None]
    roof.rate(1)
    roof_passes = max(1, math.ceil(seconds * roof.rate(1) / roof.flops))
    reached: list[float] = []
    times = in_turn(
        [partial(subject.seconds, mode) for subject, mode in timed],
        repeats,
        seconds,
        on_progress,
        lambda _: reached.append(roof.rate(roof_passes)),
    )
    rates = [[batch / each for each in own] for own in times]
    found = {(id(subject), mode): each for (subject, mode), each in zip(timed, rates, strict=True)}
    return [
        _speed(
            subject,
            mode,
            found[id(subject), mode],
            [] if twin is None else _ratios(found[id(subject), mode], found[id(twin), mode]),
            [] if single is None else _ratios(found[id(subject), mode], found[id(single), mode]),
            median(reached),
        )
        for subject, twin, single, mode in entrants
    ]


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Return how many times faster, round by round."""
    return [own / other for own, other in zip(ours, theirs, strict=True)]


def _speed(
    subject: Subject,
    mode: Mode,
    rates: list[float],
    literal: list[float],
    float32: list[float],
    roof: float,
) -> Speed:
    batch = len(subject.images)
    flops = subject.flops(mode) / batch * median(rates)
    return Speed(
        model=subject.name,
        mode=mode,
        images_per_second=median(rates),
        low=min(rates),
        high=max(rates),
        repeats=len(rates),
        batch=batch,
        input=subject.input,
        precision=subject.precision,
        flops_per_second=flops,
        of_roof=flops / roof,
        vs_literal=median(literal) if literal else None,
        vs_literal_low=min(literal, default=None),
        vs_literal_high=max(literal, default=None),
        vs_float32=median(float32) if float32 else None,
        vs_float32_low=min(float32, default=None),
        vs_float32_high=max(float32, default=None),
        noisy=spread(rates) > NOISE,
    )


def spread(rates: Sequence[float]) -> float:
    """Return how wide the middle half of some rates is, as a share of their median; 0 of a single one."""
    if len(rates) < 2:
        return 0.0
    low, _, high = quantiles(rates, n=4, method="inclusive")
    return (high - low) / median(rates)
