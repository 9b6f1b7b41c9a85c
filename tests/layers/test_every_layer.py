"""One file over every layer: any size, dtype and device, compiled, exported and under autocast.

What the tracer runs is a separate process, since the shape hook of the tests is not part of a layer.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import secli.layers
from tests.layers.cases import CASES, Case

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_every_layer_is_in_the_table() -> None:
    exported = {name: getattr(secli.layers, name) for name in secli.layers.__all__}
    modules = {
        name for name, thing in exported.items() if inspect.isclass(thing) and issubclass(thing, nn.Module)
    }
    assert modules == {case.layer for case in CASES}
    assert len({case.name for case in CASES}) == len(CASES)


@every_case
def test_any_size_gives_the_plane_of_its_window(case: Case) -> None:
    layer = case.build().eval()
    for size in case.sizes:
        y = layer(case.input(size))
        assert tuple(y.shape) == case.shape(size)
        assert torch.isfinite(y).all()


@every_case
def test_doubles_agree_with_floats(case: Case) -> None:
    single, double = case.build().eval(), case.build(dtype=torch.float64).eval()
    double.load_state_dict(single.state_dict())
    x = case.input(case.sizes[0])
    y = double(x.double())
    assert y.dtype == torch.float64
    assert all(p.dtype == torch.float64 for p in double.parameters())
    torch.testing.assert_close(single(x).double(), y, rtol=1e-4, atol=1e-5)


@every_case
def test_a_layer_can_be_made_without_memory(case: Case) -> None:
    layer = case.build(device="meta", dtype=torch.float64).eval()
    assert all(tensor.is_meta for tensor in [*layer.parameters(), *layer.buffers()])
    y = layer(case.input(case.sizes[0], device="meta", dtype=torch.float64))
    assert y.is_meta
    assert tuple(y.shape) == case.shape(case.sizes[0])


@every_case
def test_bfloat16_comes_close(case: Case) -> None:
    layer, x = case.build().eval(), case.input(case.sizes[1])
    with torch.no_grad():
        exact = layer(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x).float()
    assert torch.isfinite(y).all()
    assert (y - exact).norm() <= case.bf16 * exact.norm()


def traced(what: str, backend: str = "aot_eager") -> dict[str, str]:
    """Run ``tests.layers.tracing`` and return what went wrong, case by case."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.layers.tracing", what, backend],
        env={**os.environ, "SECLI_SHAPE_HOOK": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    problems: dict[str, str] = json.loads(done.stdout)
    return problems


@pytest.fixture(scope="module")
def compiled() -> dict[str, str]:
    return traced("compile")


@pytest.fixture(scope="module")
def exported() -> dict[str, str]:
    return traced("export")


@every_case
def test_compiled_it_has_the_same_values_and_gradients(case: Case, compiled: dict[str, str]) -> None:
    assert compiled[case.name] == ""


@pytest.mark.slow
@every_case
def test_exported_saved_and_loaded_it_has_the_same_values(case: Case, exported: dict[str, str]) -> None:
    assert exported[case.name] == ""


def test_what_cannot_be_traced_is_found() -> None:
    problems = traced("control")
    assert "data-dependent" in problems["compile"].lower(), problems
    assert problems["export"] != ""


@pytest.mark.slow
def test_the_real_backend_has_the_same_values_and_gradients() -> None:
    problems = traced("compile", "inductor")
    assert set(problems) == {case.name for case in CASES}
    assert not any(problems.values()), problems
