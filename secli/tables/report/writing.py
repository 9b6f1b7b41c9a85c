"""From a path to the files of a report: which they are, whether they may be written, and writing them whole."""

from __future__ import annotations

from pathlib import Path

from secli.errors import InputError
from secli.storage.disk_space import check_file
from secli.storage.leftovers import tidy
from secli.storage.writing import atomic_set, write_text
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
    tidy(file.parent)
    _refuse_existing(file, force)
    check_file(file)
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
        write_text(file, to_html(report))
        return [file]
    pictures = [file.with_name(f"{file.stem}-{part.key}.png") for part in report.figures]
    for picture in pictures:
        _refuse_existing(picture, force)
    text = to_markdown(report, [picture.name for picture in pictures])
    with atomic_set(file.parent, file.stem) as folder:
        write_text(folder / file.name, text)
        for part, picture in zip(report.figures, pictures, strict=True):
            import matplotlib

            from secli.tables.figures import STYLE

            with matplotlib.rc_context(STYLE):
                part.draw().savefig(folder / picture.name, format="png", dpi=DPI)
    return [file, *pictures]


def _refuse_existing(file: Path, force: bool) -> None:
    if file.exists() and not force:
        raise InputError(f"{file}: already there; add --force to replace it")
