"""The networks of one call: read from the options, loaded, each with the patterns of taps and fields that it takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate
from torch import nn

from secli.cli.console import bar, note
from secli.cli.options import MOST, MOST_SIDE
from secli.config import MeasureSettings
from secli.datasets.pictures import open_pictures
from secli.equivariance.factors import factors_of
from secli.equivariance.measurable import Around, measurable_factors
from secli.errors import InputError, UnmatchedPatternError, suggestion
from secli.external.field_text import parse_fields
from secli.external.load import is_external, list_taps, same_network, suggested_input
from secli.external.tap_list import ListedTap
from secli.sweeps.measure import JUDGED, fades, pictures_for, windows_for
from secli.training.load import Foreign, Subject, load_subject

Shape = tuple[int, int, int]


class Chosen(NamedTuple):
    """One of the networks of a call.

    Attributes
    ----------
    subject
        The network.
    taps
        Which taps of a registered network are measured; None: all, or those that a foreign network was loaded with.
    remark
        What the user must know of them; empty where there is nothing.
    """

    subject: Subject
    taps: tuple[str, ...] | None
    remark: str


def read_shapes(text: str | None, targets: Sequence[str]) -> dict[str | None, Shape]:
    """Read ``CxHxW`` for all networks (under None), or ``NET:CxHxW`` for one, separated by commas.

    Raises
    ------
    InputError
        When a size cannot be read, or one network gets two.
    """
    found: dict[str | None, Shape] = {}
    for part in [] if text is None else text.split(","):
        only, shape = addressee(part.strip(), targets)
        if only in found:
            raise InputError(f"--input {text}: two sizes for {only or 'all networks'}; write NET:CxHxW")
        found[only] = _shape(shape)
    return found


def _shape(text: str) -> Shape:
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--input {text}: write channels, height and width, for example 3x224x224")
    if max(len(part) for part in parts) > 5 or max(map(int, parts)) > MOST_SIDE:
        raise InputError(f"--input {text}: at most {MOST_SIDE} channels and pixels along a side")
    channels, height, width = map(int, parts)
    return channels, height, width


def read_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read one number, or one per channel; None where none is given."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"{option} {text}: write one number, or one per channel separated by commas"
        ) from None
    if any(not abs(number) <= MOST or 0 < abs(number) < 1 / MOST for number in numbers):
        raise InputError(
            f"{option} {text}: the values must be finite numbers, from {1 / MOST:g} to {MOST} in size"
        )
    return numbers


def once_each(targets: Sequence[str]) -> list[str]:
    """Return targets without those that name a network for the second time, which is told."""
    found: dict[str, str] = {}
    for target in targets:
        network = same_network(target)
        if network in found:
            other = f", as {found[network]}" * (found[network] != target)
            note(f"remark: {target} is given twice{other}: measured once")
        found.setdefault(network, target)
    return list(found.values())


def load_networks(
    targets: Sequence[str],
    options: Mapping[str, Any],
    seed: int,
    foreign: Foreign,
    data: Path | None,
    shape: str | None,
) -> list[Chosen]:
    """Load every network before the first is measured, so that a wrong name costs no time.

    A foreign network that does not say what images it takes is given the pictures as they are. Each network is given
    the patterns of taps and fields that it has taps for. ``shape`` is the text of ``--input``.

    Raises
    ------
    InputError
        When a network cannot be loaded, or no network has taps for a pattern.
    """
    targets = once_each(targets)
    patterns, shapes = Patterns(targets), read_shapes(shape, targets)
    subjects = []
    for target in targets:
        size = shapes.get(target, shapes.get(None))
        if is_external(target) and size is None and data is not None:
            size = suggested_input(target, foreign.weights)
            if size is None:
                _, channels, height, width = open_pictures(data, images=1).images.shape
                size = (channels, height, width)
        known = replace(foreign, input_shape=size)
        subjects.append(load_foreign(patterns, target, known, partial(load_subject, target, options, seed)))
    chosen = []
    for target, subject in zip(targets, subjects, strict=True):
        taps, remark = None, ""  # the taps of a foreign network are those it was loaded with
        if not subject.foreign:
            refuse_fields(patterns, target, foreign.fields)
            taps = registered_taps(patterns, target, foreign.taps, subject.model.taps)
        if foreign.taps and not patterns.own("--taps", foreign.taps, target):
            remark = f"{target} has none of the taps asked for: all of its own are measured"
        chosen.append(Chosen(subject, taps, remark))
    patterns.check()
    _check_used(targets, subjects, foreign, shapes)
    return chosen


def _check_used(
    targets: Sequence[str], subjects: Sequence[Subject], foreign: Foreign, shapes: Mapping[str | None, Shape]
) -> None:
    """Refuse what is for networks outside the registry where none of them takes it."""
    given: list[tuple[str, str | None]] = [("--input", only) for only in shapes]
    given += [(f"--{key}", None) for key in ("mean", "std") if getattr(foreign, key) is not None]
    for option, only in given:
        named = [subject for target, subject in zip(targets, subjects, strict=True) if only in (None, target)]
        if not any(subject.foreign for subject in named):
            raise InputError(
                f"{option}: {named[0].info.name} takes the pictures as they are; {option} is for networks outside the "
                "registry, leave it out"
            )


def addressee(text: str, targets: Sequence[str]) -> tuple[str | None, str]:
    """Return the network that a text begins with, as ``NET:REST``, and the rest; None where it is for all.

    A network is called as on the command line, or by what follows its last colon.

    Raises
    ------
    InputError
        When several networks are called so.

    Examples
    --------
    >>> addressee("torchvision:resnet18:layer1", ["torchvision:resnet18", "cnn"])
    ('torchvision:resnet18', 'layer1')
    >>> addressee("resnet18:layer1", ["torchvision:resnet18", "cnn"])
    ('torchvision:resnet18', 'layer1')
    >>> addressee("layer1", ["torchvision:resnet18", "cnn"])
    (None, 'layer1')
    """
    for target in sorted(set(targets), key=len, reverse=True):
        if text.startswith(f"{target}:"):
            return target, text[len(target) + 1 :]
    name, colon, rest = text.partition(":")
    # "scale:1,2" and "tokens:14x14" are fields, whatever a network is called
    if not colon or name in ("scale", "tokens"):
        return None, text
    called = sorted({target for target in targets if target.rpartition(":")[2] == name})
    if len(called) > 1:
        raise InputError(f"{text}: {' and '.join(called)} are both called {name}; write {called[0]}:{rest}")
    return (called[0], rest) if called else (None, text)


@dataclass
class Patterns:
    """Patterns of taps and fields for several networks; each applies to the networks that have such taps.

    Attributes
    ----------
    targets
        The networks as on the command line.
    missed
        Which networks have no tap that a text of an option matches.
    """

    targets: Sequence[str]
    missed: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def own(self, option: str, texts: Iterable[str], target: str) -> dict[str, str]:
        """Return the patterns that a network takes, by the text that they come from."""
        found = {}
        for text in texts:
            only, pattern = addressee(text, self.targets)
            if only in (None, target) and target not in self.missed.get((option, text), ()):
                found[text] = pattern
        return found

    def miss(self, text: str, target: str, error: UnmatchedPatternError) -> None:
        """Note that a network has no tap for a text, or raise the error where no other network could have one."""
        if len(set(self.targets)) == 1 or addressee(text, self.targets)[0] is not None:
            raise error
        self.missed.setdefault((error.option, text), set()).add(target)

    def check(self) -> None:
        """Raise ``InputError`` on a pattern that no network has a tap for."""
        for (option, text), lacking in self.missed.items():
            if lacking >= set(self.targets):
                raise InputError(
                    f"{option} {text}: no tap of any of the {len(lacking)} networks matches; --list-taps shows all, "
                    "and NET:PATTERN is for one network"
                )


def load_foreign(
    patterns: Patterns, target: str, foreign: Foreign, load: Callable[[Foreign], Subject]
) -> Subject:
    """Load a network outside the registry with the taps and fields that it has among those asked for.

    Which they are shows only when it has been run, so a pattern that it does not have costs a second loading.
    """
    while True:
        taps = None if foreign.taps is None else patterns.own("--taps", foreign.taps, target)
        fields = patterns.own("--field", foreign.fields, target)
        own = replace(foreign, taps=list(taps.values()) if taps else None, fields=tuple(fields.values()))
        try:
            return load(own)
        except UnmatchedPatternError as error:
            asked = taps or {}
            if error.option != "--taps":  # PATTERN=FIELD
                asked = {text: parse_fields([pattern])[0][0] for text, pattern in fields.items()}
            lacking = [text for text, pattern in asked.items() if pattern in error.patterns]
            if not lacking:
                raise
            for text in lacking:
                patterns.miss(text, target, error)


def registered_taps(
    patterns: Patterns, target: str, texts: Sequence[str] | None, taps: Iterable[str]
) -> tuple[str, ...] | None:
    """Return the patterns that a network of the registry has taps for; None measures all of them."""
    names = list(taps)
    kept = []
    for text, pattern in patterns.own("--taps", texts or (), target).items():
        if any(fnmatchcase(name, pattern) for name in names):
            kept.append(pattern)
        else:
            message = f"--taps {pattern}: unknown tap '{pattern}'{suggestion(pattern, names)}"
            patterns.miss(text, target, UnmatchedPatternError(message, "--taps", (pattern,)))
    return tuple(kept) or None


def refuse_fields(patterns: Patterns, target: str, texts: Sequence[str]) -> None:
    """Note that fields cannot be declared for a network of the registry, whose taps have theirs."""
    for text in patterns.own("--field", texts, target):
        message = f"--field {text}: the taps of {target} have their fields; leave --field out"
        patterns.miss(text, target, UnmatchedPatternError(message, "--field", (text,)))


def tap_table(
    subjects: Sequence[Subject], settings: MeasureSettings, data: Path | None = None, quiet: bool = True
) -> str:
    """Return the taps that networks offer, one line each: name, class, shape, and stride, origin, radius as probed.

    The last column has the factors at which a tap is large enough and compared over a tenth of its map, on the pictures
    of ``data``, on black without any.
    """
    tables = []
    for subject in subjects:
        assert isinstance(subject.model, nn.Module)
        shape = subject.info.options.get("input")
        size = subject.info.options.get("image_size", 28)
        known = tuple(shape) if shape else (subject.info.options.get("in_channels", 1), size, size)
        with bar("taps", quiet, f"{subject.info.name}: cells") as tell:
            taps = list_taps(subject.model, (known[0], known[1], known[2]), on_progress=tell)
        around = _around(subject, settings, data)
        factors = factors_of(settings, subject.model.taps.values())
        rows = [
            (
                tap.name,
                tap.kind,
                _cells(tap.shape),
                _pair(tap.stride),
                _pair(tap.origin),
                tap.radius,
                _measured_at(tap, (known[1], known[2]), factors, around, settings),
            )
            for tap in taps
        ]
        heads = ("tap", "class", "shape", "stride (px)", "origin (px)", "radius (px)", "measured at s")
        listed = ", ".join(f"{factor:.3g}" for factor in factors)
        note_below = f"measured at s: of {listed}, on pictures {AROUND[around]}"
        tables.append(
            f"{subject.info.name}\n{tabulate(rows, heads, floatfmt='.3g', missingval='—')}\n{note_below}"
        )
    return "\n\n".join(tables)


AROUND: Mapping[Around, str] = {
    "black": "on black",
    "frame": "that get a frame when they shrink",
    "photo": "with their surroundings",
}


def _around(subject: Subject, settings: MeasureSettings, data: Path | None) -> Around:
    """Return what is around the pictures that a network is measured on."""
    if data is None:
        return "photo" if settings.surround == "photo" else "black"
    settings = settings.model_copy(update={"taps": None})  # all are listed
    if windows_for(subject, data, settings, probe=False) is not None:
        return "photo"
    few = pictures_for(subject, data, settings.model_copy(update={"images": JUDGED, "surround": "black"}))
    return "black" if fades(few) else "frame"


def _measured_at(
    tap: ListedTap,
    image: tuple[int, int],
    factors: Sequence[float],
    around: Around,
    settings: MeasureSettings,
) -> str | None:
    """Return the factors at which a tap can be measured, in words; None for one without a plane."""
    if tap.radius is None or tap.shape is None or tap.stride is None:
        return None
    plane = _plane_of(tap.shape, tap.stride, image)
    found = measurable_factors(
        plane, tap.radius, image, factors, around, settings.border, settings.smallest_plane
    )
    if len(found) == len(factors):
        return "all"
    if not found:
        return "none"
    return f"{min(found):.3g}" if len(found) == 1 else f"{min(found):.3g} to {max(found):.3g}"


def _plane_of(shape: Sequence[int], stride: Sequence[float], image: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of a map: of the axes of its shape those that fit the stride best."""
    wanted = [pixels / step for pixels, step in zip(image, (*stride, *stride)[:2], strict=True)]
    pairs = list(itertools.pairwise(shape))
    rows, columns = min(
        pairs, key=lambda pair: sum(abs(cells - want) for cells, want in zip(pair, wanted, strict=True))
    )
    return rows, columns


def _cells(shape: Sequence[int] | None) -> str | None:
    return None if shape is None else "×".join(map(str, shape))


def _pair(values: Sequence[float] | None) -> str | None:
    return None if values is None else ", ".join(f"{value:g}" for value in dict.fromkeys(values))
