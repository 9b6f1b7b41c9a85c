"""Small stand-ins for the published files: the same formats, with checksums of their own."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from secli.sources import mnist

Files = dict[str, bytes]


def idx(array: np.ndarray) -> bytes:
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        + array.astype(np.uint8).tobytes()
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("SECLI_CACHE", str(path))
    return path


@pytest.fixture
def idx_files() -> Files:
    """Thirty training and ten test pictures."""
    generator = np.random.default_rng(0)
    files = {}
    for images, labels, count in (
        (mnist.TRAIN_IMAGES, mnist.TRAIN_LABELS, 30),
        (mnist.TEST_IMAGES, mnist.TEST_LABELS, 10),
    ):
        files[images] = idx(generator.integers(0, 256, (count, 28, 28)))
        files[labels] = idx(np.arange(count) % 10)
    return files


@pytest.fixture
def small_mnist(idx_files: Files, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Let the small files be MNIST, as far as checksums go."""
    for name, content in idx_files.items():
        monkeypatch.setitem(mnist.MNIST_MD5, name, hashlib.md5(content).hexdigest())
    return idx_files


@pytest.fixture
def write() -> Callable[[Path, Files], Path]:
    """Write files into a directory, gzipped where their name ends in .gz."""

    def write_files(directory: Path, files: Files) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
        return directory

    return write_files


@pytest.fixture
def cifar_files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """Let six batches of four pictures be CIFAR-10."""
    from torchvision.datasets import CIFAR10

    generator = np.random.default_rng(1)
    files = {}
    for number, (name, _) in enumerate((*CIFAR10.train_list, *CIFAR10.test_list)):
        entry = {
            "data": generator.integers(0, 256, (4, 3072), dtype=np.uint8),
            "labels": [(number * 4 + i) % 10 for i in range(4)],
        }
        files[name] = pickle.dumps(entry, protocol=2)
    names = list(files)
    md5 = [[name, hashlib.md5(files[name]).hexdigest()] for name in names]
    monkeypatch.setattr(CIFAR10, "train_list", md5[:5])
    monkeypatch.setattr(CIFAR10, "test_list", md5[5:])
    return files


@pytest.fixture
def stl_files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """Let ten training and five test pictures be STL-10."""
    from torchvision.datasets import STL10

    generator = np.random.default_rng(2)
    files = {}
    for part, count in (("train", 10), ("test", 5)):
        files[f"{part}_X.bin"] = generator.integers(0, 256, count * 3 * 96 * 96, dtype=np.uint8).tobytes()
        files[f"{part}_y.bin"] = (np.arange(count) % 10 + 1).astype(np.uint8).tobytes()
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    unlabelled = STL10.train_list[2]
    monkeypatch.setattr(
        STL10, "train_list", [[n, md5[n]] for n in ("train_X.bin", "train_y.bin")] + [unlabelled]
    )
    monkeypatch.setattr(STL10, "test_list", [[n, md5[n]] for n in ("test_X.bin", "test_y.bin")])
    return files


@pytest.fixture
def pack() -> Callable[[Path, Files], Path]:
    """Pack files into a tar.gz archive below a folder, as published."""

    def pack_files(archive: Path, files: Files) -> Path:
        with tarfile.open(archive, "w:gz") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(f"folder/{name}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return archive

    return pack_files
