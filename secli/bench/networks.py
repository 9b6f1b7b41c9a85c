"""How many images a network trains on, or evaluates, per second: alone, with its literal form, with the machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import NamedTuple

import torch
from torch.nn import functional

from secli.bench import peak_memory
from secli.bench.rows import Row, TimingRequest, measured_rows, range_text, rows_table, settings_text
from secli.bench.timing import (
    NOISE,
    Mode,
    OnProgress,
    TimedNetwork,
    autocast,
    duration,
    in_turn,
    ratio,
    spread,
)
from secli.config import TrainingSettings
from secli.tables.table import Column

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


class _Entrant(NamedTuple):
    """A network in one mode, and what is timed along with it."""

    network: TimedNetwork
    literal: TimedNetwork | None
    float32: TimedNetwork | None
    mode: Mode


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
    on_progress: OnProgress | None = None,
) -> list[Speed]:
    """Time networks of the registry, freshly initialised, on images of their own size.

    All networks, modes and literal forms take turns within each round, and so does the large convolution, and float32
    along with any other precision, so that a machine which grows slower or busier slows all alike. Before that each is
    run once to warm it, and once more to learn how many passes fill ``seconds``.

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
        Whether literal forms are timed along with the networks that have one.
    on_progress : callable, optional
        Called with (timings done, timings in all).

    Returns
    -------
    list of Speed
        Network by network, in the order of the names and modes.
    """
    entrants = []
    for name in names:
        network = TimedNetwork(name, batch, device, image_size, precision)
        twin, single = network.literal() if literal else None, network.in_float32()
        entrants += [_Entrant(network, twin, single, mode) for mode in modes]
    timed = [(each, mode) for *some, mode in entrants for each in some if each is not None]
    roof = _Roof(device, precision)
    roof.rate(1)
    roof_passes = max(1, math.ceil(seconds * roof.rate(1) / roof.flops))
    reached: list[float] = []
    times = in_turn(
        [partial(network.seconds, mode) for network, mode in timed],
        repeats,
        seconds,
        on_progress,
        lambda _: reached.append(roof.rate(roof_passes)),
    )
    found = {(id(network), mode): each for (network, mode), each in zip(timed, times, strict=True)}
    return [_speed(each, found, median(reached)) for each in entrants]


def _speed(entrant: _Entrant, times: dict[tuple[int, Mode], list[float]], roof: float) -> Speed:
    network, mode = entrant.network, entrant.mode
    own, batch = times[id(network), mode], len(network.images)

    def against(other: TimedNetwork | None, name: str) -> dict[str, float]:
        if other is None:
            return {}
        median_, low, high, _ = ratio(times[id(other), mode], own)
        return {name: median_, f"{name}_low": low, f"{name}_high": high}

    rates = [batch / each for each in own]
    flops = network.flops(mode) / batch * median(rates)
    return Speed(
        model=network.name,
        mode=mode,
        images_per_second=median(rates),
        low=min(rates),
        high=max(rates),
        repeats=len(rates),
        batch=batch,
        input=network.input,
        precision=network.precision,
        flops_per_second=flops,
        of_roof=flops / roof,
        noisy=spread(rates) > NOISE,
        **against(entrant.literal, "vs_literal"),
        **against(entrant.float32, "vs_float32"),
    )


def network_rows(request: TimingRequest, literal: bool, memory: bool, on_progress: OnProgress) -> list[Row]:
    """Time networks on this machine: a row for each of them and each mode."""
    return measured_rows(
        request,
        lambda where: measure_speed(
            request.names, request.modes, literal=literal, on_progress=on_progress, **request.work(where)
        ),
        lambda speed, where: _peaks(speed, where, request.image_size, memory),
    )


def _peaks(speed: Speed, where: TrainingSettings, image_size: int | None, memory: bool) -> Row:
    """Return the peak memory of a training step, and what share of the literal form's it is."""
    if speed.mode != "train" or not memory:
        return {"peak_memory_mib": None, "memory_vs_literal": None}
    step = peak_memory.Step(
        speed.model, speed.batch, where.device, image_size, where.precision, where.threads
    )
    own = peak_memory.peak_memory(step)
    other = peak_memory.peak_memory(step._replace(literal=True)) if speed.vs_literal is not None else None
    return {"peak_memory_mib": own, "memory_vs_literal": own / other if own is not None and other else None}


def network_table(rows: Sequence[Row], width: int) -> str:
    """Return the rows as a table that fits a terminal; what no row has takes no column."""
    columns: dict[Column, Callable[[Row], float | str | None]] = {
        Column("model", "model", text=True, whole=True): lambda row: row["model"],
        Column("mode", "mode", text=True, whole=True): lambda row: row["mode"],
        Column("images_per_second", "images/s"): lambda row: row["images_per_second"],
        Column("range", "low to high"): lambda row: range_text(row["low"], row["high"]),
        Column("gflops", "GFLOP/s"): lambda row: row["flops_per_second"] / 1e9,
        Column("of_roof", "of roof", digits=2): lambda row: row["of_roof"],
        Column("vs_literal", "vs literal", digits=2): lambda row: row["vs_literal"],
        Column("vs_literal_range", "low to high"): lambda row: range_text(
            row["vs_literal_low"], row["vs_literal_high"]
        ),
        Column("vs_float32", "vs float32", digits=2): lambda row: row["vs_float32"],
        Column("vs_float32_range", "low to high"): lambda row: range_text(
            row["vs_float32_low"], row["vs_float32_high"]
        ),
        Column("peak_memory_mib", "peak memory (MiB)", digits=1): lambda row: row["peak_memory_mib"],
        Column("memory_vs_literal", "memory of literal", digits=2): lambda row: row["memory_vs_literal"],
    }
    shown = {column: read for column, read in columns.items() if any(read(row) is not None for row in rows)}
    return rows_table(f"{settings_text(rows[0])}, precision {rows[0]['precision']}", shown, rows, 2, width)
