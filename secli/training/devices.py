"""The device of the work: "auto" resolved, refused where it is missing, and made into a Fabric."""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from secli.config import TrainingSettings
from secli.errors import InputError
from secli.training.compiling import check_compiler

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Fabric writes remarks to stderr, where only the command line prints. A spawned process imports Fabric first, then
# this module, and only then Fabric writes anything; the first process imports it in make_fabric.
_FABRIC_LOGGER = logging.getLogger("lightning_fabric")
_FABRIC_LOGGER.setLevel(logging.WARNING)

_PRECISIONS = {"32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def on_this_machine(training: TrainingSettings) -> TrainingSettings:
    """Return the settings with ``device`` and ``threads`` resolved for this machine.

    Raises
    ------
    InputError
        When the device, their number, the precision, or a compiler that is needed, is not available here.
    """
    device = training.device
    if device == "auto":
        device = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device here; use --device cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: torch finds no Metal device here; use --device cpu")
    here = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": cores()}[device]
    if training.devices > here:
        unit = "CPU core" if device == "cpu" else f"{device} device"
        raise InputError(f"--devices {training.devices}: this machine has {here} {unit}{'s' * (here != 1)}")
    if training.precision in ("tf32", "16") and device != "cuda":
        raise InputError(f"--precision {training.precision}: needs a CUDA device; on {device} use 32 or bf16")
    if training.compile:
        check_compiler(device)
    return training.model_copy(update={"device": device, "threads": training.threads or cores()})


def make_fabric(training: TrainingSettings) -> Fabric:
    """Return the Fabric for resolved settings; several devices are driven by one spawned process each."""
    from lightning_fabric import Fabric  # here: its import takes seconds, which a dry run need not wait for

    _FABRIC_LOGGER.setLevel(logging.WARNING)
    return Fabric(
        accelerator=training.device,
        devices=training.devices,
        strategy="auto" if training.devices == 1 else "ddp_spawn",
        precision=_PRECISIONS[training.precision],  # type: ignore[arg-type]
    )


def device_name(device: str) -> str:
    """Return the device's own name, for the record."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    if device == "mps":
        return f"Apple {platform.machine()} GPU"
    return _processor_name()


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or "cpu"
