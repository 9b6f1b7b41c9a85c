from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from secli.datasets.pictures import open_pictures, stratified_order
from secli.datasets.protocols import DATASETS
from secli.datasets.store import Split, open_dataset, write_dataset
from secli.errors import InputError


def picture(path: Path, value: int, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> None:
    """Write a picture of one colour, so that its pixels tell which it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255 - value)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders: 20 cats of value 0 … 19, 10 dogs of value 100 … 109."""
    root = tmp_path / "animals"
    for k in range(20):
        picture(root / "cat" / f"{k:02}.png", k)
    for k in range(10):
        picture(root / "dog" / f"{k:02}.png", 100 + k)
    return root


def dataset(path: Path, labels: np.ndarray, images: np.ndarray, protocol: str = "folder") -> Path:
    """Write a dataset directory whose test split is given."""
    empty = Split(images[:0], labels[:0], np.ones(0, np.float32))
    test = Split(images, labels, np.ones(len(labels), np.float32))
    write_dataset(
        path,
        {"train": empty, "val": empty, "test": test},
        {
            "name": protocol,
            "protocol": protocol,
            "realisation": 2,
            "parameters": {},
            "scaled": protocol.endswith("-scale"),
            "lossy": False,
            "classes": ("a", "b", "c"),
            "channels": 1 if images.ndim == 3 else 3,
            "image_size": images.shape[1:3],
            "source": {"name": "folder", "digests": {}, "verified": False},
            "libraries": {},
        },
    )
    return path


def test_every_beginning_of_the_order_holds_the_classes_in_proportion() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    order = stratified_order(labels)
    assert sorted(order) == list(range(100))
    for count in (10, 20, 50):
        counts = np.bincount(labels[order[:count]], minlength=3)
        assert np.abs(counts - count * np.array([0.6, 0.3, 0.1])).max() <= 1
    assert np.array_equal(order, stratified_order(labels))
    even = np.repeat(np.arange(10), 50)
    assert sorted(even[stratified_order(even)[:10]]) == list(range(10))


def test_a_folder_of_class_folders(folder: Path) -> None:
    found = open_pictures(folder, images=9)
    assert tuple(found.images.shape) == (9, 3, 6, 8)
    assert found.images.dtype == torch.uint8
    assert found.classes == ("cat", "dog")
    assert found.labels is not None
    assert abs(int((found.labels == 0).sum()) - 6) <= 1
    # each picture has its own label, and its pixels
    values = found.images[:, 0, 0, 0]
    assert torch.equal((values >= 100).long(), found.labels)
    assert torch.equal(found.images[:, 2], 255 - found.images[:, 0])
    assert len(set(values.tolist())) == 9
    assert found.info.name == "animals"
    assert found.info.path == str(folder)
    assert not found.info.lossy
    assert not found.on_black
    assert not found.scaled
    assert found.order == "stratified by class, seed 0"
    lines = ""
    for value in values.tolist():
        name = f"cat/{value:02}.png" if value < 100 else f"dog/{value - 100:02}.png"
        lines += f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n"
    assert found.info.digest == hashlib.sha256(lines.encode()).hexdigest()
    assert open_pictures(folder, images=1000).images.shape[0] == 30


def test_only_what_is_needed_is_read(folder: Path) -> None:
    (folder / "cat" / "99.png").write_bytes(b"damaged")
    order = stratified_order(np.repeat([0, 1], [21, 10]))
    rank = int(np.flatnonzero(order == 20)[0])
    assert len(open_pictures(folder, images=rank).images) == rank
    with pytest.raises(InputError, match=r"99\.png: not a whole picture"):
        open_pictures(folder, images=rank + 1)


def test_the_test_part_of_a_folder_with_parts(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "parts"
    shutil.copytree(folder, root / "train")
    picture(root / "test" / "dog" / "1.png", 7)
    found = open_pictures(root)
    assert found.classes == ("cat", "dog")
    assert found.labels is not None
    assert found.labels.tolist() == [1]  # as a network trained on both classes has it
    assert found.info.name == "parts"


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for k in range(5):
        picture(tmp_path / "flat" / f"{k}.jpg", 10 * k)
    found = open_pictures(tmp_path / "flat", images=4)
    assert found.labels is None
    assert found.classes == ()
    assert len(found.images) == 4
    assert found.info.lossy


def test_pictures_are_brought_to_a_shape(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 200, (8, 6))
    picture(tmp_path / "b.png", 200, (30, 40), "L")
    with pytest.raises(InputError, match="give --input CxHxW") as caught:
        open_pictures(tmp_path)
    assert "\n" not in str(caught.value)
    found = open_pictures(tmp_path, input_shape=(3, 12, 16))
    assert tuple(found.images.shape) == (2, 3, 12, 16)
    by_colour = {tuple(image[:, 0, 0].tolist()) for image in found.images}
    assert by_colour == {(200, 0, 55), (200, 200, 200)}  # grey is repeated
    grey = open_pictures(tmp_path, input_shape=(1, 12, 16))
    luminance = round(0.299 * 200 + 0.114 * 55)
    assert sorted({int(image.max()) for image in grey.images}) == [luminance, 200]


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    inner = open_pictures(tmp_path, input_shape=(1, 16, 16)).images[0, 0, 4:-4, 4:-4]
    assert (
        120 <= int(inner.min()) <= int(inner.max()) <= 135
    )  # the mean, where sampling would give black or white


def test_a_dataset_in_stored_order(tmp_path: Path) -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(5, 2)
    path = dataset(tmp_path / "d", np.array([2, 0, 1, 0, 2, 1]), images, "mnist-scale")
    found = open_pictures(path, images=4)
    assert tuple(found.images.shape) == (4, 1, 4, 5)
    assert found.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert found.labels is not None
    assert found.labels.tolist() == [2, 0, 1, 0]
    assert found.classes == ("a", "b", "c")
    assert found.info == open_dataset(path).info()
    assert found.on_black
    assert found.scaled
    assert found.order == "as stored"
    assert tuple(open_pictures(path, input_shape=(3, 8, 8)).images.shape) == (6, 3, 8, 8)


def test_a_dataset_that_lies_class_by_class_is_shuffled(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], 20)
    images = labels.astype(np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    path = dataset(tmp_path / "d", labels, images)
    found = open_pictures(path, images=9)
    assert found.labels is not None
    assert found.labels.bincount().tolist() == [3, 3, 3]
    assert torch.equal(found.images[:, 0, 0, 0].long(), found.labels)
    assert not found.on_black
    assert found.order.startswith("stratified")
    assert open_pictures(path).order == "as stored"  # all of them need no order


def test_what_lies_on_black() -> None:
    expected = {"digits", "mnist", "fashion-mnist"}
    assert {name for name, spec in DATASETS.items() if spec.on_black} == {
        name for name, spec in DATASETS.items() if spec.source in expected
    }
    assert len([spec for spec in DATASETS.values() if spec.on_black]) == 6


def test_bad_folders_are_one_line(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no picture")
    cases = [
        (tmp_path / "nowhere", {}, "no such directory"),
        (folder / "cat" / "00.png", {}, "no such directory"),
        (tmp_path / "empty", {}, "neither a dataset"),
        (tmp_path / "texts", {}, "neither a dataset"),
        (folder, {"images": 0}, "--images 0: at least 1"),
        (folder, {"input_shape": (2, 8, 8)}, "--input 2x8x8: pictures have 1 or 3 channels"),
        (folder, {"input_shape": (3, 0, 8)}, "--input 3x0x8"),
    ]
    for path, options, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            open_pictures(path, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    damaged = dataset(tmp_path / "d", np.zeros(3, np.int64), np.zeros((3, 4, 4), np.uint8))
    (damaged / "test-images.npy").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"test-images\.npy: damaged"):
        open_pictures(damaged)
