"""The family of errors that secli raises on purpose: what happened, what to do, and the exit code."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import reprlib
from collections.abc import Iterable

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

LONGEST_VALUE = 60
"""Characters of a value in a message."""
LONGEST_MESSAGE = 300
MOST_NAMES = 12
"""Names that a message lists."""
DEBUG = "SECLI_DEBUG"
"""Environment variable that prints the traceback of a bug."""
_FOREIGN = "_secli_foreign"
"""Attribute of an error that comes of a network which is not ours."""


class SecliError(Exception):
    """The work failed: one line that says what happened and what to do.

    The command line prints the message as it stands and leaves with ``exit_code``; anything that is not a
    ``SecliError`` (or an ``OSError``) and reaches the user is a bug.
    """

    exit_code: int = EXIT_FAILED


class InputError(SecliError):
    """Bad usage or bad input: a wrong path, a damaged file, an unknown name or key, a value out of range."""

    exit_code = EXIT_USAGE


class UnknownNameError(InputError):
    """A name that no registry, schema or option list holds; the message suggests the near miss."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} '{shortened(name)}'{suggestion(name, known)}")


class UnmatchedPatternError(InputError):
    """Patterns of an option (``--taps``, ``--field``) that no tap of a network matches."""

    def __init__(self, message: str, option: str, patterns: Iterable[str]) -> None:
        super().__init__(message)
        self.option = option
        self.patterns = tuple(patterns)


class HeldRunError(InputError):
    """Another process is at work in the run directory; that is no failure of the run."""


class InterruptedRunError(SecliError):
    """The user (Ctrl-C) or the system (SIGTERM) stopped the work and the state was saved."""

    exit_code = EXIT_INTERRUPTED


def suggestion(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, or list them (the first ones of many) when none is near.

    Examples
    --------
    >>> suggestion("dss_v1x", ["cnn", "dss_v1"])
    "; did you mean 'dss_v1'?"
    >>> suggestion("vit", ["cnn", "dss_v1"])
    '; known: cnn, dss_v1'
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    more = f", … ({len(names)} in all)" if len(names) > MOST_NAMES else ""
    return f"; known: {', '.join(names[:MOST_NAMES])}{more}" if names else ""


# C0 and C1 controls, line separators, marks that turn the direction of text, halves of a surrogate pair
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str, keep: str = "") -> str:
    """Return text in which each character that a terminal would obey instead of showing is its escape.

    Parameters
    ----------
    text : str
        Whatever stands in a file, a name or an option.
    keep : str
        Control characters that may stay, as line ends of a text of several lines.

    Examples
    --------
    >>> printable("red\x1b[31m")
    'red\\\\x1b[31m'
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shortened(text: str, most: int = LONGEST_VALUE) -> str:
    """Return text of at most so many characters: a longer one loses its middle.

    Examples
    --------
    >>> shortened("0123456789", 7)
    '012…789'
    """
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


class _ShortRepr(reprlib.Repr):
    """The representation of a value whose parts are counted, not written out."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 4
        self.maxstring = self.maxother = self.maxlong = LONGEST_VALUE

    def repr_int(self, x: int, level: int) -> str:
        """Return the digits of an integer; Python itself refuses to write very many."""
        return repr(x) if x.bit_length() < 4 * LONGEST_VALUE else f"an integer of {x.bit_length()} bits"


def shown(value: object) -> str:
    """Return how a message writes a value: as Python does, however large, deep or tangled it is, in few characters.

    Examples
    --------
    >>> shown([1.5, "a"]), len(shown("x" * 10**6)) <= LONGEST_VALUE
    ("[1.5, 'a']", True)
    """
    return shortened(_ShortRepr().repr(value))


def as_message(text: str, most: int = LONGEST_MESSAGE) -> str:
    """Return text as one printable line of bounded length; a long value loses its middle before a file name does.

    Examples
    --------
    >>> as_message("runs/x:  no such " + "x" * 1000)[:20]
    'runs/x: no such xxxx'
    """
    line = printable(" ".join(text.split()))
    for is_path in (False, True):
        while len(line) > most:
            words = [
                word for word in line.split(" ") if len(word) > LONGEST_VALUE and ("/" in word) is is_path
            ]
            if not words:
                break
            longest = max(words, key=len)
            room = max(LONGEST_VALUE, len(longest) - (len(line) - most))
            line = line.replace(longest, shortened(longest, room))
    return shortened(line, most)


def keep_traceback(error: BaseException) -> str | None:
    """Write the traceback of a bug into the directory for temporary files; return the file, None where none can be."""
    import tempfile  # these two are for bugs alone
    import traceback

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        handle, name = tempfile.mkstemp(prefix="secli-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return None
    return name


def one_line(error: BaseException, most: int = LONGEST_MESSAGE) -> str:
    """Return an error's text in one line of bounded length, or its type where it has none.

    Examples
    --------
    >>> one_line(ValueError("no\n  such size")), one_line(KeyError())
    ('no such size', 'KeyError')
    """
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error of foreign code may have no text: its __str__ raises in turn
        text = ""
    return shortened(text or type(error).__name__, most)


def mark_foreign(error: BaseException, line: str) -> None:
    """Remember that an error comes of a network that is not ours, and how it is told should nobody handle it."""
    with contextlib.suppress(Exception):  # an error may refuse attributes
        error.__dict__[_FOREIGN] = line


def foreign_line(error: BaseException) -> str | None:
    """Return how an error of a network that is not ours is told; None of any other."""
    line: str | None = getattr(error, "__dict__", {}).get(_FOREIGN)
    return line


def bug_message(error: BaseException) -> str:
    """Say in one line that an error is a bug of ours, what it was, and where its traceback was written."""
    file = keep_traceback(error)
    where = f"its traceback is in {file}" if file else f"{DEBUG}=1 prints its traceback"
    text = one_line(error, 2 * LONGEST_VALUE)
    return f"this is a bug in secli ({type(error).__name__}: {text}); {where}; please report it"
