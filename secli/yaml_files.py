"""YAML as secli reads it: no key twice, numbers as they are written, of bounded size and depth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from secli.errors import InputError

MOST_VALUES = 100_000
"""Values that a YAML file may hold, each alias counted as often as it is used."""
MOST_BYTES = 4 << 20
"""Bytes of a YAML file; it takes seconds to read as many."""
DEEPEST = 40
"""Levels to which lists and keys may be nested in a file."""


class RepeatedKeyError(yaml.MarkedYAMLError):
    """A mapping has one key twice: of two values, YAML silently keeps the last."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses a key that stands twice and reads numbers and dates as YAML 1.2 does.

    Of YAML 1.1 it keeps on, off, yes, no, y and n as truth values (see ``Settings``), not 1:30 (90), 010 (8) and dates;
    1e-3 is a number.
    """

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Return the node of a mapping, its keys compared as they are written."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                where = f"in line {line}" if lines[name] == line else f"in lines {lines[name]} and {line}"
                raise RepeatedKeyError(
                    problem=f"key '{key.value}' stands twice, {where}", problem_mark=key.start_mark
                )
            lines[name] = line
        return node


_REPLACED = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$"
        r"|\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """Read YAML, or raise ``ValueError`` with what is wrong, in one line; every YAML text of secli is read by this.

    A few lines of YAML can stand for more values than a machine holds: each alias repeats what it names.

    Examples
    --------
    >>> parse_yaml("{lr: 0.1, milestones: [5, 8]}")
    {'lr': 0.1, 'milestones': [5, 8]}
    """
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(_problem(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (ValueError, OverflowError, TypeError):  # a date or a number that Python cannot hold
        raise ValueError("not valid YAML (a value that cannot be read)") from None
    check_bounds(content)
    return content


def _problem(error: yaml.YAMLError) -> str:
    """Say in one line why a text is not read as YAML, with the line of it."""
    if isinstance(error, RepeatedKeyError):
        return f"{error.problem}; leave one of them"
    mark = getattr(error, "problem_mark", None)
    return "not valid YAML" + (f" (line {mark.line + 1})" if mark is not None else "")


def check_bounds(content: Any) -> None:
    """Raise ``ValueError`` where lists and mappings are nested too deeply, hold themselves, or hold too much."""
    check_depth(content)
    if _size(content, {}) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES} values, aliases counted")


def check_depth(content: Any) -> None:
    """Raise ``ValueError`` where lists and mappings are nested too deeply, or hold themselves."""
    level, depth = [content], 0
    while level:
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} levels deep")
        # each container once on a level, however often an alias repeats it there
        below = {id(part): part for value in level for part in _parts(value) if _holds(part)}
        level, depth = list(below.values()), depth + 1


def _size(value: Any, known: dict[int, int]) -> int:
    """Return how many values a value holds, itself included; those of an alias as often as it is used."""
    if not _holds(value):
        return 1
    if id(value) not in known:
        known[id(value)] = 1 + sum(_size(part, known) for part in _parts(value))
    return known[id(value)]


def _holds(value: Any) -> bool:
    return isinstance(value, dict | list | tuple | set)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return list(value) if _holds(value) else []


def read_yaml(path: Path, where: str) -> Any:
    """Read a YAML file; whatever is wrong with it is one line that begins with ``where``.

    Raises
    ------
    InputError
        When the file is missing, cannot be read, is too large, or is not YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InputError(f"{where}: larger than {MOST_BYTES >> 20} MiB")
        return parse_yaml(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{where}: no such file") from None
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{where}: not valid YAML (not text in UTF-8)") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
