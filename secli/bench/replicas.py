"""What training replicas at once gains over training them one after the other: steps of both, in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch.nn import functional

from secli.bench.rows import Row, TimingRequest, measured_rows, range_text, rows_table, settings_text
from secli.bench.timing import NOISE, OnProgress, TimedNetwork, autocast, duration, in_turn, ratio, spread
from secli.models.building import build
from secli.tables.table import Column
from secli.training.optim import make_optimizer, set_learning_rate
from secli.training.replicas.stack import Stack, without_advice


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
    """The replicas of a network as one stack, on the same images; the optimiser's rate is zero."""

    def __init__(self, network: TimedNetwork, replicas: int) -> None:
        networks = [build(network.name, network.options, seed=seed) for seed in range(replicas)]
        self.network, self.replicas = network, replicas
        self.stack = Stack(networks).to(network.device).train()
        self.images = network.images.expand(replicas, *network.images.shape).contiguous()
        self.labels = network.labels.repeat(replicas)
        self.optimizer = make_optimizer(self.stack.parameters(), network.training)
        set_learning_rate(self.optimizer, 0.0)

    def run(self) -> None:
        """Take one step."""
        self.stack.streams.seed(range(self.replicas))
        with autocast(self.network.device, self.network.precision):
            logits = self.stack(self.images)
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(logits.float().flatten(0, 1), self.labels, reduction="sum")
        torch.autograd.backward(loss / len(self.network.labels))
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
    on_progress: OnProgress | None = None,
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
        As in :func:`secli.bench.networks.measure_speed`.
    on_progress : callable, optional
        Called with (rounds done, rounds in all).
    """
    found = []
    for at, name in enumerate(names):
        network = TimedNetwork(name, batch, device, image_size, precision)

        def done(rounds: int, before: int = at * repeats) -> None:
            if on_progress:
                on_progress(before + rounds, len(names) * repeats)

        found.append(_speed(network, replicas, repeats, seconds, done))
    return found


def _speed(
    network: TimedNetwork, replicas: int, repeats: int, seconds: float, done: Callable[[int], None]
) -> ReplicaSpeed:
    network.model.train()
    together = _AtOnce(network, replicas)

    def singly() -> None:
        for _ in range(replicas):
            network.run("train")

    works = [partial(duration, work, device=network.device) for work in (together.run, singly)]
    with without_advice():
        times = in_turn(works, repeats, seconds, on_round=done)
    batch = len(network.labels)
    rates = [[replicas * batch / each for each in own] for own in times]
    gain = ratio(times[1], times[0])
    return ReplicaSpeed(
        model=network.name,
        replicas=replicas,
        batch=batch,
        precision=network.precision,
        at_once=median(rates[0]),
        singly=median(rates[1]),
        gain=gain.median,
        gain_low=gain.low,
        gain_high=gain.high,
        repeats=repeats,
        noisy=max(spread(own) for own in rates) > NOISE,
    )


def replica_rows(request: TimingRequest, replicas: int, on_progress: OnProgress) -> list[Row]:
    """Time training steps of replicas on this machine: a row for each network."""
    return measured_rows(
        request,
        lambda where: replica_speeds(request.names, replicas, on_progress=on_progress, **request.work(where)),
    )


def replica_table(rows: Sequence[Row], width: int) -> str:
    """Return the rows as a table that fits a terminal."""
    columns: dict[Column, Callable[[Row], float | str | None]] = {
        Column("model", "model", text=True, whole=True): lambda row: row["model"],
        Column("at_once", "at once, images/s"): lambda row: row["at_once"],
        Column("singly", "one after the other, images/s"): lambda row: row["singly"],
        Column("gain", "gain", digits=2): lambda row: row["gain"],
        Column("range", "low to high"): lambda row: range_text(row["gain_low"], row["gain_high"]),
    }
    title = f"{rows[0]['replicas']} replicas: {settings_text(rows[0])}, precision {rows[0]['precision']}"
    return rows_table(title, columns, rows, 1, width)
