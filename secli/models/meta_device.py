"""A registered network without its values: every shape is right, no weight is drawn, no basis is fitted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from secli.models.building import build
from secli.models.contract import StagedModel

COMPILER = "torch._dynamo"


def outline(name: str, options: Mapping[str, Any] | None = None) -> StagedModel:
    """Build a registered model on torch's meta device, where tensors have a shape and no storage.

    Raises
    ------
    UnknownNameError, InputError, SecliError
        As :func:`secli.models.building.build`.
    NotImplementedError, RuntimeError
        When the builder reads the values of a tensor, as one of another package may.
    """
    with torch.device("meta"), _Undrawn():  # type: ignore[no-untyped-call]
        network = build(name, options)
    # buffers made from arrays of numpy are on the CPU until now
    return network.to("meta")


class UncompiledMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode under which nothing is compiled.

    torch would import its compiler (two seconds, 100 MB) at the first operation, to keep it out of the mode.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


@contextmanager
def without_compiler() -> Iterator[None]:
    """Compute shapes without torch's compiler, whose import takes two seconds and 100 MB.

    Rules for shapes that are written in Python import it to be kept out of compiled code
    (``torch._disable_dynamo``), and remember that on the rule. Here they meet a module of its name that does not hold
    them back, and the memory is taken off afterwards: whoever compiles later gets what torch means. Where the
    compiler is imported already, nothing is done.
    """
    if COMPILER in sys.modules:
        yield
        return
    met: list[Any] = []

    def disable(function: Any, *args: Any, **kwargs: Any) -> Any:
        met.append(function)
        return function

    absent = ModuleType(COMPILER)
    absent.disable = disable  # type: ignore[attr-defined]
    sys.modules[COMPILER] = absent
    try:
        yield
    finally:
        if sys.modules.get(COMPILER) is absent:
            del sys.modules[COMPILER]
        if vars(torch).get("_dynamo") is absent:  # an import binds it there too
            del torch._dynamo
        for function in met:
            vars(function).pop("__dynamo_disable", None)


class _Undrawn(UncompiledMode):  # type: ignore[no-untyped-call]
    """Draw no random numbers on the meta device: there is nothing to fill, yet torch takes milliseconds for it."""

    DRAWN = frozenset({torch.ops.aten.normal_.default, torch.ops.aten.uniform_.default})

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self.DRAWN and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))
