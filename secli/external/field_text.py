"""The text form of fields by which users declare how scale acts at a tap: ``scale:1,2,4,8,blur=0.5``,
``tokens:14x14+1``.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from secli.action.fields import Field, Invariant, Pair, Plane, ScaleSpace
from secli.errors import InputError, suggestion

FORMS = {
    "plane": "plane[,stride=4][,origin=1.5]",
    "scale": "scale:1,1.41,2[,blur=0.5][,truncated=1][,stride=4][,origin=1.5]",
    "tokens": "tokens:14x14+1[,stride=16][,origin=7.5]",
    "channels-last": "channels-last[,stride=4][,origin=1.5]",
    "invariant": "invariant",
}
GEOMETRY = ("stride", "origin")


class Layout(ABC):
    """The order of a tap's axes; a measure needs (N, C, …, H, W)."""

    @abstractmethod
    def to_planes(self, features: Tensor) -> Tensor:
        """Return the features as (N, C, …, H, W); ValueError when they do not have this layout."""


@dataclass(frozen=True)
class AsIs(Layout):
    """Channels first."""

    def to_planes(self, features: Tensor) -> Tensor:
        """Return the features themselves."""
        return features


@dataclass(frozen=True)
class TokenGrid(Layout):
    """Tokens (N, T, C), row by row, T = prefix + rows · columns; the prefix (class token, registers) comes first."""

    rows: int
    columns: int
    prefix: int = 0

    def to_planes(self, features: Tensor) -> Float[Tensor, "n c h w"]:
        """Drop the prefix and arrange the other tokens on the grid."""
        count = self.prefix + self.rows * self.columns
        if features.ndim != 3 or features.shape[1] != count:
            raise ValueError(f"{self.reads_as()} are (N, {count}, C), not {tuple(features.shape)}")
        tokens = features[:, self.prefix :].transpose(1, 2)
        return tokens.reshape(*tokens.shape[:2], self.rows, self.columns)

    def reads_as(self) -> str:
        """Describe the grid as declared."""
        return f"tokens {self.rows}×{self.columns}" + f"+{self.prefix}" * bool(self.prefix)


@dataclass(frozen=True)
class ChannelsLast(Layout):
    """A feature map (N, H, W, C)."""

    def to_planes(self, features: Tensor) -> Float[Tensor, "n c h w"]:
        """Put the channels before the plane."""
        if features.ndim != 4:
            raise ValueError(f"channels-last features are (N, H, W, C), not {tuple(features.shape)}")
        return features.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class TokenPlane(Plane):
    """A plane made from tokens."""

    grid: TokenGrid = TokenGrid(1, 1)

    def reads_as(self) -> str:
        """Describe the field in a few words."""
        return f"{self.grid.reads_as()}, {super().reads_as().removeprefix('plane, ')}"


@dataclass(frozen=True)
class ChannelsLastPlane(Plane):
    """A plane whose channels were the last axis."""

    def reads_as(self) -> str:
        """Describe the field in a few words."""
        return f"channels-last {super().reads_as()}"


class Declaration(NamedTuple):
    """A field as declared, its layout, and which of ``stride`` and ``origin`` are ``open``, to be probed.

    Open ones are 1 and the centre in the field.
    """

    field: Field
    layout: Layout = AsIs()
    open: tuple[str, ...] = ()

    def with_geometry(self, stride: Pair, origin: Pair | None) -> Field:
        """Return the field with the open values filled in."""
        found = {"stride": stride, "origin": origin}
        if isinstance(self.field, (Plane, ScaleSpace)) and self.open:
            return replace(self.field, **{key: found[key] for key in self.open})  # type: ignore[arg-type]
        return self.field


UNDECLARED = Declaration(Plane(), open=GEOMETRY)
"""A feature map (N, C, H, W) without a declaration."""


def parse_field(text: str) -> Field:
    """Return the field that a text declares.

    Examples
    --------
    >>> parse_field("scale:1,2,4,blur=0.5")
    ScaleSpace(scales=(1.0, 2.0, 4.0), base_blur=0.5, stride=1.0, origin=None, truncated=0)
    >>> parse_field("plane,stride=4x2,origin=1.5").stride
    (4.0, 2.0)

    Raises
    ------
    InputError
        When it declares none; with the expected form.
    """
    return parse_declaration(text).field


def parse_declaration(text: str) -> Declaration:
    """Return the declaration in a text; InputError, with the expected form, when there is none."""
    head, *rest = [part.strip() for part in text.split(",")]
    kind, colon, first = head.partition(":")
    if kind not in FORMS:
        near = suggestion(kind, FORMS)
        raise InputError(f"--field {text}: unknown field '{kind}'{near}")
    if bool(colon) != (kind in ("scale", "tokens")):
        raise _malformed(text, kind)
    keywords = [part for part in rest if "=" in part]
    if kind != "scale" and len(keywords) < len(rest):
        raise _malformed(text, kind)
    options = _options(text, kind, keywords)
    try:
        return _declared(text, kind, [first, *rest[: len(rest) - len(keywords)]], options)
    except ValueError as error:
        raise InputError(f"--field {text}: {error}") from None


def parse_fields(texts: Sequence[str]) -> list[tuple[str, Declaration]]:
    """Return pairs of a pattern of tap names and its declaration; a text without a pattern is for all taps.

    Examples
    --------
    >>> [pattern for pattern, _ in parse_fields(["blocks.*=tokens:14x14+1", "plane,stride=4"])]
    ['blocks.*', '**']

    Raises
    ------
    InputError
        When one of them declares no field.
    """
    declared = []
    for text in texts:
        kind = re.split(r"[,:=]", text, maxsplit=1)[0].strip()
        pattern, equals, field = text.partition("=")
        if kind in FORMS and not text[len(kind) :].startswith("="):
            pattern, field = "**", text
        elif not equals or not pattern.strip():
            raise InputError(
                f"--field {text}: expected 'PATTERN=FIELD' or 'FIELD', FIELD one of {', '.join(FORMS.values())}"
            )
        declared.append((pattern.strip(), parse_declaration(field.strip())))
    return declared


def _declared(text: str, kind: str, values: list[str], options: Mapping[str, float | Pair]) -> Declaration:
    """Return the declaration of one kind, its options read."""
    opened = tuple(key for key in GEOMETRY if key not in options)
    geometry = {key: options[key] for key in GEOMETRY if key in options}
    if kind == "invariant":
        return Declaration(Invariant())
    if kind == "plane":
        return Declaration(Plane(**geometry), open=opened)
    if kind == "channels-last":
        return Declaration(ChannelsLastPlane(**geometry), ChannelsLast(), opened)
    if kind == "tokens":
        match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)(?:\+(\d+))?", values[0].strip())
        if match is None:
            raise _malformed(text, kind)
        grid = TokenGrid(int(match[1]), int(match[2]), int(match[3] or 0))
        return Declaration(TokenPlane(**geometry, grid=grid), grid, opened)
    scales = tuple(_number(text, "scale", value) for value in values)
    blur, truncated = options.get("blur", 0.0), options.get("truncated", 0.0)
    assert isinstance(blur, float)
    assert isinstance(truncated, float)
    return Declaration(ScaleSpace(scales, blur, **geometry, truncated=int(truncated)), open=opened)


def _options(text: str, kind: str, parts: Sequence[str]) -> dict[str, float | Pair]:
    """Read ``key=value`` parts; each key is one of the kind's and occurs once."""
    known = {"invariant": (), "scale": (*GEOMETRY, "blur", "truncated")}.get(kind, GEOMETRY)
    options: dict[str, float | Pair] = {}
    for part in parts:
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in known:
            raise InputError(f"--field {text}: unknown key '{key}'{suggestion(key, known)}")
        if key in options:
            raise InputError(f"--field {text}: '{key}' is given twice")
        numbers = tuple(_number(text, key, piece) for piece in re.split("[x×]", value))
        if len(numbers) > (2 if key in GEOMETRY else 1):
            raise InputError(f"--field {text}: {key}={value}: one number, or rows x columns such as 4x2")
        if key == "stride" and min(numbers) <= 0:
            raise InputError(f"--field {text}: stride={value}: must be greater than 0")
        if key in ("blur", "truncated") and numbers[0] < 0:
            raise InputError(f"--field {text}: {key}={value}: must not be negative")
        if key == "truncated" and numbers[0] % 1:
            raise InputError(f"--field {text}: truncated={value}: a whole number of levels is needed")
        options[key] = (numbers[0], numbers[1]) if len(numbers) == 2 else numbers[0]
    return options


def _number(text: str, key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"--field {text}: {key}: '{value.strip()}' is not a finite number")
    return number


def _malformed(text: str, kind: str) -> InputError:
    return InputError(f"--field {text}: expected {FORMS[kind]}")
