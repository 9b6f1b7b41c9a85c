"""The state of the process that foreign code can change: read, compared and restored.

State that code reads again when it runs later (random numbers, default dtype, environment, search path) is its own and
is restored with it; how secli computes (gradients, threads, precision) is never the code's to decide.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch


class Setting(NamedTuple):
    """One part of the state of the process: how it is read and written; values compare by ``==``."""

    read: Callable[[], Any]
    write: Callable[[Any], object]


def _write_list(found: list[Any]) -> Callable[[list[Any]], None]:
    def write(value: list[Any]) -> None:
        found[:] = value

    return write


# undecoded: decoding each name and value for a comparison takes a hundred times as long
_ENVIRONMENT: dict[Any, Any] = vars(os.environ)["_data"]


def _write_environment(value: dict[Any, Any]) -> None:
    before = dict(_ENVIRONMENT)
    for key in before.keys() - value.keys():
        del os.environ[os.environ.decodekey(key)]
    for key, text in value.items():
        if before.get(key) != text:
            os.environ[os.environ.decodekey(key)] = os.environ.decodevalue(text)


def _read_directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 (a string compares faster than a path)
    except FileNotFoundError:  # deleted meanwhile
        return None


def _write_directory(value: str | None) -> None:
    if value is not None:
        with contextlib.suppress(OSError):
            os.chdir(value)


def _write_filters(value: list[Any]) -> None:
    warnings.resetwarnings()  # tells the interpreter that the filters have changed
    warnings.filters[:] = value  # type: ignore[index]


def _read_logging() -> tuple[int, list[logging.Handler], int]:
    return logging.root.level, list(logging.root.handlers), logging.root.manager.disable


def _write_logging(value: tuple[int, list[logging.Handler], int]) -> None:
    logging.root.setLevel(value[0])
    logging.root.handlers[:] = value[1]
    logging.disable(value[2])


def _write_device(value: torch.device) -> None:
    # the CPU is the default without any setting, which costs nothing at each call
    torch.set_default_device(None if value.type == "cpu" else value)


_HOOKS: list[dict[int, Any]] = [
    value
    for name, value in vars(torch.nn.modules.module).items()
    if name.startswith("_global_") and isinstance(value, dict)
]
"""The hooks that torch calls for every module."""


def _write_hooks(value: list[dict[int, Any]]) -> None:
    for hooks, before in zip(_HOOKS, value, strict=True):
        hooks.clear()
        hooks.update(before)


OWN = (
    Setting(torch.get_default_dtype, torch.set_default_dtype),
    Setting(torch.get_default_device, _write_device),
    Setting(lambda: dict(_ENVIRONMENT), _write_environment),
    Setting(_read_directory, _write_directory),
    Setting(lambda: list(sys.path), _write_list(sys.path)),
    Setting(lambda: list(sys.meta_path), _write_list(sys.meta_path)),
    Setting(lambda: list(warnings.filters), _write_filters),
    Setting(_read_logging, _write_logging),
    Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    Setting(np.geterr, lambda value: np.seterr(**value)),
    Setting(lambda: [dict(hooks) for hooks in _HOOKS], _write_hooks),
)
"""The code's own state, restored when it runs later."""


def _backend(module: Any, name: str) -> Setting:
    return Setting(lambda: getattr(module, name), lambda value: setattr(module, name, value))


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _autocast(kind: str) -> Setting:
    def write(value: tuple[bool, torch.dtype]) -> None:
        torch.set_autocast_enabled(kind, value[0])
        torch.set_autocast_dtype(kind, value[1])

    return Setting(lambda: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)), write)


OURS = (
    Setting(torch.is_grad_enabled, torch._C._set_grad_enabled),
    Setting(_deterministic, lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1])),
    Setting(torch.get_num_threads, torch.set_num_threads),
    Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Setting(torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    _autocast("cpu"),
    _autocast("cuda"),
    *(
        _backend(torch.backends.cudnn, name)
        for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
    ),
    _backend(torch.backends.mkldnn, "enabled"),
)
"""How secli computes: code finds secli's values, and cannot change them for others."""


def read(settings: tuple[Setting, ...]) -> list[Any]:
    """Return the values of settings."""
    return [setting.read() for setting in settings]


def write(settings: tuple[Setting, ...], values: list[Any], now: list[Any]) -> None:
    """Set settings to values, those that have others now."""
    for setting, value, other in zip(settings, values, now, strict=True):
        if value != other:
            setting.write(value)


class Random(NamedTuple):
    """The state of the random generators that code draws from without naming one."""

    torch: torch.Tensor
    cuda: list[torch.Tensor] | None
    numpy: dict[str, Any] | tuple[Any, ...]
    python: tuple[Any, ...]

    @classmethod
    def read(cls) -> Random:
        """Return the present state; of CUDA only where it is in use."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
        return cls(torch.default_generator.get_state(), cuda, np.random.get_state(), random.getstate())  # noqa: NPY002

    def write(self) -> None:
        """Restore this state."""
        torch.default_generator.set_state(self.torch)
        if self.cuda is not None:
            torch.cuda.set_rng_state_all(self.cuda)
        np.random.set_state(self.numpy)  # noqa: NPY002
        random.setstate(self.python)


def seed_everything(seed: int) -> None:
    """Seed every generator that code draws from without naming one."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (foreign code draws from it)
    random.seed(seed)
