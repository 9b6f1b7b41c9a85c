"""One tiny trained network, its finished run, and a cache of its own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from secli.cli.app import app

NAME = "cnn-digits-scale-r0"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with digits, rescaled and at their own scale, and one finished, measured run."""
    place = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for command in (
            "make-data digits-scale --sizes 64 20 30 --jobs 1 -q",
            "make-data digits --sizes 64 20 30 --jobs 1 -q",
            "train cnn --data DATA --epochs 1 --batch 32 --device cpu --threads 1 --out runs -q",
            "equivariance RUN --images 4 --factors 1,0.7 --threads 1 -q",
        ):
            words = command.replace("DATA", str(next(place.glob("data/digits-scale-*/r0"), "")))
            run = str(next(place.glob("runs/cnn/*"), ""))
            result = CliRunner().invoke(app, words.replace("RUN", run).split())
            assert result.exit_code == 0, result.stderr
    return place


@pytest.fixture(scope="session")
def run(desk: Path) -> Path:
    (found,) = (desk / "runs" / "cnn").iterdir()
    return found


@pytest.fixture
def place(run: Path, tmp_path: Path) -> Path:
    """A directory that the network was pushed to."""
    into = tmp_path / "networks"
    result = CliRunner().invoke(app, ["weights", "push", str(run), "--to", str(into), "--name", NAME])
    assert result.exit_code == 0, result.stderr
    return into
