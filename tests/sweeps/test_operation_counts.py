"""Counts of networks: one of each distinct shape, kept on disk; networks of other packages."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from secli.catalogue import MODELS
from secli.config import TrainingSettings
from secli.models.cnn import cnn
from secli.models.contract import Stage, StagedModel
from secli.sweeps import operation_counts as room
from secli.sweeps.operation_counts import Counts, Shapes, Unfit, shapes_of

OPTIONS = {"widths": [2, 2, 2, 2], "in_channels": 1, "classes": 10}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "estimates"


@pytest.fixture
def outlined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that are built from here on."""
    names: list[str] = []
    from secli.models.meta_device import outline

    def watched(name: str, options: Any) -> Any:
        names.append(name)
        return outline(name, options)

    monkeypatch.setattr(room, "outline", watched)
    return names


def shapes(model: str = "cnn", **changes: Any) -> Shapes:
    return shapes_of(model, OPTIONS, TrainingSettings(batch=16, **changes), 28)


def test_a_count_is_made_once_and_read_by_the_next_call(cache: Path, outlined: list[str]) -> None:
    first = Counts()
    count = first.of(shapes())
    assert first.of(shapes(lr=0.5, seed=3)) is count  # not what a count depends on
    assert len(first) == len(outlined) == 1
    (file,) = cache.iterdir()
    assert Counts().of(shapes()) == count
    assert len(outlined) == 1
    file.write_bytes(file.read_bytes()[:-4] + b"ruin")
    assert Counts().of(shapes()) == count
    assert len(outlined) == 2
    assert Counts().of(shapes()) == count  # what was damaged is written anew
    assert len(outlined) == 2


def test_another_version_or_shape_counts_anew(
    cache: Path, outlined: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Counts().of(shapes())
    for other in (
        shapes(accumulate=2),
        shapes(checkpoint_activations=True),
        shapes()._replace(device="cuda"),
    ):
        Counts().of(other)
    assert len(outlined) == 4
    monkeypatch.setattr(room, "secli_version", lambda: "0.0.0")
    Counts().of(shapes())
    assert len(outlined) == len(list(cache.iterdir())) == 5


def test_a_cache_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("SECLI_CACHE", str(tmp_path / "file"))
    assert Counts().of(shapes()).peak > 0


class Reading(StagedModel):
    """A network whose path depends on a value."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if float(images.sum()) >= 0 else -images)


def reading(
    widths: tuple[int, int, int, int] = (2, 2, 2, 2), in_channels: int = 1, classes: int = 10
) -> Reading:
    """Return a network of another package."""
    network = cnn(widths=widths, in_channels=in_channels, classes=classes)
    return Reading([Stage(tap, module, network.taps[tap]) for tap, module in network.stages])


def test_a_foreign_network_that_reads_values_is_computed_on_a_small_batch(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = dataclasses.replace(MODELS["cnn"], builder=f"{__name__}:reading", options={})
    monkeypatch.setattr(room, "MODELS", {"cnn": foreign})
    monkeypatch.setattr("secli.models.building.MODELS", {"cnn": foreign})
    count = Counts().of(shapes())
    monkeypatch.undo()
    own = Counts().of(shapes())
    assert count.step.products == own.step.products
    assert count.peak == pytest.approx(own.peak, rel=0.3)
    assert count.weights == own.weights


def test_foreign_counts_are_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_is_ours", lambda model: False)
    Counts().of(shapes())
    assert not cache.exists()


def test_images_that_a_network_cannot_take_are_unfit(cache: Path) -> None:
    with pytest.raises(Unfit):
        Counts().of(shapes("dss_v2")._replace(side=4, options="{}"))
    assert not cache.exists()
    assert torch.get_default_device().type == "cpu"
