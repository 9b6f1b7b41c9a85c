"""Where trained networks lie: a directory, an https address, or a repository of the Hugging Face hub."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO, Protocol
from urllib.error import URLError
from urllib.parse import urlsplit

from secli.errors import InputError, SecliError, one_line
from secli.sources.download import TIMEOUT_SECONDS, is_here
from secli.weights.hub import HUB, HubPlace
from secli.weights.index import INDEX_FILE, MOST_INDEX_BYTES, Index, parse_index

_AT_ONCE = 1 << 20


class Place(Protocol):
    """A place that holds an index and one folder per network."""

    text: str
    """As the user wrote it."""
    here: bool
    """Whether it is on this machine, so that nobody else can have changed its index."""

    def opened(self, file: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a file by its name below the place; InputError where there is none, SecliError on a failure."""


class Directory:
    """A directory of this machine."""

    here = True

    def __init__(self, text: str) -> None:
        self.text = text
        if not Path(text).is_dir():
            raise InputError(f"--from {text}: no such directory; or write https://… or {HUB}OWNER/NAME")

    @contextlib.contextmanager
    def opened(self, file: str) -> Iterator[IO[bytes]]:
        """Open a file."""
        try:
            with Path(self.text, file).open("rb") as stream:
                yield stream
        except FileNotFoundError:
            raise InputError(f"{Path(self.text, file)}: no such file") from None


class WebPlace:
    """A folder of a web server; by https, for over plain http anybody can put another index in."""

    here = False

    def __init__(self, text: str) -> None:
        self.text = text
        _check_address(text, text)

    @contextlib.contextmanager
    def opened(self, file: str) -> Iterator[IO[bytes]]:
        """Open a file."""
        from urllib.request import urlopen

        url = f"{self.text.rstrip('/')}/{file}"
        try:
            with urlopen(url, timeout=TIMEOUT_SECONDS) as stream:
                _check_address(stream.geturl(), self.text)  # it may have been redirected
                yield stream
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(error.reason) if type(error) is URLError else one_line(error)
            raise SecliError(f"--from {self.text}: cannot download {file} ({reason})") from None


def _check_address(url: str, text: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = None, None
    if (
        parts is None
        or not host
        or not (parts.scheme == "https" or (parts.scheme == "http" and is_here(url)))
    ):
        raise InputError(f"--from {text}: only https addresses are taken; or give a directory")


def place_of(text: str) -> Place:
    """Return the place that the user names.

    Raises
    ------
    InputError
        When it is no directory, no https address and no repository of the hub.
    """
    if text.startswith(HUB):
        return HubPlace(text)
    return WebPlace(text) if "://" in text else Directory(text)


def index_of(place: Place, pinned: str | None = None) -> tuple[Index, str]:
    """Return the index of a place and its sha256.

    Raises
    ------
    InputError
        When the place has no index, it is damaged, or has another sha256 than the one that is asked for.
    SecliError
        When it cannot be downloaded.
    """
    with place.opened(INDEX_FILE) as stream:
        content = stream.read(MOST_INDEX_BYTES + 1)
    digest = hashlib.sha256(content).hexdigest()
    if pinned is not None and digest != pinned:
        raise InputError(f"--sha256 {pinned}: {INDEX_FILE} of {place.text} has sha256 {digest}")
    return parse_index(content, f"{place.text}: {INDEX_FILE}"), digest


def copy_verified(place: Place, file: str, into: Path, size: int, sha256: str) -> None:
    """Copy a file of a place; never more bytes than the index says.

    Raises
    ------
    SecliError
        When it is cut off, longer, or of another sha256.
    """
    digest, count = hashlib.sha256(), 0
    with place.opened(file) as stream, into.open("wb") as target:
        while chunk := stream.read(min(_AT_ONCE, size + 1 - count)):
            digest.update(chunk)
            count += len(chunk)
            target.write(chunk)
    if count != size:
        raise SecliError(
            f"{place.text}: {file} is {'longer' if count > size else 'shorter'} than its index says"
        )
    if digest.hexdigest() != sha256:
        raise SecliError(f"{place.text}: {file} has another sha256 than its index says")
