"""How many runs a GPU can hold at once, by what each of them needs of its memory."""

from __future__ import annotations

import math

from secli.sweeps.estimate import step_memory
from secli.sweeps.jobs import SweepJob

OVERHEAD = 600 * 2**20
"""Bytes that a process takes on a GPU before it computes anything."""
SMALLEST = 0.1
"""More than ten runs on a GPU only wait for each other."""


def gpu_share(memory: float, total: float) -> float:
    """Return the fraction of a GPU that a run needs: in hundredths, at least a tenth, at most all of it.

    Parameters
    ----------
    memory : float
        Bytes of a training step.
    total : float
        Bytes of the GPU.

    Examples
    --------
    >>> gpu_share(2**30, 80 * 2**30)
    0.1
    >>> gpu_share(30 * 2**30, 80 * 2**30)
    0.39
    """
    return min(1.0, max(SMALLEST, math.ceil((memory + OVERHEAD) / total * 100) / 100))


def step_bytes(job: SweepJob) -> float:
    """Return the bytes that a training step of a job needs, at its peak, counted from shapes."""
    return step_memory(job.model, job.training)
