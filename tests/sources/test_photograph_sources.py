from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from secli.errors import InputError
from secli.sources.contract import Request
from secli.sources.registry import read_source

Files = dict[str, bytes]
Write = Callable[[Path, Files], Path]


@pytest.mark.parametrize("layout", ["", "cifar-10-batches-py"])
def test_cifar10_pixels_are_where_torchvision_puts_them(
    cifar_files: Files, write: Write, tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    directory = write(tmp_path / "d" / layout, cifar_files)
    raw = read_source("cifar10", Request(tmp_path / "d", offline=True))
    assert raw.parts == (("train", 20), ("test", 4))
    assert raw.info.verified
    if layout:
        meta = pickle.dumps({"label_names": list(raw.classes)})
        (directory / "batches.meta").write_bytes(meta)
        monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(meta).hexdigest()})
        theirs = CIFAR10(str(tmp_path / "d"), train=True)
        np.testing.assert_array_equal(raw.images[:20], theirs.data)
        assert raw.labels[:20].tolist() == theirs.targets


def test_cifar10_from_its_archive(
    cifar_files: Files, pack: Callable[[Path, Files], Path], write: Write, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    archive = pack(tmp_path / "a" / "cifar-10-python.tar.gz", cifar_files)
    packed = read_source("cifar10", Request(tmp_path / "a", offline=True))
    bare = read_source("cifar10", Request(write(tmp_path / "d", cifar_files), offline=True))
    np.testing.assert_array_equal(packed.images, bare.images)
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cifar-10-python\.tar\.gz: damaged or truncated archive"):
        read_source("cifar10", Request(tmp_path / "a", offline=True))
    del cifar_files["test_batch"]
    pack(archive, cifar_files)
    with pytest.raises(InputError, match=r"cifar-10-python\.tar\.gz: holds no file test_batch"):
        read_source("cifar10", Request(tmp_path / "a", offline=True))


def test_a_pickle_is_opened_only_with_the_right_checksum(
    cifar_files: Files, write: Write, tmp_path: Path
) -> None:
    marker = tmp_path / "opened"
    cifar_files["test_batch"] = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    with pytest.raises(InputError, match="test_batch: wrong, damaged"):
        read_source("cifar10", Request(write(tmp_path / "d", cifar_files), offline=True))
    assert not marker.exists()


def test_stl10_pixels_are_where_torchvision_puts_them(stl_files: Files, write: Write, tmp_path: Path) -> None:
    from torchvision.datasets import STL10

    write(tmp_path / "d" / "stl10_binary", stl_files)
    raw = read_source("stl10", Request(tmp_path / "d", offline=True))
    assert raw.images.shape == (15, 96, 96, 3)
    assert raw.parts == (("train", 10), ("test", 5))
    theirs = STL10.__new__(STL10)
    theirs.root = str(tmp_path / "d")
    images, labels = theirs._STL10__loadfile("test_X.bin", "test_y.bin")
    np.testing.assert_array_equal(raw.images[10:], images.transpose(0, 2, 3, 1))
    assert raw.labels[10:].tolist() == labels.tolist()
    (tmp_path / "d" / "stl10_binary" / "test_X.bin").write_bytes(stl_files["test_X.bin"][:-5])
    with pytest.raises(InputError, match=r"test_X\.bin: wrong, damaged or truncated"):
        read_source("stl10", Request(tmp_path / "d", offline=True))
