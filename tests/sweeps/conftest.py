"""A sweep of tiny networks on a few digits, from its file to its jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secli.sweeps.jobs import SweepJob
from secli.sweeps.plan import plan
from secli.sweeps.prepare_data import Sources, jobs_of, prepare, requested_datasets
from secli.sweeps.spec import Sweep

Jobs = Callable[..., list[SweepJob]]
SIZES = (64, 20, 30)


def sweep_of(**keys: Any) -> Sweep:
    """Return a sweep of one tiny network, two epochs on 64 digits, with some keys changed."""
    usual: dict[str, Any] = {
        "name": "tiny",
        "about": "a trial",
        "models": [{"name": "cnn", "options": {"widths": [2, 2, 2, 2]}}],
        "datasets": [{"name": "digits-scale", "sizes": list(SIZES)}],
        "training": {"epochs": 2, "batch": 16, "device": "cpu", "milestones": []},
    }
    return Sweep.model_validate({key: value for key, value in (usual | keys).items() if value is not None})


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the digits of all these tests are made, once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def jobs(made: Path, tmp_path: Path) -> Jobs:
    """Return the jobs of a sweep, below ``tmp_path / "sweep"`` unless told otherwise."""

    def jobs(out: Path | None = None, threads: int = 1, **keys: Any) -> list[SweepJob]:
        runs = plan(sweep_of(**keys), threads)
        ready = prepare(requested_datasets(runs), Sources(made))
        return jobs_of(runs, ready, out or tmp_path / "sweep")

    return jobs


@pytest.fixture(autouse=True)
def _few_threads_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
