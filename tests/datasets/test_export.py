"""PNG files as Pillow reads them, written by several threads: all of them or none."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from secli.datasets.build import make_dataset
from secli.datasets.export import export_png
from secli.datasets.png import png_files
from secli.datasets.store import open_dataset
from secli.errors import SecliError

GREY = st.tuples(st.integers(1, 40), st.integers(1, 40))
SHAPES = GREY | GREY.map(lambda size: (*size, 3))


@given(images=SHAPES.flatmap(lambda shape: arrays(np.uint8, (2, *shape))))
def test_pillow_reads_what_was_written(images: np.ndarray) -> None:
    for image, file in zip(images, png_files(images), strict=True):
        picture = Image.open(io.BytesIO(file))
        assert (picture.format, picture.mode) == ("PNG", "L" if image.ndim == 2 else "RGB")
        assert np.array_equal(np.asarray(picture), image)


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_picture_stands_at_its_place_whoever_encoded_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr("secli.datasets.export.BLOCK", 70)
    (result,) = make_dataset("digits", tmp_path / "data")
    dataset = open_dataset(result.path)
    told: list[tuple[int, int]] = []
    tree = export_png(dataset, tmp_path / "png", lambda *at: told.append(at), jobs)
    assert told[-1] == (1797, 1797)
    assert told == sorted(told)
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        files = {int(file.stem): file for file in (tree / name).rglob("*.png")}
        assert sorted(files) == list(range(len(split)))
        for index, file in files.items():
            assert file.parent.name == dataset.classes[split.labels[index]]
            assert np.array_equal(np.asarray(Image.open(file)), split.images[index])


def test_a_full_disk_leaves_nothing_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (result,) = make_dataset("digits", tmp_path / "data")
    monkeypatch.setattr("secli.datasets.export.BLOCK", 20)
    real, count = os.write, 0

    def full(handle: int, content: bytes) -> int:
        nonlocal count
        count += 1
        if count > 100:
            raise OSError(28, "No space left on device")
        return real(handle, content)

    monkeypatch.setattr("secli.datasets.export.os.write", full)
    with pytest.raises(OSError, match="no space left on device") as error:
        export_png(open_dataset(result.path), tmp_path / "png")
    assert str(error.value.filename).endswith(".png")
    assert [path for path in (tmp_path / "png").rglob("*") if path.is_file()] == []


def test_a_short_write_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = make_dataset("digits", tmp_path / "data")
    whole = export_png(open_dataset(result.path), tmp_path / "whole")
    real = os.write
    monkeypatch.setattr("secli.datasets.export.os.write", lambda handle, part: real(handle, part[:50]))
    tree = export_png(open_dataset(result.path), tmp_path / "png")
    files = sorted(tree.rglob("*.png"))
    assert len(files) == 1797
    assert all(file.read_bytes() == (whole / file.relative_to(tree)).read_bytes() for file in files)


def test_a_worker_that_dies_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = make_dataset("digits", tmp_path / "data")
    monkeypatch.setattr("secli.datasets.workers.START", "raise SystemExit(3)")
    with pytest.raises(SecliError, match="a worker process died: exit code 3"):
        export_png(open_dataset(result.path), tmp_path / "png", jobs=2)
    assert [path for path in (tmp_path / "png").rglob("*") if path.is_file()] == []
