"""Modules of a user's own files: each network has its own, whatever they are called."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

SHARED = frozenset((*sys.stdlib_module_names, "secli", "torch", "torchvision", "numpy", "__main__"))
"""Top-level names that are never a network's own."""

OF_A_FILE = "secli_user_"
"""Prefix of the packages that are made for the file of a factory."""


def _installed() -> frozenset[str]:
    """Return the directories of installed libraries."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*getattr(site, "getsitepackages", list)(), site.getusersitepackages()]
    return frozenset({*paths, *(str(Path(path).resolve()) for path in paths)})


INSTALLED = _installed()


class PrivateModules:
    """The modules that one network's code imported from a user's directories, removed while it does not run.

    Two files in two directories may both import ``layers``: each finds the one next to it. Installed modules are
    shared, for a library cannot always be imported twice. ``directory`` is that of the code.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = None if directory is None else str(directory)
        self.modules: dict[str, ModuleType] = {}
        self._neighbours = {} if directory is None else _neighbours(directory)
        self._before: dict[str, ModuleType] = {}
        self._inside: dict[str, ModuleType] = {}
        self._displaced: set[str] = set()

    def bring(self) -> None:
        """Put the network's own modules into ``sys.modules``, hiding others of the same names."""
        self._before = dict(sys.modules)
        tops = [name for name in self._neighbours if name in self._before and self._hides(name)]
        below = tuple(f"{name}." for name in tops)
        hidden = [name for name in self._before if name.startswith(below)] if tops else []
        for name in (*tops, *hidden):
            del sys.modules[name]
        sys.modules.update(self.modules)
        self._displaced = {*tops, *hidden, *self.modules}
        self._inside = dict(sys.modules) if self._displaced else self._before

    def put_away(self) -> None:
        """Remove them again, with those imported since; installed ones stay."""
        if sys.modules != self._inside:  # by identity first, so that this is quick
            found = dict(sys.modules)
            new = [name for name, module in found.items() if self._before.get(name) is not module]
            self.modules = {name: found[name] for name in new if self._is_private(name, found)}
            self._displaced |= self.modules.keys() | (self._before.keys() - found.keys()) | set(new)
        for name in self._displaced:
            if name in self._before:
                sys.modules[name] = self._before[name]
            elif name in self.modules:
                del sys.modules[name]
        self._before = self._inside = {}

    def _hides(self, name: str) -> bool:
        """Return whether a loaded module gives way to the neighbour of its name, as it would in a new process."""
        root = _root(self._before[name])
        if name in self.modules or root == self.directory:
            return False
        return self._neighbours[name] or not _is_installed(root)

    def _is_private(self, name: str, modules: dict[str, ModuleType]) -> bool:
        top = name.partition(".")[0]
        if top in SHARED:
            return False
        if top.startswith(OF_A_FILE):
            return True
        root = _root(modules[top]) if top in modules else None
        if root is None:  # made by code, like its package
            return top not in self._before
        return root == self.directory or not _is_installed(root)


def _neighbours(directory: Path) -> dict[str, bool]:
    """Return the importable names of a directory, and whether each is more than a directory of files."""
    if _is_installed(str(directory)):
        return {}
    found: dict[str, bool] = {}
    try:
        for path in directory.iterdir():
            if path.suffix == ".py":
                found[path.stem] = True
            elif path.is_dir() and path.name.isidentifier():
                found.setdefault(path.name, (path / "__init__.py").is_file())
    except OSError:
        return {}
    return {name: regular for name, regular in found.items() if name not in SHARED}


def _root(module: ModuleType) -> str | None:
    """Return the directory of ``sys.path`` in which a top-level module was found; None without a file."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        path = Path(file)
        return str(path.parent.parent if hasattr(module, "__path__") else path.parent)
    paths = list(getattr(module, "__path__", ()))
    return str(Path(paths[0]).parent) if paths else None


def _is_installed(root: str | None) -> bool:
    return root is not None and any(root == path or root.startswith(f"{path}{os.sep}") for path in INSTALLED)
