"""What other installed packages add to a registry through entry points; loaded only when it is looked up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from secli.errors import SecliError, one_line

T = TypeVar("T")


def offered(group: str, make: Callable[[str, str, str, object], T]) -> Mapping[str, Callable[[], T]]:
    """Return the names of a group of entry points, each with a function that loads what stands behind it.

    Parameters
    ----------
    group : str
        The group, as packages declare it: ``[project.entry-points."secli.models"]``.
    make : callable
        Makes a specification from (name, package, value, loaded object); a ValueError says why it cannot.

    Returns
    -------
    mapping
        A function raises SecliError, in one line, when its entry point is broken or two packages offer its name.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in _points(group, tuple(sys.path)):
        found.setdefault(point.name, []).append(point)
    return {name: lambda points=points: _load(points, make) for name, points in found.items()}  # type: ignore[misc]


@lru_cache(maxsize=8)
def _points(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Read the entry points of all packages on the path; it is part of the key because it may grow."""
    return tuple(sorted(set(entry_points(group=group)), key=lambda point: point.name))


def _load(points: list[EntryPoint], make: Callable[[str, str, str, object], T]) -> T:
    first = points[0]
    origin = f"'{first.name}' of package {_package(first)} ({first.value})"
    if len(points) > 1:
        packages = " and ".join(_package(point) for point in points)
        raise SecliError(f"'{first.name}' is offered by the packages {packages}; uninstall one of them")
    try:
        loaded = first.load()
    except (Exception, SystemExit) as error:
        raise SecliError(f"{origin} cannot be loaded: {type(error).__name__}: {one_line(error)}") from None
    try:
        return make(first.name, _package(first), first.value, loaded)
    except ValueError as error:
        raise SecliError(f"{origin} cannot be used: {error}") from None


def _package(point: EntryPoint) -> str:
    return "unknown" if point.dist is None else point.dist.name
