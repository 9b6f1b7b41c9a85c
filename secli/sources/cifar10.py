"""CIFAR-10 (Krizhevsky 2009): five training batches and a test batch, in the Python version."""

from __future__ import annotations

import pickle

import numpy as np

from secli.errors import InputError
from secli.sources.contract import RawImages, Request
from secli.sources.files import Download, PublishedFile, PublishedFiles, obtain

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32


def read(request: Request) -> RawImages:
    """Read the 50 000 + 10 000 CIFAR-10 photographs, 32×32×3, batch by batch in their published order."""
    from torchvision.datasets import CIFAR10

    files = tuple(PublishedFile(name, md5) for name, md5 in (*CIFAR10.train_list, *CIFAR10.test_list))
    layouts = ("", CIFAR10.base_folder, "cifar10", f"cifar10/{CIFAR10.base_folder}")
    download = Download(CIFAR10.filename, (CIFAR10.url,), CIFAR10.tgz_md5)
    published = PublishedFiles("cifar10", files, layouts, lambda: [download], archive=CIFAR10.filename)
    contents, info = obtain(published, request)
    batches = [_batch(contents[file.name], file.name) for file in files]
    test = len(batches[-1][1])
    labels = np.concatenate([labels for _, labels in batches])
    return RawImages(
        images=np.concatenate([images for images, _ in batches]),
        labels=labels,
        classes=CLASSES,
        parts=(("train", len(labels) - test), ("test", test)),
        lossy=False,
        info=info,
    )


def _batch(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    # a pickle can run code: only content whose checksum is the published one comes here
    entry = pickle.loads(content, encoding="latin1")
    labels = np.asarray(entry["labels"], dtype=np.int64)
    images = np.asarray(entry["data"], dtype=np.uint8)
    if images.shape != (len(labels), 3 * SIDE * SIDE):
        raise InputError(f"cifar10: {name} holds {images.shape} pixels for {len(labels)} labels")
    return images.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels
