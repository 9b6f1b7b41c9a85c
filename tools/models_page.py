"""Write the page of all models, in markdown: what the registry knows, and the speeds that a benchmark recorded.

``python -m tools.models_page --speed docs/models-speed.json > docs/models.md``; ``secli bench --all --format json``
gives the speeds.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from secli.catalogue import MODELS
from secli.catalogue.families import FAMILIES, Family
from secli.errors import SecliError
from secli.models.building import builder_of
from secli.models.describe import Description, summary
from secli.models.meta_device import outline
from tools.agreement import AGREEMENTS
from tools.initialisation import INITIALISATIONS, initialisation_of, parameters_of

COMMAND = "python -m tools.models_page --speed docs/models-speed.json > docs/models.md"

Speeds = Mapping[tuple[str, str], Mapping[str, Any]]
KEYS = {"model", "mode", "images_per_second", "low", "high", "repeats", "batch"}
KEYS |= {"device", "threads", "torch", "command"}
"""Of a benchmark's row, what the page shows."""


def page(descriptions: Sequence[Description], speeds: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the whole page.

    Parameters
    ----------
    descriptions : sequence of Description
        The models, in the registry's order.
    speeds : sequence of mapping
        Rows of ``secli bench --format json``; none leaves the speeds out.
    """
    what = (
        f"{len(descriptions)} networks of the registry."
        if len(descriptions) > 1
        else "One network of the registry."
    )
    parts = [
        _HEAD.format(command=COMMAND, what=what),
        "## All models",
        _overview(descriptions, speeds),
    ]
    if speeds:
        parts.append(_measured_on(speeds))
    names = [each.name for each in descriptions]
    parts += ["## Compared with published code", _COMPARED, _agreements(names)]
    parts += ["## How weights start", _INITIALISED, _initialisations(names)]
    for name in FAMILIES:
        members = [each for each in descriptions if each.family == name]
        if members:
            parts += _family(FAMILIES[name], members)
    return "\n\n".join(parts) + "\n"


_HEAD = """# The models

Written by `{command}`; edit the registry, not this page.

{what} Each takes pixels in [0, 1]; normalisation is inside. FLOPs are multiply–adds × 2 of
the forward pass of one picture at its own size: matrix products, convolutions and bilinear samples (8 a sample); a
deformable convolution K×K from C to C' channels counts (2C' + 8)·C·K² per cell. What works cell by cell counts
nothing. A tap's field says how scale acts on it; shapes leave out the batch, strides and blurs are in image pixels."""


_COMPARED = """What of each network is known to be equal to its authors' code, on the same weights and inputs: the norm
of the difference over that of the output. The reference numbers are in `tests/golden`; a row says no more than its
tests."""

_INITIALISED = """The first row that speaks of a parameter holds. uniform: in ± the size; normal: with the size as its
deviation; delta: uniform but for the taps named. in, out: channels; K: side of a kernel; I: interaction.
`tests/tools/test_initialisation.py` holds every tensor of every network against its row."""


def _agreements(names: Sequence[str]) -> str:
    rows = []
    for each in AGREEMENTS:
        members = [name for name in names if each.speaks_of(name)]
        if members:
            tests = ", ".join(f"`{test}`" for test in each.checked) or "–"
            rows.append([", ".join(f"`{name}`" for name in members), each.equal, tests, each.differs])
    return _table(
        ["network", "equal to published code", "checked by", "what differs or is not compared"], rows
    )


def _initialisations(names: Sequence[str]) -> str:
    rows = []
    every = {MODELS[name].family for name in names}
    for each in INITIALISATIONS:
        families = {MODELS[name].family for name in names if each.what in _rows_of(name)}
        if families:
            where = "all" if families == every else ", ".join(name for name in FAMILIES if name in families)
            rows.append([each.what, where, each.kind, each.formula, each.source])
    return _table(["parameter", "families", "distribution", "size", "source"], rows)


@lru_cache(maxsize=128)
def _rows_of(name: str) -> frozenset[str]:
    """Return the rows that speak of a network's parameters."""
    return frozenset(initialisation_of(each).what for each in parameters_of(name, outline(name)).values())


def _overview(descriptions: Sequence[Description], rows: Sequence[Mapping[str, Any]]) -> str:
    speeds: Speeds = {(row["model"], row["mode"]): row for row in rows}
    header = ["model", "family", "input", "parameters", "MFLOPs"]
    measured = ["train, images/s", "evaluate, images/s"] if rows else []
    lines = []
    for each in descriptions:
        cells = [
            f"`{each.name}`",
            each.family,
            _times(each.input),
            _count(each.parameters),
            _mega(each.flops),
        ]
        lines.append(cells + [_speed(speeds.get((each.name, mode))) for mode in ("train", "eval") if rows])
    return _table(header + measured, lines, right=range(3, len(header + measured)))


def _speed(row: Mapping[str, Any] | None) -> str:
    """Return the median and, in brackets, the slowest and the fastest repeat."""
    if row is None:
        return "not measured"
    median, low, high = (_digits(row[key], 3) for key in ("images_per_second", "low", "high"))
    return f"{median} ({low}–{high})"


def _measured_on(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say by which commands, and where, the speeds were measured."""
    settings: dict[tuple[Any, ...], int] = {}
    for row in rows:
        key = tuple(row[name] for name in ("repeats", "batch", "device", "threads", "torch", "command"))
        settings[key] = settings.get(key, 0) + 1
    lines = ["Images per second: median of the repeats (slowest–fastest), all networks taking turns."]
    for (repeats, batch, device, threads, torch, command), count in settings.items():
        lines.append(
            f"- {count} timings: {repeats} repeats, batch {batch}, {device}, {threads} CPU threads, torch {torch}: "
            f"`{command}`"
        )
    return "\n".join([lines[0], "", *lines[1:]])


def _family(family: Family, members: Sequence[Description]) -> list[str]:
    parts = [f"## {family.title}", f"*{family.paper}*", family.idea, f"```text\n{family.equation}\n```"]
    if family.differs:
        differs = "\n".join(f"- {each}" for each in family.differs)
        parts.append(f"**What differs from published code, and why**\n\n{differs}")
    rows = [
        [f"`{each.name}`", MODELS[each.name].idea, _count(each.parameters), _mega(each.flops)]
        for each in members
    ]
    parts.append(_table(["model", "what it is", "parameters", "MFLOPs"], rows, right=(2, 3)))
    for builder, group in _grouped(members, lambda each: MODELS[each.name].builder).items():
        parts += _options(builder, group)
    parts.append("### Taps")
    parts += [_taps(group) for group in _grouped(members, lambda each: each.taps).values()]
    return parts


def _options(builder: str, members: Sequence[Description]) -> list[str]:
    """Describe one builder: its options once, and what the registry sets for each of its models."""
    function = builder.partition(":")[2]
    defaults = inspect.signature(builder_of(MODELS[members[0].name])).parameters
    rows = [
        [
            f"`{each.name}`",
            _default(defaults[each.name].default),
            _escaped(each.allowed),
            _escaped(each.description),
        ]
        for each in members[0].options
    ]
    parts = [
        f"### Options of `{function}`",
        f"{summary(members[0].name)[0].upper()}{summary(members[0].name)[1:]}",
        _table(["option", "default", "allowed", "what it does"], rows),
    ]
    own = [
        [
            f"`{each.name}`",
            ", ".join(f"`{key}={_value(value)}`" for key, value in MODELS[each.name].options.items()),
        ]
        for each in members
        if MODELS[each.name].options
    ]
    return [*parts, _table(["model", "sets"], own)] if own else parts


def _taps(members: Sequence[Description]) -> str:
    names = ", ".join(f"`{each.name}`" for each in members)
    rows = [[f"`{tap.name}`", _times(tap.shape), tap.field] for tap in members[0].taps]
    return f"{names}:\n\n{_table(['tap', 'shape', 'field'], rows)}"


def _grouped(members: Iterable[Description], key: Any) -> dict[Any, list[Description]]:
    groups: dict[Any, list[Description]] = {}
    for each in members:
        groups.setdefault(key(each), []).append(each)
    return groups


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    aligned = set(right)
    rule = ["--:" if i in aligned else "---" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [list(header), rule, *rows])


def _default(value: Any) -> str:
    return "set by the model" if value is inspect.Parameter.empty else f"`{_value(value)}`"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_value(each) for each in value)}]"
    return f"{value:.5g}" if isinstance(value, float) else "none" if value is None else str(value)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _digits(value: float, digits: int) -> str:
    """Return a number with so many digits at least, thousands apart, never with an exponent."""
    whole = len(str(int(value)))
    return f"{value:,.{max(0, digits - whole)}f}".replace(",", " ")


def _mega(flops: int) -> str:
    return _digits(flops / 1e6, 4)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(str(length) for length in shape)


def read_speeds(file: Path) -> list[dict[str, Any]]:
    """Read what a benchmark recorded.

    Raises
    ------
    ValueError
        When the file holds something else.
    """
    try:
        rows: Any = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(rows, list) or any(KEYS - row.keys() for row in rows):
            raise TypeError
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"--speed {file}: is not what 'secli bench MODEL --format json' prints") from None
    return list(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page."""
    from secli.models.describe import describe

    parser = argparse.ArgumentParser(prog="models_page", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", help="registry names; none: all")
    parser.add_argument("--speed", type=Path, metavar="FILE", help="what secli bench --format json gave")
    given = parser.parse_args(arguments)
    try:
        speeds = [] if given.speed is None else read_speeds(given.speed)
        sys.stdout.write(page([describe(name) for name in given.models or MODELS.own], speeds))
    except (OSError, SecliError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
