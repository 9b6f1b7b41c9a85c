"""The table of ``secli bench``: it fits the terminal, keeps every name and number, and leaves out what nothing has."""

from __future__ import annotations

from typing import Any

import pytest

from secli.bench.networks import network_table

NAMES = ["cnn", "mnist_ses_vector_28"]


def rows(literal: bool = True, memory: bool = True) -> list[dict[str, Any]]:
    made = []
    for name in NAMES:
        for mode in ("train", "eval"):
            beside = literal and name != "cnn"
            made.append(
                {
                    "model": name,
                    "mode": mode,
                    "images_per_second": 2288.91,
                    "low": 2225.9,
                    "high": 2352.0,
                    "flops_per_second": 83.7e9,
                    "of_roof": 0.384,
                    "vs_literal": 3.264 if beside else None,
                    "vs_literal_low": 3.22 if beside else None,
                    "vs_literal_high": 3.3 if beside else None,
                    "vs_float32": None,
                    "vs_float32_low": None,
                    "vs_float32_high": None,
                    "peak_memory_mib": 23.04 if memory and mode == "train" else None,
                    "memory_vs_literal": 0.537 if memory and beside and mode == "train" else None,
                    "device": "a processor",
                    "threads": 1,
                    "batch": 4,
                    "precision": "32",
                    "repeats": 2,
                }
            )
    return made


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_table_fits_and_keeps_names_and_numbers_whole(width: int) -> None:
    text = network_table(rows(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert text.splitlines()[0] == "a processor, 1 thread, batch 4, 2 repeats, precision 32"
    for word in (*NAMES, "2289", "2226 to 2352", "83.7", "0.38", "3.26", "3.22 to 3.30", "23.0", "0.54"):
        assert word in text
    blocks = text.count("model")
    assert blocks == 1 if width == 160 else blocks > 1


def test_what_was_not_timed_takes_no_column() -> None:
    text = network_table(rows(literal=False, memory=False), 160)
    assert "GFLOP/s" in text
    assert "literal" not in text
    assert "MiB" not in text
    assert "literal" in network_table(rows(memory=False), 160)
