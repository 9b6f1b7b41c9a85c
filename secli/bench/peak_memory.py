"""The peak memory of a training step, measured in a process of its own so that nothing else is counted."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import platform
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from secli.bench.timing import TimedNetwork, wait

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
M_MMAP_THRESHOLD = -3  # malloc.h
LARGE = 1 << 16


class Step(NamedTuple):
    """Which training step is measured.

    Attributes
    ----------
    name
        Registry name.
    batch, device, image_size, precision
        As in :func:`secli.bench.networks.measure_speed`.
    threads
        CPU threads.
    literal
        Whether the network's literal form is measured, not the network.
    """

    name: str
    batch: int
    device: str
    image_size: int | None
    precision: str
    threads: int
    literal: bool = False


def peak_memory(step: Step) -> float | None:
    """Return by how many MiB a training step raises the memory of a process, at its peak.

    The step starts with network, optimiser and a batch in place, and a step on two images done; activations,
    gradients and scratch space count. On CUDA what torch allocates is counted, elsewhere the resident memory.
    None where the network has no literal form and that was asked for, or the system does not tell.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(step, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        peak: float | None = ours.recv()
    except EOFError:
        peak = None
    finally:
        process.join()
    return peak


def _measure(step: Step, answer: Connection) -> None:
    if platform.libc_ver()[0] == "glibc":
        # large tensors in pages of their own, given back when they are freed: what is resident is what is in use
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
    torch.set_num_threads(step.threads)
    network: TimedNetwork | None = TimedNetwork(
        step.name, step.batch, step.device, step.image_size, step.precision
    )
    if network is not None and step.literal:
        network = network.literal()
    answer.send(None if network is None else _peak(network))
    answer.close()


def _peak(network: TimedNetwork) -> float | None:
    network.model.train()
    images, labels = network.images, network.labels
    network.images, network.labels = images[:2], labels[:2]
    network.run("train")
    network.images, network.labels = images, labels
    network.optimizer.zero_grad()
    gc.collect()
    if network.device == "cuda":
        wait("cuda")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        network.run("train")
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if network.device != "cpu" or not RESET.exists():
        return None
    RESET.write_text("5", encoding="ascii")  # the high-water mark starts again from here
    before = _kibibytes("VmRSS")
    network.run("train")
    return (_kibibytes("VmHWM") - before) / 2**10


def _kibibytes(field: str) -> int:
    lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
