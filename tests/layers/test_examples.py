"""The examples in the layers' documentation run as printed, and every layer has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest
from torch import nn

import secli.layers

Documented = dict[str, tuple[str, dict[str, object]]]


def documented() -> Documented:
    """Every public function and class of the layers with an example: its documentation and its module's names.

    ``doctest``'s own finder passes over functions that the shape checker has wrapped.
    """
    found: Documented = {}
    for entry in pkgutil.iter_modules(secli.layers.__path__, "secli.layers."):
        module = importlib.import_module(entry.name)
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
                continue
            documentation = inspect.getdoc(thing) or ""
            if ">>>" in documentation:
                found[f"{module.__name__}.{name}"] = (documentation, dict(vars(module)))
    return found


EXAMPLES = documented()


def failures(name: str, documentation: str, names: dict[str, object]) -> int:
    test = doctest.DocTestParser().get_doctest(documentation, names, name, None, None)
    return doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run_as_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failures(name, *EXAMPLES[name]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in secli.layers.__all__
        if inspect.isclass(thing := getattr(secli.layers, name)) and issubclass(thing, nn.Module)
    ],
)
def test_every_layer_has_a_runnable_example(name: str) -> None:
    documentation = inspect.getdoc(getattr(secli.layers, name)) or ""
    assert "Examples\n--------\n" in documentation
    assert name in documentation.split("Examples\n--------\n")[1]
    assert ">>>" in documentation


def test_a_wrong_example_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert failures("wrong", ">>> 1 + 1\n3\n", {}) == 1
    assert "Expected:" in capsys.readouterr().out
