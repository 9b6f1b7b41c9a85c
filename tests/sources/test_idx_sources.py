from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from secli.errors import InputError
from secli.sources import mnist
from secli.sources.contract import Request
from secli.sources.files import cache_directory
from secli.sources.registry import read_source

Files = dict[str, bytes]
Write = Callable[[Path, Files], Path]


def offline(directory: Path | None = None) -> Request:
    return Request(directory, offline=True)


@pytest.mark.parametrize("layout", ["", "MNIST/raw", "raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_every_layout(
    small_mnist: Files, write: Write, tmp_path: Path, layout: str, suffix: str
) -> None:
    write(tmp_path / "d" / layout, {name + suffix: content for name, content in small_mnist.items()})
    raw = read_source("mnist", offline(tmp_path / "d"))
    assert raw.images.shape == (40, 28, 28)
    assert raw.labels.tolist() == [*(i % 10 for i in range(30)), *range(10)]
    assert raw.parts == (("train", 30), ("test", 10))
    assert raw.part("test") == range(30, 40)
    assert raw.part("val") is None
    assert not raw.lossy
    train = small_mnist[mnist.TRAIN_IMAGES]
    assert raw.images[:30].tobytes() == train[16:]
    assert raw.info.verified
    assert raw.info.digests[mnist.TRAIN_IMAGES] == hashlib.sha256(train).hexdigest()


def test_dotted_names_of_some_mirrors(small_mnist: Files, write: Write, tmp_path: Path) -> None:
    write(tmp_path / "d", {name.replace("-idx", ".idx"): content for name, content in small_mnist.items()})
    assert len(read_source("mnist", offline(tmp_path / "d")).labels) == 40


def test_source_before_cache_before_nothing(
    small_mnist: Files, write: Write, tmp_path: Path, cache: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"no file train-images-idx3-ubyte or .*\.gz in .*empty or .*cache.*--source"
    ):
        read_source("mnist", offline(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"in .*cache/mnist; put it there"):
        read_source("mnist", offline())
    write(cache / "mnist", small_mnist)
    assert len(read_source("mnist", offline(tmp_path / "empty")).labels) == 40
    with pytest.raises(InputError, match=r"--source .*nowhere: no such directory"):
        read_source("mnist", offline(tmp_path / "nowhere"))


def test_missing_one_is_named(small_mnist: Files, write: Write, tmp_path: Path) -> None:
    del small_mnist[mnist.TEST_LABELS]
    with pytest.raises(InputError, match=r"t10k-labels-idx1-ubyte \(or \.gz\): missing"):
        read_source("mnist", offline(write(tmp_path / "d", small_mnist)))


@pytest.mark.parametrize("packed", [False, True])
def test_truncated_and_wrong_files_are_named(
    small_mnist: Files, write: Write, tmp_path: Path, packed: bool
) -> None:
    suffix = ".gz" if packed else ""
    directory = write(tmp_path / "d", {name + suffix: content for name, content in small_mnist.items()})
    victim = directory / f"{mnist.TRAIN_IMAGES}{suffix}"
    victim.write_bytes(victim.read_bytes()[:500])
    with pytest.raises(InputError, match=rf"{victim.name}: .*truncated"):
        read_source("mnist", offline(directory))
    other = small_mnist[mnist.TRAIN_IMAGES][:-1] + b"\0"
    victim.write_bytes(gzip.compress(other) if packed else other)
    with pytest.raises(
        InputError, match=rf"{victim.name}: wrong, damaged or truncated file: 23536 bytes with md5"
    ):
        read_source("mnist", offline(directory))


def test_fashion_trusts_published_archives_and_says_what_it_cannot_check(
    idx_files: Files, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import FashionMNIST

    directory = write(tmp_path / "d", {f"{name}.gz": content for name, content in idx_files.items()})
    with pytest.raises(
        InputError, match=r"\.gz: wrong, damaged or truncated file: .*8d4fb7e6c68d591d4c3dfef9ec88bf0d"
    ):
        read_source("fashion-mnist", offline(directory))
    resources = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in directory.iterdir()]
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    checked = read_source("fashion-mnist", offline(directory))
    assert checked.info.verified
    assert checked.info.remark is None
    assert checked.classes[9] == "Ankle boot"
    unpacked = read_source(
        "fashion-mnist", offline(write(tmp_path / "FashionMNIST" / "raw", idx_files).parent.parent)
    )
    assert not unpacked.info.verified
    assert unpacked.info.remark is not None
    assert mnist.TRAIN_IMAGES in unpacked.info.remark
    np.testing.assert_array_equal(checked.images, unpacked.images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-3], "truncated: 23533 bytes, its header promises 23536"),
        (lambda content: content + b"\0", "too long: 23537 bytes"),
        (lambda content: content[:7], "truncated within its header"),
        (lambda content: b"GIF89a" + content, "not an idx file"),
        (lambda content: b"", "not an idx file"),
    ],
)
def test_form_is_checked_without_a_checksum(
    idx_files: Files, write: Write, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    idx_files[mnist.TRAIN_IMAGES] = change(idx_files[mnist.TRAIN_IMAGES])
    with pytest.raises(InputError, match=f"fashion-mnist: {mnist.TRAIN_IMAGES}: {message}"):
        read_source("fashion-mnist", offline(write(tmp_path / "d", idx_files)))


def test_images_must_fit_labels(idx_files: Files, write: Write, tmp_path: Path) -> None:
    idx_files[mnist.TRAIN_LABELS] = idx_files[mnist.TEST_LABELS]
    with pytest.raises(
        InputError, match=r"train-images.* has shape \(30, 28, 28\), train-labels.* they do not fit"
    ):
        read_source("fashion-mnist", offline(write(tmp_path / "d", idx_files)))


def test_cache_is_the_platforms_unless_chosen(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_directory() == cache
    monkeypatch.delenv("SECLI_CACHE")
    assert "secli" in cache_directory().parts


def test_digits_are_built_in(tmp_path: Path) -> None:
    raw = read_source("digits", offline())
    assert raw.images.shape == (1797, 8, 8)
    assert raw.images.max() == 255
    assert set(np.unique(raw.images)) <= {round(level * 255 / 16) for level in range(17)}
    assert raw.info.remark is not None
    with pytest.raises(InputError, match="leave --source out"):
        read_source("digits", offline(tmp_path))


def test_unknown_source_suggests() -> None:
    with pytest.raises(InputError, match="unknown source 'mnits'; did you mean 'mnist'"):
        read_source("mnits", offline())
