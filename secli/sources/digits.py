"""The handwritten digits that come with scikit-learn (Alpaydin and Kaynak 1998, test part): no download."""

from __future__ import annotations

import hashlib

import numpy as np

from secli.errors import InputError
from secli.sources.contract import RawImages, Request, SourceInfo

LEVELS = 16  # grey values run from 0 to 16


def read(request: Request) -> RawImages:
    """Read the 1 797 digits, 8×8, their grey values 0…16 mapped linearly onto 0…255.

    Raises
    ------
    InputError
        When a directory is given.
    """
    if request.directory is not None:
        raise InputError(
            f"--source {request.directory}: the digits come with scikit-learn; leave --source out"
        )
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / LEVELS)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    digests = {
        "digits images": hashlib.sha256(bunch.images.astype(np.uint8).tobytes()).hexdigest(),
        "digits labels": hashlib.sha256(labels.astype(np.uint8).tobytes()).hexdigest(),
    }
    remark = "installed with scikit-learn, which publishes no checksum of them"
    info = SourceInfo(name="digits", digests=digests, verified=False, remark=remark)
    return RawImages(images, labels, tuple(str(d) for d in range(10)), (("all", len(labels)),), False, info)
