"""From a path to the files of a report: which they are, whether they may be written, and writing them whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from secli.errors import InputError
from secli.storage.writing import atomic_path
from secli.tables.report.content import Report
from secli.tables.report.html import to_html
from secli.tables.report.markdown import to_markdown

SUFFIXES = (".html", ".htm", ".md")
IN_DIRECTORY = "report.md"
DPI = 200


def report_file(path: Path, force: bool = False) -> Path:
    """Return the file that a report goes to: the path itself, or ``report.md`` in it where it names a directory.

    Raises
    ------
    InputError
        When the suffix is none of a report, or the file stands already and ``force`` is not given.
    """
    file = path / IN_DIRECTORY if path.is_dir() or not path.suffix else path
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: a report is written as .html (one file) or .md (with PNGs beside it); choose one of these"
        )
    if file.is_dir():
        raise InputError(f"{file}: is a directory; name a file for the report")
    for part in file.parents:
        if part.exists() and not part.is_dir():
            raise InputError(f"{file}: {part} is a file, not a directory; choose another place")
    _refuse_existing(file, force)
    return file


def write_report(report: Report, file: Path, force: bool = False) -> list[Path]:
    """Write a report, whole or not at all, and return its files, the one to open first.

    What stood there stays until every new file is written and synced.

    Raises
    ------
    InputError
        When a file stands already and ``force`` is not given.
    OSError
        When a file cannot be written; it names that file.
    """
    if file.suffix.lower() != ".md":
        text = to_html(report)
        with _written(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return [file]
    pictures = [file.with_name(f"{file.stem}-{part.key}.png") for part in report.figures]
    for picture in pictures:
        _refuse_existing(picture, force)
    text = to_markdown(report, [picture.name for picture in pictures])
    # entered first, so renamed last: a new text never links to old pictures
    with contextlib.ExitStack() as stack:
        stack.enter_context(_written(file)).write_text(text, encoding="utf-8")
        for part, picture in zip(report.figures, pictures, strict=True):
            import matplotlib

            from secli.tables.figures import STYLE

            temporary = stack.enter_context(_written(picture))
            with matplotlib.rc_context(STYLE), _named(picture):
                part.draw().savefig(temporary, format="png", dpi=DPI)
    return [file, *pictures]


def _refuse_existing(file: Path, force: bool) -> None:
    if file.exists() and not force:
        raise InputError(f"{file}: already there; add --force to replace it")


@contextlib.contextmanager
def _written(file: Path) -> Iterator[Path]:
    with _named(file), atomic_path(file) as temporary:
        yield temporary


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Let a failure name the file that the user knows, not the temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(file)) from None
