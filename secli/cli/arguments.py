"""Arguments that are refused before any command sees them."""

from __future__ import annotations

from collections.abc import Sequence

from secli.errors import InputError

OF_PATHS = frozenset(("compare", "report", "equivariance", "sweep"))
"""Commands whose arguments are paths."""
PATHS = frozenset(
    (
        *("--out", "--output", "-o", "--save", "--data", "--source", "--config", "--runs"),
        *("--plot", "--heatmap", "--show-features", "--preview", "--export-png"),
    )
)


def refuse_empty_paths(arguments: Sequence[str]) -> None:
    """Refuse an empty path: it would mean the working directory, and comes of a shell variable that is not set.

    Raises
    ------
    InputError
        Naming the option, or the argument by its number.
    """
    for number, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        before = arguments[number - 1] if number else ""
        if argument == "" and before in PATHS:
            option = before
        elif not (equals and value == "" and option in PATHS):
            positional = argument == "" and number > 0 and not before.startswith("-")
            if not (positional and arguments[0] in OF_PATHS):
                continue
            option = f"argument {number}"
        raise InputError(
            f"{option}: an empty path; is a variable of the shell not set? ('.' is this directory)"
        )


def names(option: str, text: str) -> list[str]:
    """Read names separated by commas.

    Raises
    ------
    InputError
        When there is none.
    """
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise InputError(f"{option} {text!r}: names nothing; give a name, or leave {option} out")
    return found
