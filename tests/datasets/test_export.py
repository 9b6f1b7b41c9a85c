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
from secli.datasets.export import export_png, png
from secli.datasets.store import open_dataset

GREY = st.tuples(st.integers(1, 40), st.integers(1, 40))
SHAPES = GREY | GREY.map(lambda size: (*size, 3))


@given(image=SHAPES.flatmap(lambda shape: arrays(np.uint8, shape)))
def test_pillow_reads_what_was_written(image: np.ndarray) -> None:
    picture = Image.open(io.BytesIO(png(image)))
    assert (picture.format, picture.mode) == ("PNG", "L" if image.ndim == 2 else "RGB")
    picture.verify()  # the checksums
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(image)))), image)


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
    with pytest.raises(OSError, match="No space left") as error:
        export_png(open_dataset(result.path), tmp_path / "png")
    assert str(error.value.filename).endswith(".png")
    assert [path for path in (tmp_path / "png").rglob("*") if path.is_file()] == []


def test_a_short_write_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = make_dataset("digits", tmp_path / "data")
    real = os.write
    monkeypatch.setattr("secli.datasets.export.os.write", lambda handle, part: real(handle, part[:50]))
    told: list[int] = []
    dataset = open_dataset(result.path)
    tree = export_png(dataset, tmp_path / "png", lambda done, total: told.append(done))
    assert told[-1] == sum(dataset.manifest.sizes.values())
    assert told == sorted(told)
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        files = {int(file.stem): file for file in (tree / name).rglob("*.png")}
        assert sorted(files) == list(range(len(split)))
        for index, file in files.items():
            assert file.parent.name == dataset.classes[split.labels[index]]
            assert np.array_equal(np.asarray(Image.open(file)), split.images[index])
