"""A reason or a warning: a code with its data, worded where it is shown; several of one form are worded as one."""

from __future__ import annotations

import contextlib
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Annotated, Any, Final, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from secli.errors import SecliError, printable, shortened
from secli.records.codes import CODES

LONGEST_TEXT: Final = 2000
"""Characters of a text among the data, and of an old sentence that is recognised; a longer text loses its middle."""
MOST_DATA = 20
LARGEST, LARGEST_WHOLE = 1e100, 2**53
_JOINTS = (", ", "×")
_NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_NAME = re.compile("[a-z][a-z_]{0,30}")

Value = str | int | float | tuple[int, ...]
Form = tuple[object, ...]


def _checked(data: dict[str, Any]) -> dict[str, Value]:
    """Return data whose values are of the allowed kinds and sizes; ValueError on others."""
    if len(data) > MOST_DATA or not all(map(_NAME.fullmatch, data)):
        raise ValueError(f"at most {MOST_DATA} data, with names of small letters")
    return {name: _bounded(value) for name, value in data.items()}


def _bounded(value: Any) -> Value:
    """Return a text of one line without control characters, a number as one of Python's, or whole numbers."""
    if isinstance(value, str):
        line = " ".join(shortened(value, LONGEST_TEXT).splitlines())
        return shortened(printable(line), LONGEST_TEXT)
    if isinstance(value, (list, tuple)) and len(value) <= MOST_DATA:
        sizes = tuple(map(_bounded, value))
        if all(isinstance(size, int) for size in sizes):
            return cast("tuple[int, ...]", sizes)
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_WHOLE:
        return value
    elif isinstance(value, float) and _finite(value):
        return float(value)  # numpy's are floats too
    raise ValueError("a datum is a text, a finite number or a short list of whole numbers")


class Note(BaseModel):
    """Why a value is missing, or what a reader of one must know; ``str`` words it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = Field(
        pattern="^[a-z][a-z0-9-]{0,60}$", description="what it says, by its name in docs/reasons.md"
    )
    data: Annotated[dict[str, Any], AfterValidator(_checked)] = Field(
        default={}, description="the numbers, lists of whole numbers and texts that it names"
    )

    @classmethod
    def of(cls, code: str, **data: Any) -> Note:
        """Return a note of a known code; KeyError on a code or data that it does not have.

        Examples
        --------
        >>> str(Note.of("too-few-cells", cells=3.5, least=4))
        'the picture covers 3.5 cells of this tap, fewer than 4'
        """
        wanted = {name for _, name, _ in _parts(CODES[code].words) if name}
        if wanted != set(data):
            raise KeyError(f"{code}: needs {sorted(wanted)}, not {sorted(data)}")
        # a measurement must not end for its note: what is no finite number is told as text
        return cls(
            code=code, data={name: value if _finite(value) else f"{value}" for name, value in data.items()}
        )

    def __str__(self) -> str:
        return worded([self])

    @property
    def form(self) -> Form:
        """What notes that say the same of different numbers have in common."""
        examples = CODES[self.code].examples if self.code in CODES else ()
        return self.code, *((name, _kind(self.data[name], name in examples)) for name in sorted(self.data))


class NotMeasurableError(SecliError):
    """Something cannot be measured; ``note`` says why."""

    def __init__(self, note: Note) -> None:
        super().__init__(note)
        self.note = note


def note_of(error: Exception) -> Note:
    """Return why an error leaves a value missing."""
    return error.note if isinstance(error, NotMeasurableError) else Note.of("failed", error=str(error))


def worded(notes: Sequence[Note]) -> str:
    """Word notes of one form as one: each number that varies becomes a range. An unknown code is shown as it is.

    Examples
    --------
    >>> worded([Note.of("too-few-cells", cells=cells, least=4) for cells in (3.5, 2.3)])
    'the picture covers 2.3–3.5 cells of this tap, fewer than 4'
    >>> worded([Note(code="from-the-future", data={"cells": 3})])
    'from-the-future (cells 3)'
    """
    code, columns = notes[0].code, {name: [note.data[name] for note in notes] for name in notes[0].data}
    if code in CODES:
        try:
            return "".join(
                text + (_span(columns[name], spec) if name else "")
                for text, name, spec in _parts(CODES[code].words)
            )
        except (KeyError, ValueError):  # other data than this secli writes
            pass
    data = ", ".join(f"{name} {_span(values, '')}" for name, values in columns.items())
    return f"{code} ({data})" if data else code


def by_form(notes: Iterable[Note]) -> dict[Form, list[Note]]:
    """Return notes by their form, in order of appearance."""
    forms: dict[Form, list[Note]] = {}
    for note in notes:
        forms.setdefault(note.form, []).append(note)
    return forms


def row_in_words(row: BaseModel) -> dict[str, Any]:
    """Return the fields of a row of a record as people read them: notes in words."""
    return {name: _in_words(value) for name, value in row}


def _in_words(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_in_words, value))
    return str(value) if isinstance(value, Note) else value


@lru_cache(maxsize=4096)
def recognised(sentence: str) -> Note:
    """Return the note that an old record tells by a sentence; one in other words has the code ``older``."""
    if len(sentence) <= LONGEST_TEXT:
        for code, expression in _expressions().items():
            found = expression.fullmatch(sentence)
            if found is None:
                continue
            specs = {name: spec for _, name, spec in _parts(CODES[code].words) if name}
            with contextlib.suppress(ValueError):  # a number out of bounds
                note = Note.of(code, **{name: _read(found[name], spec) for name, spec in specs.items()})
                if str(note) == sentence:
                    return note
    return Note.of("older", text=sentence)


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or abs(value) <= LARGEST


def _kind(value: Value, example: bool) -> object:
    """Return what of a datum tells notes apart: a text that is no example, the length of a list, no number."""
    if isinstance(value, str):
        return ("an example",) if example else value
    return len(value) if isinstance(value, tuple) else None


@cache
def _parts(words: str) -> tuple[tuple[str, str, str], ...]:
    """Return the parts of a template: a text, then the name of a datum and its format, or nothing."""
    parsed = string.Formatter().parse(words)
    return tuple((text, name or "", spec or "") for text, name, spec, _ in parsed)


def _span(values: Sequence[Value], spec: str) -> str:
    """Write one datum of several notes: the range of a number, place by place of a list; the first of texts."""
    first = values[0]
    if isinstance(first, str):
        return format(first, spec)
    if isinstance(first, tuple):
        if spec not in ("", *_JOINTS):
            raise ValueError(f"a list has no format {spec}")
        columns = zip(*(value for value in values if isinstance(value, tuple)), strict=True)
        return (spec or _JOINTS[0]).join(_span(column, "d") for column in columns)
    known = [value for value in values if isinstance(value, (int, float))]
    low, high = format(min(known), spec), format(max(known), spec)
    return low if low == high else f"{low.removesuffix('%')}–{high}"


# ---- old sentences


@lru_cache(maxsize=1)
def _expressions() -> Mapping[str, re.Pattern[str]]:
    """Return a regular expression for each template that has words of its own."""
    found = {}
    for code, entry in CODES.items():
        text, seen = "", set[str]()
        for literal, name, spec in _parts(entry.words):
            text += re.escape(literal)
            if name in seen:
                text += f"(?P={name})"
            elif name:
                text += f"(?P<{name}>{_expression(spec)})"
                seen.add(name)
        if any(literal for literal, _, _ in _parts(entry.words)):
            found[code] = re.compile(text)
    return found


def _expression(spec: str) -> str:
    if spec in _JOINTS:
        return rf"(?:\d+(?:{spec}\d+)*)?"
    if spec == "d":
        return r"\d{1,15}"
    return _NUMBER + "%" * spec.endswith("%") if spec else ".+?"


def _read(text: str, spec: str) -> Any:
    if spec in _JOINTS:
        return tuple(int(part) for part in text.split(spec)) if text else ()
    if spec == "d":
        return int(text)
    if spec.endswith("%"):
        return float(text.removesuffix("%")) / 100
    return float(text) if spec else text
