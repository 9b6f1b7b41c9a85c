"""The files of a published source: searched in a directory, then in the cache, then downloaded; verified."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from secli.errors import InputError
from secli.sources.contract import Request, SourceInfo
from secli.storage.locks import in_turn
from secli.storage.writing import write_bytes

UNPACK_ERRORS = (OSError, EOFError, zlib.error, tarfile.TarError)


@dataclass(frozen=True)
class PublishedFile:
    """One file that a source needs: its unpacked name, and the MD5 of its unpacked content.

    The MD5 is None where only that of the packed file is published.
    """

    name: str
    md5: str | None


@dataclass(frozen=True)
class Download:
    """A file on the network: its name, the addresses to try in order, and the MD5 of its bytes."""

    filename: str
    urls: tuple[str, ...]
    md5: str


@dataclass(frozen=True)
class PublishedFiles:
    """A source as it was published.

    Attributes
    ----------
    source
        Registry name; also the name of its folder in the cache.
    layouts
        Folders, relative to the searched one, that may contain the files, torchvision's own among them.
    downloads
        Returns what can be downloaded; called only when needed, because it imports torchvision.
    archive
        Name of the tar file of all files; None where each file is downloaded by itself (gzipped).
    """

    source: str
    files: tuple[PublishedFile, ...]
    layouts: tuple[str, ...]
    downloads: Callable[[], Sequence[Download]]
    archive: str | None = None


def cache_directory() -> Path:
    """Return the directory that keeps downloads: ``SECLI_CACHE``, else the platform's cache of the user."""
    chosen = os.environ.get("SECLI_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("secli"))


def obtain(published: PublishedFiles, request: Request) -> tuple[dict[str, bytes], SourceInfo]:
    """Return the verified content of every file of a source, by its name, and its entry in the manifest.

    Raises
    ------
    InputError
        When a file is missing and may not be downloaded, or is wrong, damaged or truncated.
    SecliError
        When a download fails; the message names the file, its folder and its checksum.
    """
    cache = cache_directory() / published.source
    if request.directory is not None:
        if not request.directory.is_dir():
            raise InputError(f"--source {request.directory}: no such directory")
        folder, found = _locate(published, request.directory)
        missing = _absent(published, found)
        if found and missing:
            raise InputError(
                f"{folder / missing[0].name} (or .gz): missing, while other files of {published.source} are there"
            )
        if found:
            return _read(published, found)
    folder, found = _locate(published, cache)
    if missing := _absent(published, found):
        if request.offline:
            raise InputError(_missing(published, missing[0], request, cache))
        from secli.sources.download import download

        with in_turn(folder):
            folder, found = _locate(published, cache)  # another process may have fetched them meanwhile
            if missing := _absent(published, found):
                download(published, missing, folder, request.show_progress)
                folder, found = _locate(published, cache)
    return _read(published, found)


def _absent(published: PublishedFiles, found: dict[str, Path]) -> list[PublishedFile]:
    return [file for file in published.files if file.name not in found]


def _locate(published: PublishedFiles, root: Path) -> tuple[Path, dict[str, Path]]:
    """Return the first layout's folder that holds any of the files, and what it holds; else the root."""
    for layout in published.layouts:
        folder = root / layout
        found = {}
        for file in published.files:
            path = next((folder / name for name in _spellings(file.name) if (folder / name).is_file()), None)
            if path is not None:
                found[file.name] = path
        archive = folder / published.archive if published.archive else None
        if len(found) < len(published.files) and archive is not None and archive.is_file():
            return folder, {file.name: archive for file in published.files}
        if found:
            return folder, found
    return root, {}


def _spellings(name: str) -> tuple[str, ...]:
    # some mirrors of the idx files write a dot before "idx"
    dotted = name.replace("-idx", ".idx")
    return (name, f"{name}.gz", dotted, f"{dotted}.gz")


def _missing(published: PublishedFiles, file: PublishedFile, request: Request, cache: Path) -> str:
    folders = f"{request.directory} or {cache}" if request.directory is not None else str(cache)
    packed = published.archive or f"{file.name}.gz"
    return (
        f"{published.source}: no file {file.name} or {packed} in {folders}; "
        "put it there, give its directory with --source, or leave --offline out to download it"
    )


def _read(published: PublishedFiles, found: dict[str, Path]) -> tuple[dict[str, bytes], SourceInfo]:
    contents: dict[str, bytes] = {}
    archives = {path for path in found.values() if path.name == published.archive}
    for path in archives:
        contents.update(members(path, [file.name for file in published.files]))
    unchecked = []
    for file in published.files:
        path = found[file.name]
        if path not in archives:
            contents[file.name], checked = _content(published, file, path)
            unchecked += [] if checked else [path.name]
        if file.md5 is not None:
            _check_md5(contents[file.name], file.md5, path, file.name)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    remark = None
    if unchecked:
        remark = (
            f"no checksum is published of the unpacked files {', '.join(unchecked)}; their form was checked"
        )
    return contents, SourceInfo(name=published.source, digests=digests, verified=not unchecked, remark=remark)


def _content(published: PublishedFiles, file: PublishedFile, path: Path) -> tuple[bytes, bool]:
    """Return the unpacked content of a file, and whether a published checksum covers it."""
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content, file.md5 is not None
    if file.md5 is None:
        packed = {download.filename: download.md5 for download in published.downloads()}
        _check_md5(content, packed[f"{file.name}.gz"], path, path.name)
    try:
        return gzip.decompress(content), True
    except UNPACK_ERRORS:
        raise InputError(f"{path}: damaged or truncated gzip file") from None


def _check_md5(content: bytes, expected: str, path: Path, name: str) -> None:
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual != expected:
        inside = "" if path.name.startswith(name) else f" ({name} in it)"
        raise InputError(
            f"{path}{inside}: wrong, damaged or truncated file: {len(content)} bytes with md5 {actual}, "
            f"expected md5 {expected}; replace it or remove it"
        )


def members(archive: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the content of the named files (their last path component) of a tar archive.

    Raises
    ------
    InputError
        When the archive is damaged or truncated, or lacks one of them.
    """
    missing = set(names)
    try:
        with tarfile.open(archive) as tar:
            for entry in tar:
                name = entry.name.rsplit("/", 1)[-1]
                if name in missing and entry.isfile():
                    file = tar.extractfile(entry)
                    assert file is not None  # a regular file has content
                    missing.discard(name)
                    yield name, file.read()
                if not missing:
                    return
    except UNPACK_ERRORS:
        raise InputError(f"{archive}: damaged or truncated archive; replace it or remove it") from None
    raise InputError(f"{archive}: holds no file {sorted(missing)[0]}")


def unpack(archive: Path, names: Iterable[str], folder: Path) -> None:
    """Write the named files of a tar archive into a folder, each of them atomically."""
    for name, content in members(archive, names):
        write_bytes(folder / name, content)
