"""The family of errors that secli raises on purpose: what happened, what to do, and the exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


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
        super().__init__(f"unknown {kind} '{name}'{suggestion(name, known)}")


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
    """Say which known name was probably meant, or list them all when none is near.

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
    return f"; known: {', '.join(names)}" if names else ""
