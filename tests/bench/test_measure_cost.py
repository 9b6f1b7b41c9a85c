"""What measuring costs: time against the forward passes, memory against the number of pictures."""

import os
import subprocess
import sys

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from secli.bench.measure_cost import curve_cost
from secli.models.building import build

PEAK = """
import resource, sys
import torch
from secli.config import MeasureSettings
from secli.equivariance.curves import measure_curves
from secli.models.building import build

torch.set_num_threads(1)
images = torch.randint(0, 256, (int(sys.argv[1]), 1, 28, 28), dtype=torch.uint8)
settings = MeasureSettings(factors=(0.8, 0.5), images=len(images), batch=50)
measure_curves(build("dss_v1", {"channels": 4}).eval(), images, settings, on_black=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_every_round_is_timed_and_the_ratio_is_that_of_the_medians() -> None:
    rounds: list[tuple[int, int]] = []
    cost = curve_cost(
        build("cnn").eval(),
        torch.rand(6, 1, 28, 28),
        factors=2,
        repeats=3,
        batch=3,
        on_progress=lambda done, total: rounds.append((done, total)),
    )
    forward, measured = cost["forward_s"], cost["measure_s"]
    assert isinstance(forward, list)
    assert isinstance(measured, list)
    assert len(forward) == len(measured) == 3
    assert min(forward + measured) > 0
    assert cost["ratio"] == sorted(measured)[1] / sorted(forward)[1]
    assert (cost["passes"], cost["factors"], cost["images"]) == (3, 2, 6)
    assert rounds == [(1, 3), (2, 3), (3, 3)]


def test_the_forward_passes_are_as_many_as_the_curve_makes() -> None:
    network = build("cnn").eval()
    seen: list[int] = []

    class Counting(type(network)):  # type: ignore[misc]
        def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
            seen.append(len(images))
            logits: Tensor = super().forward(images)
            return logits

    network.__class__ = Counting
    curve_cost(network, torch.rand(4, 1, 28, 28), factors=2, repeats=1, batch=4)
    assert seen == [4] * (1 + 3)  # one to warm up; the curve itself asks for features


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures() -> None:
    # large blocks go straight back to the system, so that the peak is what is in use, not what malloc keeps
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    few, many = (
        int(subprocess.check_output([sys.executable, "-c", PEAK, count], env=environment))
        for count in ("400", "4000")
    )
    # kibibytes: the pictures take 3 MB more, the bootstrap 7; features of all of them at once would take 200
    assert many - few < 25_000
