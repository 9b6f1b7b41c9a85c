"""STL-10 (Coates et al. 2011): the labelled pictures, in the binary version."""

from __future__ import annotations

import numpy as np

from secli.errors import InputError
from secli.sources.contract import RawImages, Request
from secli.sources.files import Download, PublishedFile, PublishedFiles, obtain

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
TRAIN_IMAGES, TRAIN_LABELS = "train_X.bin", "train_y.bin"
TEST_IMAGES, TEST_LABELS = "test_X.bin", "test_y.bin"
SIDE = 96


def read(request: Request) -> RawImages:
    """Read the 5 000 + 8 000 labelled STL-10 photographs, 96×96×3; the unlabelled ones are not needed."""
    from torchvision.datasets import STL10

    md5 = dict((*STL10.train_list, *STL10.test_list))
    names = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
    files = tuple(PublishedFile(name, md5[name]) for name in names)
    layouts = ("", STL10.base_folder, "stl10", f"stl10/{STL10.base_folder}")
    download = Download(STL10.filename, (STL10.url,), STL10.tgz_md5)
    published = PublishedFiles("stl10", files, layouts, lambda: [download], archive=STL10.filename)
    contents, info = obtain(published, request)
    train_images, train_labels = _part(contents, TRAIN_IMAGES, TRAIN_LABELS)
    test_images, test_labels = _part(contents, TEST_IMAGES, TEST_LABELS)
    return RawImages(
        images=np.concatenate([train_images, test_images]),
        labels=np.concatenate([train_labels, test_labels]),
        classes=CLASSES,
        parts=(("train", len(train_labels)), ("test", len(test_labels))),
        lossy=False,
        info=info,
    )


def _part(contents: dict[str, bytes], images_file: str, labels_file: str) -> tuple[np.ndarray, np.ndarray]:
    labels = np.frombuffer(contents[labels_file], dtype=np.uint8).astype(np.int64) - 1  # published as 1 to 10
    images = np.frombuffer(contents[images_file], dtype=np.uint8)
    if images.size != len(labels) * 3 * SIDE * SIDE:
        raise InputError(
            f"stl10: {images_file} holds {images.size} bytes, which do not fit {len(labels)} labels"
        )
    # stored channel by channel, each of them column by column
    return images.reshape(-1, 3, SIDE, SIDE).transpose(0, 3, 2, 1), labels
