"""Compile or export every layer of the table; print, as JSON, what went wrong with each (nothing: empty text).

SECLI_SHAPE_HOOK=0 python -m tests.layers.tracing compile|export|control BACKEND
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.layers.cases import CASES, Case


def gradients(layer: Callable[[Tensor], Tensor], learned: list[nn.Parameter], x: Tensor) -> list[Tensor]:
    """Return the output, and the gradients of a fixed weighted sum of it."""
    x = x.clone().requires_grad_()
    y = layer(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *learned])]


def compiled(layer: nn.Module, x: Tensor, backend: str) -> None:
    """Compare a compiled layer with itself, forward and backward."""
    torch.compiler.reset()
    learned = list(layer.parameters())
    graph = torch.compile(layer, backend=backend, fullgraph=True)
    expected = gradients(layer, learned, x)
    scale = max(float(each.abs().max()) for each in expected)
    for ours, theirs in zip(gradients(graph, learned, x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * scale + 1e-6)


def exported(layer: nn.Module, x: Tensor, backend: str) -> None:
    """Compare a layer that was exported, saved and loaded with itself."""
    file = io.BytesIO()
    torch.export.save(torch.export.export(layer, (x,), strict=False), file)
    file.seek(0)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(file).module()(x), layer(x), rtol=1e-5, atol=1e-6)


class Data(nn.Module):
    """What a layer may not do: let a value decide which way it goes."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


def problem(
    check: Callable[[nn.Module, Tensor, str], None], layer: nn.Module, x: Tensor, backend: str
) -> str:
    """Return the error of a check in one line, empty if there is none."""
    try:
        check(layer, x, backend)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:600]
    return ""


def problems(what: str, backend: str) -> dict[str, str]:
    """Return what went wrong, case by case."""
    torch.manual_seed(0)
    if what == "control":
        x = torch.ones(2, 2)
        return {
            "compile": problem(compiled, Data(), x, backend),
            "export": problem(exported, Data(), x, backend),
        }
    check = {"compile": compiled, "export": exported}[what]

    def one(case: Case) -> str:
        return problem(check, case.build().eval(), case.input(case.sizes[0]), backend)

    return {case.name: one(case) for case in CASES}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(problems(*sys.argv[1:])))
