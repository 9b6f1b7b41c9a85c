"""What a source of raw pictures is given and returns, and its entry in the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from secli.records.schema import RecordPart

if TYPE_CHECKING:
    import numpy as np

PartName = Literal["train", "val", "test", "all"]


@dataclass(frozen=True)
class Request:
    """How the user wants a source to be found.

    Attributes
    ----------
    directory
        Searched first (``--source``); None: the cache.
    image_size
        Side in pixels to which pictures of different sizes are brought; None: they must be of one size.
    show_progress
        Whether a download draws its progress on stderr.
    """

    directory: Path | None = None
    offline: bool = False
    image_size: int | None = None
    show_progress: bool = False


class SourceInfo(RecordPart):
    """The raw pictures that a dataset was made from."""

    name: str = Field(description="registry name of the source")
    digests: dict[str, str] = Field(
        description="sha256 of the content of each file that was read, by its name"
    )
    verified: bool = Field(description="whether all content was checked against published checksums")
    remark: str | None = Field(default=None, description="what was not checked, and why; null if all was")


@dataclass(frozen=True, eq=False)
class RawImages:
    """All pictures of a source, in their published order.

    Attributes
    ----------
    images
        uint8, shape (N, H, W) for grey pictures, (N, H, W, 3) for colour.
    labels
        int64 class indices, shape (N,).
    parts
        The published parts, as (name, number of pictures), in their order in ``images``.
    lossy
        Whether the pictures were stored with loss (JPEG).
    remarks
        What the user must know of how they were read, one line each.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    parts: tuple[tuple[PartName, int], ...]
    lossy: bool
    info: SourceInfo
    remarks: tuple[str, ...] = ()

    def part(self, name: PartName) -> range | None:
        """Return the indices of one published part; None when the source has no such part."""
        start = 0
        for part, count in self.parts:
            if part == name:
                return range(start, start + count)
            start += count
        return None


Reader = Callable[[Request], RawImages]


@dataclass(frozen=True)
class SourceSpec:
    """The registry's entry of a source.

    Attributes
    ----------
    reader
        ``"module:function"``; the function maps a ``Request`` to ``RawImages``.
    published
        Whether the content is the same for everyone; a folder of the user's own pictures is not.
    """

    name: str
    summary: str
    reader: str
    published: bool = True
