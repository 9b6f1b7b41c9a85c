"""A tiny dataset of real digits, and settings that train on it in a blink."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secli.config import ModelSettings, TrainingSettings
from secli.datasets.build import make_dataset
from secli.datasets.loading import pixels
from secli.datasets.manifest import SPLITS, SplitName
from secli.datasets.store import ScaleDataset, Split, open_dataset, write_dataset
from secli.training.checkpoint import WEIGHTS_FILE
from secli.training.plan import default_training

CNN = ModelSettings(name="cnn")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ScaleDataset:
    """65 training, 20 validation and 30 test digits; 65 = 4 · 16 + 1 leaves a batch of one image."""
    (made,) = make_dataset("digits-scale", tmp_path_factory.mktemp("data"), sizes=(65, 20, 30), jobs=1)
    return open_dataset(made.path)


@pytest.fixture
def quick() -> Callable[..., TrainingSettings]:
    """The cnn's settings, for two epochs of four steps on one thread."""

    def settings(**changes: Any) -> TrainingSettings:
        values = {"epochs": 2, "batch": 16, "device": "cpu", "threads": 1}
        return TrainingSettings.model_validate({**default_training("cnn").model_dump(), **values, **changes})

    return settings


@pytest.fixture
def variant(tmp_path: Path, tiny: ScaleDataset) -> Callable[..., ScaleDataset]:
    """The tiny dataset, changed: without validation images, or in colour."""

    def change(name: str, *, validation: bool = True, colour: bool = False) -> ScaleDataset:
        splits: dict[SplitName, Split] = {}
        for split in SPLITS:
            read = tiny.split(split)
            keep = slice(None) if validation or split != "val" else slice(0)
            images = read.images[keep]
            if colour:
                images = np.repeat(images[..., None], 3, axis=-1)
            splits[split] = Split(np.ascontiguousarray(images), read.labels[keep], read.factors[keep])
        description = tiny.manifest.model_dump(exclude={"sizes", "files"})
        path = tmp_path / name / "r0"
        write_dataset(path, splits, {**description, "name": name, "channels": 3 if colour else 1})
        return open_dataset(path)

    return change


@pytest.fixture
def digest() -> Callable[[Path], str]:
    """The sha256 of a run's weights."""
    return lambda run: hashlib.sha256((run / WEIGHTS_FILE).read_bytes()).hexdigest()


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train in float64, where two orders of one sum still agree after some chaotic steps."""
    for module in ("fit", "evaluate", "replicas.fit", "replicas.evaluate"):
        monkeypatch.setattr(f"secli.training.{module}.pixels", partial(pixels, dtype=torch.float64))
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
