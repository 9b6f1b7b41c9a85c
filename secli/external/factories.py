"""Networks of a user's own code: a function of a file or of a package, called without arguments."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from secli.errors import InputError, UnknownNameError
from secli.external.foreign_code import ForeignCode, one_line_errors
from secli.external.private_modules import OF_A_FILE


def code_of_factory(target: str, location: str, seed: int) -> ForeignCode:
    """Return the code of a target, which can import modules next to its file, or in the current directory."""
    directory = Path(location).resolve().parent if location.endswith(".py") else Path.cwd()
    return ForeignCode(target, directory, seed)


def from_factory(target: str, location: str, name: str) -> nn.Module:
    """Call a factory of the user's own code, inside that code.

    Raises
    ------
    InputError
        When there is no such factory, it fails, or it returns no network; one line with file and line number.
    """
    with one_line_errors(target):
        module = (
            _file_module(target, location) if location.endswith(".py") else _package_module(target, location)
        )
        factory = _attribute(target, module, name)
        if isinstance(factory, nn.Module) or not callable(factory):
            built = isinstance(factory, nn.Module)
            what = "a network that is built already" if built else type(factory).__name__
            raise InputError(f"{target}: is {what}; name a function without arguments that returns a network")
        if missing := _required(factory):
            raise InputError(
                f"{target}: needs the argument '{missing[0]}'; name a function without arguments that returns a network"
            )
        network = factory()
    if not isinstance(network, nn.Module):
        raise InputError(f"{target}: returned {type(network).__name__}, not a torch.nn.Module")
    return network


def _file_module(target: str, location: str) -> ModuleType:
    path = Path(location).resolve()
    if not path.is_file():
        raise InputError(f"{target}: no such file: {location}")
    name = f"{_package_around(path)}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file always has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up there
    spec.loader.exec_module(module)
    return module


def _package_around(path: Path) -> str:
    """Make packages for the directory of a file and those above it that are packages, for its relative imports.

    Their own ``__init__.py`` is not run: a file may be usable where its package, with all its imports, is not.
    """
    directories = [path.parent]
    while (directories[0] / "__init__.py").is_file() and directories[0].parent != directories[0]:
        directories.insert(0, directories[0].parent)
    name = f"{OF_A_FILE}{zlib.crc32(str(path).encode()):08x}"
    for depth, directory in enumerate(directories):
        name = f"{name}.{directory.name}" if depth else name
        package = ModuleType(name)
        package.__path__ = [str(directory)]
        sys.modules[name] = package
    return name


def _package_module(target: str, location: str) -> ModuleType:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", location):
        raise InputError(
            f"{target}: '{location}' is neither torchvision, timm, a Python module nor a .py file"
        )
    try:
        return importlib.import_module(location)
    except ModuleNotFoundError as error:
        if error.name is not None and (location == error.name or location.startswith(f"{error.name}.")):
            raise InputError(
                f"{target}: no module named '{error.name}'; for a file write path/file.py:name"
            ) from None
        raise


def _attribute(target: str, module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            functions = [
                key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
            ]
            raise UnknownNameError(f"factory in '{target}',", part, functions)
        found = getattr(found, part)
    return found


def _required(factory: Callable[..., Any]) -> list[str]:
    """Return the names of a factory's arguments without default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in kinds]
