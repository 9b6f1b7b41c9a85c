"""Bounds of the numbers that options take, as in ``secli.config``, whose pydantic ``--help`` does not wait for."""

from __future__ import annotations

from typing import Any

MOST = 1_000_000
MOST_THREADS = 1024
MOST_SEED = 2**32 - 1
MOST_PROCESSES = 1024
MOST_ROUNDS = 10_000
MOST_SIDE = 4096

COUNT: dict[str, Any] = {"min": 1, "max": MOST}
"""Images, and what else there is a whole number of."""
SEED: dict[str, Any] = {"min": 0, "max": MOST_SEED}
THREADS: dict[str, Any] = {"min": 0, "max": MOST_THREADS}
PROCESSES: dict[str, Any] = {"min": 1, "max": MOST_PROCESSES}
ROUNDS: dict[str, Any] = {"min": 1, "max": MOST_ROUNDS}
