"""Small raw pictures and small datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secli.sources.contract import PartName, RawImages, SourceInfo

RawMaker = Callable[..., RawImages]


@pytest.fixture
def raw_images() -> RawMaker:
    """Make pictures by a formula, so that they are the same everywhere and for ever."""

    def make(
        count: int = 400, colour: bool = False, parts: tuple[tuple[PartName, int], ...] = ()
    ) -> RawImages:
        number, row, column = np.ogrid[:count, :28, :28]
        images = ((number * 7 + 3 * row * row + 5 * column * (number % 5)) % 256).astype(np.uint8)
        if colour:
            images = np.stack([images, 255 - images, images // 2], axis=-1)
        return RawImages(
            images=images,
            labels=np.arange(count, dtype=np.int64) % 10,
            classes=tuple(str(digit) for digit in range(10)),
            parts=parts or (("all", count),),
            lossy=False,
            info=SourceInfo(name="mnist", digests={"file": "0"}, verified=True),
        )

    return make


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Write two classes of ten grey PNG files each."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(10):
            picture = generator.integers(0, 256, (12, 16), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "pictures" / name / f"{index}.png")
    return tmp_path / "pictures"
