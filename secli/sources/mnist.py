"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017): four idx files each, gzipped or not."""

from __future__ import annotations

import struct

import numpy as np

from secli.errors import InputError
from secli.sources.contract import RawImages, Request
from secli.sources.files import Download, PublishedFile, PublishedFiles, obtain

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"

# of the unpacked files: the gzipped ones were packed anew by some mirrors
MNIST_MD5 = {
    TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
    TRAIN_LABELS: "a25bea736e30d166cdddb491f175f624",
    TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
    TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
}
MNIST_CLASSES = tuple(str(digit) for digit in range(10))
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
UNSIGNED_BYTE = 0x08


def read_mnist(request: Request) -> RawImages:
    """Read the 60 000 + 10 000 MNIST digits, 28×28, in the order of their files."""
    files = tuple(PublishedFile(name, md5) for name, md5 in MNIST_MD5.items())
    layouts = ("", "MNIST/raw", "raw", "mnist")
    published = PublishedFiles("mnist", files, layouts, lambda: _downloads("MNIST"))
    return _read(published, MNIST_CLASSES, request)


def read_fashion_mnist(request: Request) -> RawImages:
    """Read the 60 000 + 10 000 Fashion-MNIST pictures, 28×28, in the order of their files.

    Checksums are published of the gzipped files only; of unpacked ones the form is checked, as the manifest records.
    """
    files = tuple(PublishedFile(name, None) for name in MNIST_MD5)
    layouts = ("", "FashionMNIST/raw", "raw", "fashion-mnist")
    published = PublishedFiles("fashion-mnist", files, layouts, lambda: _downloads("FashionMNIST"))
    return _read(published, FASHION_CLASSES, request)


def _downloads(dataset: str) -> list[Download]:
    from torchvision import datasets

    of_torchvision = getattr(datasets, dataset)
    return [
        Download(name, tuple(f"{mirror}{name}" for mirror in of_torchvision.mirrors), md5)
        for name, md5 in of_torchvision.resources
    ]


def _read(published: PublishedFiles, classes: tuple[str, ...], request: Request) -> RawImages:
    contents, info = obtain(published, request)
    arrays = {name: parse_idx(content, f"{published.source}: {name}") for name, content in contents.items()}
    for images, labels in ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)):
        shape, count = arrays[images].shape, arrays[labels].shape
        if len(shape) != 3 or count != shape[:1]:
            raise InputError(
                f"{published.source}: {images} has shape {shape}, {labels} has {count}; they do not fit"
            )
        if arrays[labels].size and arrays[labels].max() >= len(classes):
            raise InputError(f"{published.source}: {labels} holds a label above {len(classes) - 1}")
    if arrays[TRAIN_IMAGES].shape[1:] != arrays[TEST_IMAGES].shape[1:]:
        raise InputError(
            f"{published.source}: {TRAIN_IMAGES} and {TEST_IMAGES} hold pictures of different sizes"
        )
    return RawImages(
        images=np.concatenate([arrays[TRAIN_IMAGES], arrays[TEST_IMAGES]]),
        labels=np.concatenate([arrays[TRAIN_LABELS], arrays[TEST_LABELS]]).astype(np.int64),
        classes=classes,
        parts=(("train", len(arrays[TRAIN_IMAGES])), ("test", len(arrays[TEST_IMAGES]))),
        lossy=False,
        info=info,
    )


def parse_idx(content: bytes, where: str) -> np.ndarray:
    """Read an idx file of unsigned bytes: two zero bytes, type, number of axes, the big-endian sizes, the data.

    Raises
    ------
    InputError
        When the header is not that of such a file, or its sizes do not match the file's length.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTE:
        raise InputError(f"{where}: not an idx file of unsigned bytes")
    axes = content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise InputError(f"{where}: truncated within its header")
    shape = struct.unpack(f">{axes}I", content[4:start])
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        word = "truncated" if len(content) < expected else "too long"
        raise InputError(f"{where}: {word}: {len(content)} bytes, its header promises {expected}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
