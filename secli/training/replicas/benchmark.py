"""What training replicas at once gains over training them one after the other: steps of both, in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch.nn import functional

from secli.catalogue import MODELS
from secli.models.building import build, resolve_options
from secli.training.optim import make_optimizer, set_learning_rate
from secli.training.replicas.stack import Stack, without_advice
from secli.training.speed import NOISE, Subject, autocast, duration, in_turn, spread


@dataclass(frozen=True)
class ReplicaSpeed:
    """How fast replicas train at once and one after the other.

    Attributes
    ----------
    model, replicas, batch, precision
        What was timed; the batch is each replica's.
    at_once, singly
        Images per second over all replicas, medians of the repeats.
    gain
        Median over the rounds of the time one after the other over the time at once.
    gain_low, gain_high
        The lowest and the highest of the rounds.
    repeats
        How many rounds there were.
    noisy
        Whether the middle half of either's repeats spans more than 20 % of their median.
    """

    model: str
    replicas: int
    batch: int
    precision: str
    at_once: float
    singly: float
    gain: float
    gain_low: float
    gain_high: float
    repeats: int
    noisy: bool


class _AtOnce:
    """The replicas of a subject as one stack, on the same images; the optimiser's rate is zero."""

    def __init__(self, subject: Subject, replicas: int) -> None:
        sized = "image_size" in resolve_options(MODELS[subject.name])
        options = {"image_size": subject.input[1]} if sized else {}
        networks = [build(subject.name, options, seed=seed) for seed in range(replicas)]
        self.subject, self.replicas = subject, replicas
        self.stack = Stack(networks).to(subject.device).train()
        self.images = subject.images.expand(replicas, *subject.images.shape).contiguous()
        self.labels = subject.labels.repeat(replicas)
        self.optimizer = make_optimizer(self.stack.parameters(), subject.training)
        set_learning_rate(self.optimizer, 0.0)

    def run(self) -> None:
        """Take one step."""
        self.stack.streams.seed(range(self.replicas))
        with autocast(self.subject.device, self.subject.precision):
            logits = self.stack(self.images)
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(logits.float().flatten(0, 1), self.labels, reduction="sum")
        torch.autograd.backward(loss / len(self.subject.labels))
        self.optimizer.step()


def replica_speeds(
    names: Sequence[str],
    replicas: int,
    *,
    batch: int = 32,
    repeats: int = 5,
    seconds: float = 0.2,
    device: str = "cpu",
    precision: str = "32",
    image_size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[ReplicaSpeed]:
    """Time training steps of several replicas at once, and of as many single networks, in turn within each round.

    Parameters
    ----------
    names : sequence of str
        Registry names; of models that ``torch.vmap`` runs.
    replicas : int
        R ≥ 1; a pass one after the other is R steps of one network, on the same images.
    batch : int
        Images per step of each replica.
    repeats, seconds, device, precision, image_size
        As in :func:`secli.training.speed.measure_speed`.
    on_progress : callable, optional
        Called with (rounds done, rounds in all).
    """
    found = []
    for at, name in enumerate(names):
        subject = Subject(name, batch, device, image_size, precision)

        def done(rounds: int, before: int = at * repeats) -> None:
            if on_progress:
                on_progress(before + rounds, len(names) * repeats)

        found.append(_speed(subject, replicas, repeats, seconds, done))
    return found


def _speed(
    subject: Subject, replicas: int, repeats: int, seconds: float, done: Callable[[int], None]
) -> ReplicaSpeed:
    subject.model.train()
    together = _AtOnce(subject, replicas)

    def singly() -> None:
        for _ in range(replicas):
            subject.run("train")

    works = [partial(duration, work, device=subject.device) for work in (together.run, singly)]
    with without_advice():
        times = in_turn(works, repeats, seconds, on_round=done)
    batch = len(subject.labels)
    rates = [[replicas * batch / each for each in own] for own in times]
    gains = [one / at_once for at_once, one in zip(*times, strict=True)]
    return ReplicaSpeed(
        model=subject.name,
        replicas=replicas,
        batch=batch,
        precision=subject.precision,
        at_once=median(rates[0]),
        singly=median(rates[1]),
        gain=median(gains),
        gain_low=min(gains),
        gain_high=max(gains),
        repeats=repeats,
        noisy=max(spread(own) for own in rates) > NOISE,
    )
