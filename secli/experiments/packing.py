"""A directory as bytes, for a machine that does not share a file system with this one."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

from secli.records import atomic_directory


def pack(directory: Path) -> bytes:
    """Return the files of a directory, hidden ones (still being written) left out."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in sorted(directory.rglob("*")):
            inner = file.relative_to(directory)
            if file.is_file() and not any(part.startswith(".") for part in inner.parts):
                archive.add(file, arcname=str(inner))
    return buffer.getvalue()


def extract(content: bytes, directory: Path) -> None:
    """Put packed files into a directory."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(directory, filter="data")


def unpack(content: bytes, directory: Path) -> None:
    """Put packed files in place of a directory; what stood there is removed only when the new one is whole."""
    fresh = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with atomic_directory(fresh) as temporary:
        extract(content, temporary)
    if directory.exists():
        old = directory.with_name(f".{directory.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        directory.rename(old)
        fresh.rename(directory)
        shutil.rmtree(old)
    else:
        fresh.rename(directory)
