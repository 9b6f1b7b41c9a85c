"""Trained networks in a repository of the Hugging Face hub, through its own library (``pip install 'secli[hub]'``)."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from secli.errors import InputError, SecliError, one_line

HUB = "hub:"
_REPOSITORY = re.compile(
    r"(?P<owner>[A-Za-z0-9][\w.-]*)/(?P<name>[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w.-]+))?"
)


def library() -> Any:
    """Return huggingface_hub; InputError where it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(f"{HUB}… needs huggingface_hub; install it with: pip install 'secli[hub]'") from None
    return huggingface_hub


class HubPlace:
    """A repository of the hub, written ``hub:OWNER/NAME``, or ``hub:OWNER/NAME@REVISION``."""

    here = False

    def __init__(self, text: str) -> None:
        self.text = text
        match = _REPOSITORY.fullmatch(text.removeprefix(HUB))
        if match is None:
            raise InputError(f"{text}: write {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION")
        self.repository, self.revision = f"{match['owner']}/{match['name']}", match["revision"]
        self.library = library()

    @contextlib.contextmanager
    def opened(self, file: str) -> Iterator[IO[bytes]]:
        """Download a file into a folder that is gone afterwards, and open it there."""
        with tempfile.TemporaryDirectory(prefix="secli-hub-") as folder:
            with self._asked(f"download {file}"):
                found = self.library.hf_hub_download(
                    self.repository, file, revision=self.revision, local_dir=folder
                )
            with Path(found).open("rb") as stream:
                yield stream

    def make(self) -> None:
        """Make the repository if it is not there."""
        if self.revision is not None:
            raise InputError(f"{self.text}: a revision cannot be written to; leave @{self.revision} out")
        with self._asked("make the repository"):
            self.library.create_repo(self.repository, exist_ok=True)

    def has(self, file: str) -> bool:
        """Return whether the repository has a file."""
        with self._asked(f"look for {file}"):
            return bool(self.library.file_exists(self.repository, file))

    def upload(self, folder: Path, words: str) -> None:
        """Add the content of a folder to the repository, in one commit."""
        with self._asked("upload"):
            self.library.upload_folder(repo_id=self.repository, folder_path=str(folder), commit_message=words)

    @contextlib.contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """Tell an error of the library, whatever its kind, in one line."""
        try:
            yield
        except Exception as error:
            raise SecliError(f"{self.text}: cannot {what} ({one_line(error, 200)})") from None
