"""The same seed gives the same weights: the random streams, and torch's global switches."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.config import TrainingSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Draw(IntEnum):
    """The purposes of random streams; streams of different purposes are independent."""

    ORDER = 1
    AUGMENT = 2
    STEP = 3


def seed_of(purpose: Draw, seed: int, epoch: int, step: int = 0, rank: int = 0) -> int:
    """Return the seed of one stream, a hash of these arguments alone.

    A run can therefore be resumed from any step without saving the state of a generator.
    """
    sequence = np.random.SeedSequence([purpose, seed, epoch, step, rank])
    return int(sequence.generate_state(1, np.uint64)[0])


def generator_of(purpose: Draw, seed: int, epoch: int) -> torch.Generator:
    """Return a CPU generator for the draws of one epoch."""
    return torch.Generator().manual_seed(seed_of(purpose, seed, epoch))


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the default generators of the CPU and of the device that trains (and of no other: that is slow)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def reproducible(training: TrainingSettings, strict: bool = True) -> Iterator[None]:
    """Set threads, deterministic algorithms and float32 arithmetic; restore all and the random state after.

    With ``strict`` false, operations without a deterministic form on a GPU are allowed (a foreign network may have
    any). The devices on the CPU share the threads. TF32 is on with ``precision: tf32`` only.
    """
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    convolutions = torch.backends.cudnn.allow_tf32
    products = torch.get_float32_matmul_precision()
    on_cuda = training.device == "cuda"
    if on_cuda:
        # cuBLAS is deterministic only with a fixed workspace; it reads this when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count())) if on_cuda else []):
        try:
            torch.set_num_threads(max(1, training.threads // training.devices))
            torch.use_deterministic_algorithms(strict)
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.allow_tf32 = training.precision == "tf32"
            torch.set_float32_matmul_precision("high" if training.precision == "tf32" else "highest")
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.backends.cudnn.benchmark = benchmark
            torch.backends.cudnn.allow_tf32 = convolutions
            torch.set_float32_matmul_precision(products)


def allow_nondeterministic(
    fabric: Fabric, network: nn.Module, images: Float[Tensor, "*n c h w"]
) -> str | None:
    """Try a forward and backward pass of a copy; where an operation has no deterministic form, allow it.

    Returns torch's message on that operation; None when all are deterministic. ``images`` are a few training images on
    the device, as the network takes them.
    """
    trial = copy.deepcopy(network).to(fabric.device).train()
    try:
        with fabric.autocast():
            logits = trial(images)
        logits.float().sum().backward()
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        torch.use_deterministic_algorithms(True, warn_only=True)
        return str(error).split(".")[0]
    return None
