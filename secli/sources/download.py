"""Downloads through torchvision's downloader, into the cache; a file appears there only when it is whole."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

from secli.errors import SecliError
from secli.provenance import sha256_file
from secli.sources.checksums import SHA256
from secli.sources.files import Download, PublishedFile, PublishedFiles, unpack
from secli.storage.writing import scratch_folder, sync_file, sync_folder

TIMEOUT_SECONDS = 30.0


def download(
    published: PublishedFiles, missing: Sequence[PublishedFile], folder: Path, show_progress: bool
) -> None:
    """Download the missing files of a source into a folder of the cache.

    Raises
    ------
    SecliError
        When no address gives the file, or what it gives has another checksum.
    """
    required = {published.archive} if published.archive else {f"{file.name}.gz" for file in missing}
    for item in published.downloads():
        if item.filename not in required:
            continue
        with scratch_folder(folder / "download") as temporary:
            _fetch(published.source, item, temporary, folder, show_progress)
            whole = temporary / item.filename
            if published.archive:
                unpack(whole, [file.name for file in missing], folder)
            else:
                sync_file(whole)
                whole.replace(folder / item.filename)
                sync_folder(folder)


def _fetch(source: str, item: Download, temporary: Path, home: Path, show_progress: bool) -> None:
    """Try every address of a file in turn."""
    from torchvision.datasets.utils import download_url

    reasons = []
    for url in addresses(item):
        try:
            with _torchvision_output(show_progress), _timeout(TIMEOUT_SECONDS):
                download_url(url, str(temporary), item.filename, item.md5)
            sha256 = SHA256.get(item.md5)
            if sha256 is not None and sha256_file(temporary / item.filename) != sha256:
                raise RuntimeError("another sha256")  # like torchvision on another MD5
        except (OSError, HTTPException, RuntimeError, RecursionError) as error:
            # RuntimeError: torchvision found another checksum; RecursionError: redirected in circles
            (temporary / item.filename).unlink(missing_ok=True)
            reason = (
                "cut off, or with another checksum"
                if isinstance(error, RuntimeError)
                else str(error.reason if type(error) is URLError else error) or type(error).__name__
            )
            reasons.append(f"{url} ({reason})")
        else:
            return
    raise SecliError(
        f"{source}: cannot download {item.filename} from {', '.join(reasons)}; "
        f"put that file (md5 {item.md5}) into {home}, or give its directory with --source"
    )


def addresses(item: Download) -> tuple[str, ...]:
    """Return the addresses of a file, those by plain http last, and only where its sha256 is known.

    Over plain http anybody can put another file in; without a sha256 the address is tried by https.

    Examples
    --------
    >>> addresses(Download("x", ("http://a.org/x", "https://b.org/x"), "0"))
    ('https://a.org/x', 'https://b.org/x')
    """
    found = [
        url if item.md5 in SHA256 or is_here(url) else url.replace("http://", "https://", 1)
        for url in item.urls
    ]
    return tuple(sorted(found, key=lambda url: url.startswith("http://")))


def is_here(url: str) -> bool:
    """Return whether an address is of this machine: no network is passed."""
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


@contextlib.contextmanager
def _torchvision_output(show: bool) -> Iterator[None]:
    """Send what torchvision prints to stderr, never to stdout, or nowhere at all."""
    target = sys.stderr if show else io.StringIO()
    with contextlib.redirect_stdout(target), contextlib.redirect_stderr(target):
        yield


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Give up on a silent server: torchvision's downloader sets no time limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
