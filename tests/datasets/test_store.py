from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secli.datasets.loading import pixels, to_device
from secli.datasets.store import ScaleDataset, Split, open_dataset, write_dataset
from secli.errors import InputError
from secli.provenance import sha256_file


def some(count: int, *channels: int) -> Split:
    generator = np.random.default_rng(count)
    return Split(
        generator.integers(0, 256, (count, 4, 5, *channels), dtype=np.uint8),
        np.arange(count, dtype=np.int64) % 2,
        np.linspace(0.3, 1, count, dtype=np.float32),
    )


DESCRIPTION: dict[str, Any] = {
    "name": "some-scale",
    "protocol": "digits-scale",
    "realisation": 3,
    "parameters": {"factors": [0.3, 1.0]},
    "scaled": True,
    "lossy": True,
    "classes": ("cat", "dog"),
    "channels": 3,
    "image_size": (4, 5),
    "source": {"name": "some", "digests": {"file": "00"}, "verified": True},
    "libraries": {"numpy": np.__version__},
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "some-scale" / "r3"
    write_dataset(path, {"train": some(6, 3), "val": some(0, 3), "test": some(4, 3)}, DESCRIPTION)
    return path


def test_round_trip(directory: Path) -> None:
    dataset = open_dataset(directory)
    assert (dataset.name, dataset.realisation, dataset.classes) == ("some-scale", 3, ("cat", "dog"))
    assert (dataset.channels, dataset.image_size, dataset.lossy, dataset.scaled) == (3, (4, 5), True, True)
    assert dataset.info().model_dump() == {
        "name": "some-scale",
        "realisation": 3,
        "digest": dataset.digest,
        "path": str(directory),
        "order": None,
        "lossy": True,
        "parameters": {"factors": [0.3, 1.0], "sizes": [6, 0, 4]},
        "resized": None,
    }
    for name, count in (("train", 6), ("val", 0), ("test", 4)):
        split = dataset.split(name)  # type: ignore[arg-type]
        assert len(split) == count
        np.testing.assert_array_equal(split.images, some(count, 3).images)
        np.testing.assert_array_equal(split.factors, some(count, 3).factors)
    with pytest.raises(InputError, match="no split 'validation'; known: train, val, test"):
        inspect.unwrap(ScaleDataset.split)(dataset, "validation")  # beartype would be faster than we


def test_the_digest_is_that_of_the_data(directory: Path, tmp_path: Path) -> None:
    splits = {"train": some(6, 3), "val": some(0, 3), "test": some(4, 3)}
    write_dataset(tmp_path / "again", splits, {**DESCRIPTION, "libraries": {}})  # type: ignore[arg-type]
    assert open_dataset(tmp_path / "again").digest == open_dataset(directory).digest
    splits["train"].images[0, 0, 0, 0] ^= 1
    write_dataset(tmp_path / "other", splits, DESCRIPTION)  # type: ignore[arg-type]
    assert open_dataset(tmp_path / "other").digest != open_dataset(directory).digest


def test_a_standing_directory_is_never_replaced(directory: Path) -> None:
    before = open_dataset(directory).digest
    with pytest.raises(InputError, match="already exists"):
        write_dataset(directory, {"train": some(1), "val": some(1), "test": some(1)}, DESCRIPTION)
    assert open_dataset(directory).digest == before


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="classes"):
        write_dataset(
            tmp_path / "r0",
            {"train": some(1), "val": some(1), "test": some(1)},
            {**DESCRIPTION, "classes": ()},
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["train-images.npy", "val-labels.npy", "test-factors.npy"])
@pytest.mark.parametrize("fault", ["missing", "one bit", "truncated", "empty"])
def test_damage_is_named(directory: Path, file: str, fault: str) -> None:
    path = directory / file
    content = path.read_bytes()
    changed = {"one bit": content[:-1] + bytes([content[-1] ^ 1]), "truncated": content[:-1], "empty": b""}
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(changed[fault])
    word = "missing" if fault == "missing" else "damaged"
    with pytest.raises(InputError, match=rf"{file}: {word}.*make it again"):
        open_dataset(directory)


def test_damage_after_opening_is_named(directory: Path) -> None:
    dataset = open_dataset(directory)
    (directory / "train-images.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"train-images\.npy: damaged"):
        dataset.split("train")
    np.save(directory / "test-labels.npy", np.zeros(4, np.int32))
    with pytest.raises(InputError, match=r"test-labels\.npy: holds int32, expected int64"):
        dataset.split("test")
    np.save(directory / "val-images.npy", np.zeros((1, 4, 5, 3), np.uint8))
    with pytest.raises(
        InputError, match=r"val-images\.npy: shape \(1, 4, 5, 3\), but the manifest says \(0, 4, 5, 3\)"
    ):
        dataset.split("val")
    (directory / "val-factors.npy").unlink()
    with pytest.raises(InputError, match=r"val-factors\.npy: missing"):
        dataset.split("val")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "{", "damaged \\(not JSON\\)"),
        (lambda text: "[]", "not the manifest of a dataset"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 9'), "newer than this secli"),
        (lambda text: text.replace('"channels"', '"chanels"'), "damaged \\(.*chan"),
        (lambda text: text.replace("val-images.npy", "../../x.npy"), "does not list the nine files"),
    ],
)
def test_a_damaged_manifest_is_named(directory: Path, change: Any, message: str) -> None:
    manifest = directory / "manifest.json"
    manifest.write_text(change(manifest.read_text()))
    with pytest.raises(InputError, match=rf"manifest\.json: .*{message}"):
        open_dataset(directory)


def test_no_dataset_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such dataset directory"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"manifest\.json: missing"):
        open_dataset(tmp_path)


def test_the_manifest_tells_where_it_comes_from(directory: Path) -> None:
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert manifest["sizes"] == {"train": 6, "val": 0, "test": 4}
    assert manifest["source"]["digests"] == {"file": "00"}
    assert len(manifest["files"]) == 9
    shutil.move(directory, directory.parent / "elsewhere")
    assert open_dataset(directory.parent / "elsewhere").realisation == 3


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("count", [0, 4])
def test_tensors(channels: tuple[int, ...], count: int) -> None:
    split = some(count, *channels)
    images, labels = to_device(split, "cpu")
    assert images.shape == (count, 3 if channels else 1, 4, 5)
    assert images.is_contiguous()
    assert labels.tolist() == split.labels.tolist()
    if count:
        expected = split.images[1, 2, 3] if channels else [split.images[1, 2, 3]]
        assert images[1, :, 2, 3].tolist() == list(expected)
    values = pixels(images)
    assert values.dtype == torch.float32
    np.testing.assert_array_equal(values.numpy(), images.numpy().astype(np.float32) / np.float32(255))
    assert pixels(images, torch.float64).dtype == torch.float64
    assert images.dtype == torch.uint8


class _Runs:
    """What a pickle can hold: opening it runs a command."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


def test_an_array_with_a_pickle_in_it_runs_nothing(directory: Path, tmp_path: Path) -> None:
    """Its digest in the manifest agrees: whoever gives away a dataset can see to that."""
    ran = tmp_path / "ran"
    file = directory / "test-labels.npy"
    np.save(file, np.array([_Runs(ran)] * 4, dtype=object), allow_pickle=True)
    manifest = directory / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"][file.name] = sha256_file(file)
    manifest.write_text(json.dumps(content))
    dataset = open_dataset(directory)
    with pytest.raises(InputError, match=r"test-labels\.npy: damaged"):
        dataset.split("test")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("array", "value", "told"),
    [("labels", 2, "labels from 2 to 2"), ("labels", -1, "labels from -1"), ("factors", 0, "scale factor")],
)
def test_labels_and_factors_out_of_range_are_refused(
    directory: Path, array: str, value: int, told: str
) -> None:
    file = directory / f"test-{array}.npy"
    np.save(file, np.full_like(np.load(file), value))
    manifest = directory / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"][file.name] = sha256_file(file)
    manifest.write_text(json.dumps(content))
    with pytest.raises(InputError, match=told):
        open_dataset(directory).split("test")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../../outside"),
        ("name", ".."),
        ("name", "/etc"),
        ("name", "a" * 101),
        ("name", "-rf"),
        ("name", "a\nb"),
        ("protocol", "nothing"),
        ("realisation", 10**40),
        ("classes", ["cat", ".."]),
        ("classes", ["cat", "\x1b[31m"]),
        ("parameters", {"sizes": "many"}),
        ("image_size", [0, 28]),
        ("schema_version", True),
    ],
)
def test_a_manifest_with_a_wrong_value_is_refused(directory: Path, key: str, value: object) -> None:
    file = directory / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(InputError, match=r"manifest\.json: ") as caught:
        open_dataset(directory)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
