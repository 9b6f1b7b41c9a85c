from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from secli.datasets.build import make_dataset
from secli.datasets.preview import augmentation_stages, samples_by_factor, write_preview
from secli.datasets.store import Split, open_dataset, write_dataset
from secli.errors import InputError


def texts(figure: Figure) -> list[str]:
    found = [figure.get_suptitle()]
    for axis in figure.axes:
        found += [axis.get_title(), axis.get_ylabel()]
    return [text for text in found if text]


def test_samples_are_labelled_with_class_and_factor(tmp_path: Path) -> None:
    (result,) = make_dataset("digits-scale", tmp_path, [1])
    dataset = open_dataset(result.path)
    figure = samples_by_factor(dataset)
    written = texts(figure)
    assert written[0] == "digits-scale r1, train split, 28×28 px"
    assert [text for text in written if text.isdigit()] == list("0123456789")
    factors = [float(text.removeprefix("s = ")) for text in written if text.startswith("s = ")]
    assert len(factors) == 80
    for row in range(10):
        assert factors[8 * row : 8 * row + 8] == sorted(factors[8 * row : 8 * row + 8])
    assert min(factors) == pytest.approx(0.3, abs=0.03)
    assert max(factors) == pytest.approx(1.0, abs=0.03)
    # the picture under a label is one of that class with that factor
    split = dataset.split("train")
    shown = np.asarray(figure.axes[3].images[0].get_array())
    label = float(figure.axes[3].get_title().removeprefix("s = "))
    matches = (split.images == shown).all(axis=(1, 2)) & (split.labels == 0)
    assert np.abs(split.factors[matches] - label).min() <= 0.005


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_the_figure_is_written_whole_and_repeatably(tmp_path: Path, class_folders: Path, suffix: str) -> None:
    (result,) = make_dataset("folder-scale", tmp_path, [0], source=class_folders)
    dataset = open_dataset(result.path)
    path = tmp_path / "figures" / f"preview{suffix}"
    write_preview(dataset, path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    if suffix == ".png":
        first = hashlib.sha256(path.read_bytes()).hexdigest()
        write_preview(dataset, path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == first
        picture = Image.open(path)
        assert picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert("L")))) > 100


def test_bad_paths(tmp_path: Path, class_folders: Path) -> None:
    (result,) = make_dataset("folder", tmp_path, [0], source=class_folders)
    dataset = open_dataset(result.path)
    with pytest.raises(
        InputError, match=r"--preview .*x\.gif: the figure's name must end in \.png, \.pdf, \.svg"
    ):
        write_preview(dataset, tmp_path / "x.gif")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match="is a directory"):
        write_preview(dataset, tmp_path / "x.png")


def test_stl10_draws_the_stages_of_its_augmentation(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = generator.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
        return Split(images, np.arange(count, dtype=np.int64) % 3, np.ones(count, np.float32))

    description = {
        "name": "stl10",
        "protocol": "stl10",
        "realisation": 0,
        "parameters": {},
        "scaled": False,
        "lossy": False,
        "classes": ("airplane", "bird", "car"),
        "channels": 3,
        "image_size": (96, 96),
        "source": {"name": "stl10", "digests": {}, "verified": True},
        "libraries": {},
    }
    write_dataset(tmp_path / "r0", {"train": split(9), "val": split(0), "test": split(3)}, description)
    dataset = open_dataset(tmp_path / "r0")
    written = texts(augmentation_stages(dataset))
    assert [text.split("\n")[0] for text in written if "px" in text and "\n" in text] == [
        "original",
        "padded",
        "cropped",
        "flipped",
        "cut out",
    ]
    assert "padded\n120×120 px" in written
    assert {"airplane", "bird", "car"} <= set(written)
    write_preview(dataset, tmp_path / "stages.png")
    assert (tmp_path / "stages.png").stat().st_size > 10_000
