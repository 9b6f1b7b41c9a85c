"""The networks trace into one graph; the shape hook is off there, since it is not part of the network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from secli.catalogue import MODELS

PROGRAM = """
import sys
import torch
from secli.models.building import build
for name in sys.argv[2:]:
    model, images = build(name).eval(), torch.rand(2, 1, 28, 28)
    compiled = torch.compile(model, backend=sys.argv[1], fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-3, atol=1e-4)
    torch.compiler.reset()
"""


def run(backend: str, names: Sequence[str]) -> None:
    environment = {**os.environ, "SECLI_SHAPE_HOOK": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, backend, *names],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_one_network_of_each_family_compiles() -> None:
    run("aot_eager", ["dcn_v2", "dss_v1", "mnist_ses_vector_28", "mnist_dss_scalar_28"])


@pytest.mark.slow
def test_every_network_compiles() -> None:
    run("aot_eager", list(MODELS))


@pytest.mark.slow
def test_the_real_backend_compiles() -> None:
    run("inductor", ["cnn", "dcn", "dss_v1", "mnist_ses_vector_28"])
