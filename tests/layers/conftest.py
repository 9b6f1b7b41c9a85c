from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Mapping[str, np.ndarray]]:
    """The arrays of one golden file, by key."""

    def load(name: str) -> Mapping[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as file:
            return {key: file[key] for key in file.files}

    return load


@pytest.fixture(scope="session")
def difference() -> Callable[[Tensor | np.ndarray, Tensor | np.ndarray], float]:
    """‖ours − theirs‖/‖theirs‖."""

    def relative(ours: Tensor | np.ndarray, theirs: Tensor | np.ndarray) -> float:
        a, b = torch.as_tensor(ours).detach().double(), torch.as_tensor(theirs).detach().double()
        assert a.shape == b.shape
        return float((a - b).norm() / b.norm())

    return relative
