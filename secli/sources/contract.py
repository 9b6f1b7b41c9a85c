"""What a source of raw pictures is asked for, what it gives, and what the registry knows of it."""

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
        Where to look first (``--source``); None: the cache.
    offline
        Whether downloading is forbidden.
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
    classes
        Class names; a label is an index into them.
    parts
        The published parts, as (name, number of pictures), in the order in which they lie in ``images``.
    lossy
        Whether the pictures were stored with loss (JPEG).
    info
        Where they come from, with the digests of what was read.
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
    """What the registry knows of a source before it is read.

    Attributes
    ----------
    name
        Registry name.
    summary
        What the pictures are, in one line.
    reader
        ``"module:function"``; the function maps a ``Request`` to ``RawImages``.
    published
        Whether the content is the same for everyone; a folder of the user's own pictures is not.
    """

    name: str
    summary: str
    reader: str
    published: bool = True
