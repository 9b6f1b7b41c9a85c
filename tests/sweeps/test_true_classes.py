"""Labels in a network's own classes: by the names of folders, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from secli.datasets.pictures import Pictures
from secli.models.building import build
from secli.records.schema import DataInfo, ModelInfo
from secli.sweeps.true_classes import in_classes_of
from secli.training.load import Subject


def network(name: str, weights: str | None, foreign: bool = True) -> Subject:
    options: dict[str, Any] = {"weights": weights}
    return Subject(
        build("mnist_cnn_28"), ModelInfo(name=name, options=options, parameters=1), 0, foreign=foreign
    )


def pictures(classes: Sequence[str], path: Path, labels: bool = True) -> Pictures:
    return Pictures(
        images=torch.zeros(4, 1, 8, 8, dtype=torch.uint8),
        labels=torch.tensor([0, 1, 1, 0]) if labels else None,
        classes=tuple(classes),
        info=DataInfo(name="mine", realisation=0, digest="0", path=str(path)),
        on_black=False,
        scaled=False,
    )


def test_folders_become_the_classes_of_their_names(tmp_path: Path) -> None:
    given = pictures(["Goldfish", "great_white_shark"], tmp_path)
    found, reason = in_classes_of(network("torchvision:resnet18", "IMAGENET1K_V1"), given, 1000)
    assert reason is None
    assert found.labels is not None
    assert found.labels.tolist() == [1, 2, 2, 1]
    assert len(found.classes) == 1000


def test_wnids_become_classes_where_timm_lists_them(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    given = pictures(["n01443537", "n01440764"], tmp_path)
    found, reason = in_classes_of(network("timm:resnet10t", "c3_in1k"), given, 1000)
    assert reason is None
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("name", "weights", "foreign"),
    [("torchvision:resnet18", None, True), ("timm:resnet10t", None, True), ("mnist_cnn_28", None, False)],
)
def test_random_weights_have_no_classes(
    name: str, weights: str | None, foreign: bool, tmp_path: Path
) -> None:
    found, reason = in_classes_of(network(name, weights, foreign), pictures(["a", "b"], tmp_path), 2)
    assert found.labels is None
    assert str(reason) == "the weights are random"


def test_a_folder_that_is_no_category_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = network("torchvision:resnet18", "IMAGENET1K_V1")
    found, reason = in_classes_of(trained, pictures(["goldfish", "holiday"], tmp_path), 1000)
    assert found.labels is None
    assert str(reason) == "the folder 'holiday' is none of the network's 1000 categories"
    monkeypatch.setattr("secli.external.categories._wnids", list)
    _, reason = in_classes_of(trained, pictures(["goldfish", "n01443537"], tmp_path), 1000)
    assert reason is not None
    assert reason.code == "wnid-unknown"


def test_without_known_names_the_order_of_folders_counts(tmp_path: Path) -> None:
    given = pictures(["a", "b"], tmp_path)
    for own in (network("nets.py:build", None), network("cnn", "w.pth", foreign=False)):
        assert in_classes_of(own, given, 2) == (given, None)
    # another number of outputs is told where the accuracy is computed
    assert in_classes_of(network("nets.py:build", None), given, 7) == (given, None)


def test_pictures_without_labels_or_networks_without_logits(tmp_path: Path) -> None:
    _, reason = in_classes_of(network("nets.py:build", None), pictures([], tmp_path, labels=False), 2)
    assert str(reason) == "the images have no labels"
    given = pictures(["a", "b"], tmp_path)
    assert in_classes_of(network("nets.py:build", None), given, None) == (given, None)


def test_a_dataset_keeps_its_labels(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    given = pictures(["tench", "goldfish"], tmp_path)
    assert in_classes_of(network("nets.py:build", "w.pth"), given, 1000) == (given, None)
