"""The measure in an evaluation loop: the same value as ``secli.measure``, with torchmetrics and without."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secli
from secli.equivariance.plain_metric import PlainMetric
from secli.errors import InputError

FACTORS = [0.8, 0.5]


def digits(n: int = 10, side: int = 28) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    middle = torch.rand(n, 1, side // 2, side // 2, generator=generator)
    return nn.functional.pad(middle, [side // 4] * 4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.encoder(x).mean((2, 3)))
        return y


def network() -> Net:
    torch.manual_seed(3)
    return Net()


def read(frame: Any) -> dict[str, float]:
    return {f"{row.tap}@{row.factor:.3g}": row.mean for row in frame.itertuples()}


def same(found: dict[str, Tensor], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        if value is None or math.isnan(value):
            assert math.isnan(float(found[name]))
        else:
            assert float(found[name]) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("sizes", [[10], [3, 3, 4], [9, 1]])
def test_batches_together_read_as_the_measure(sizes: list[int]) -> None:
    for model in (network(), secli.load_model("dss_v1")):
        error = secli.ScaleEquivariance(FACTORS)
        for batch in digits().split(sizes):  # type: ignore[no-untyped-call]
            error.update(model, batch)
        same(error.compute(), read(secli.measure(model, digits(), factors=FACTORS)))


def test_photographs_keep_their_border() -> None:
    images = torch.rand(4, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    error = secli.ScaleEquivariance([0.7], taps=["encoder"])
    model = network()
    for batch in (images[:1], images[1:]):
        error.update(model, batch)
    same(error.compute(), read(secli.measure(model, images, factors=[0.7], taps=["encoder"])))


def test_what_cannot_be_measured_is_nan_with_its_reason() -> None:
    error = secli.ScaleEquivariance([0.3], taps=["encoder"])
    error.update(network(), digits(side=12))
    assert math.isnan(float(error.compute()["encoder@0.3"]))
    assert "fewer than 4" in error.reasons["encoder@0.3"]


def test_reset_forgets_network_and_batches() -> None:
    error = secli.ScaleEquivariance(FACTORS)
    error.update(network(), digits())
    first = error.compute()
    error.reset()
    assert error.columns == []
    assert error.reasons == {}
    error.update(network(), digits())
    assert error.compute() == first


def test_the_network_comes_back_as_it_was() -> None:
    model = network().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    error = secli.ScaleEquivariance(FACTORS)
    before = torch.get_rng_state()
    with torch.inference_mode():  # as an evaluation loop of Lightning
        error.update(model, digits())
    assert model.training
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_normalisation_may_stand_before_the_network() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - 0.1) / 0.3

    whole = nn.Sequential(Centred(), network())
    error = secli.ScaleEquivariance(FACTORS, taps=["encoder"], normalise=Centred())
    model = whole[1]
    error.update(model, digits())
    expected = secli.measure(whole, digits(), factors=FACTORS, taps=["1.encoder"])
    assert [float(value) for value in error.compute().values()] == pytest.approx(
        expected["mean"].tolist(), rel=1e-6
    )


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (torch.full((1, 1, 8, 8), 200.0), "divide them by 255"),
        (torch.full((1, 1, 8, 8), -1.0), "not in [0, 1]"),
        (torch.zeros(0, 1, 8, 8), "no images"),
    ],
)
def test_what_is_no_picture_is_refused(images: Tensor, why: str) -> None:
    with pytest.raises(InputError) as caught:
        secli.ScaleEquivariance(FACTORS).update(network(), images)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factors", [[], [0.0], [math.nan], [1e-9]])
def test_factors_are_those_of_the_measure(factors: list[float]) -> None:
    with pytest.raises(InputError):
        secli.ScaleEquivariance(factors)


ALONE = """
import json, sys
sys.modules["torchmetrics"] = None
import torch, secli
from tests.equivariance.test_scale_metric import FACTORS, digits, network
error = secli.ScaleEquivariance(FACTORS)
assert type(error).__mro__[1].__module__ == "secli.equivariance.plain_metric"
model = network()
for batch in digits().split(4):
    error.update(model, batch)
print(json.dumps({name: float(value) for name, value in error.compute().items()}))
error.reset()
assert error.compute() == {}
"""


def test_without_torchmetrics_it_reads_the_same() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=False, cwd=root
    )
    assert done.returncode == 0, done.stderr
    expected = read(secli.measure(network(), digits(), factors=FACTORS))
    assert json.loads(done.stdout) == pytest.approx(expected, rel=1e-6)


def test_with_torchmetrics_it_is_one_of_its_metrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    error = secli.ScaleEquivariance(FACTORS)
    assert isinstance(error, torchmetrics.Metric)
    together = torchmetrics.MetricCollection({"scale": error})
    model = network()
    together.update(model, digits())
    expected = read(secli.measure(model, digits(), factors=FACTORS))
    found = {name.removeprefix("scale_"): value for name, value in together.compute().items()}
    same(found, expected)


def test_processes_gather_what_each_has_seen(tmp_path: Path) -> None:
    """Two processes with unequal shares read as one with all."""
    script = tmp_path / "both.py"
    script.write_text(
        "import json, sys, torch, secli\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from tests.equivariance.test_scale_metric import FACTORS, digits, network\n"
        "rank = int(sys.argv[1])\n"
        "torch.distributed.init_process_group('gloo', rank=rank, world_size=2, "
        f"init_method='file://{tmp_path}/meet')\n"
        "error, model = secli.ScaleEquivariance(FACTORS), network()\n"
        "for batch in digits()[:7].split(4) if rank == 0 else [digits()[7:]]:\n"
        "    error.update(model, batch)\n"
        "print(json.dumps({name: float(value) for name, value in error.compute().items()}))\n"
        "torch.distributed.destroy_process_group()\n"
    )
    both = [
        subprocess.Popen([sys.executable, str(script), str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    texts = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    expected = read(secli.measure(network(), digits(), factors=FACTORS))
    for text in texts:
        assert json.loads(text.splitlines()[-1]) == pytest.approx(expected, rel=1e-6)


def test_the_plain_metric_takes_no_options_of_torchmetrics() -> None:
    with pytest.raises(TypeError, match="'sync_on_compute'"):
        PlainMetric(sync_on_compute=False)


def test_a_border_does_not_depend_on_how_pictures_fall_into_batches() -> None:
    dark = digits(2)
    bright = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    both, model = torch.cat([dark, bright]), network()
    expected = read(secli.measure(model, both, factors=[0.8], taps=["encoder"]))
    error = secli.ScaleEquivariance([0.8], taps=["encoder"], on_black=False)
    for batch in (dark, bright):
        error.update(model, batch)
    same(error.compute(), expected)


def test_normalisation_is_no_part_of_the_metric_and_comes_back_as_it_was() -> None:
    normalise = nn.BatchNorm2d(1).train()
    before = {name: value.clone() for name, value in normalise.state_dict().items()}
    error = secli.ScaleEquivariance([0.8], taps=["encoder"], normalise=normalise)
    error.update(network(), digits())
    assert normalise.training
    assert all(torch.equal(value, before[name]) for name, value in normalise.state_dict().items())
    if isinstance(error, nn.Module):
        assert not error.state_dict()
        assert not list(error.parameters())


def test_near_factors_have_names_of_their_own() -> None:
    error = secli.ScaleEquivariance([0.7, 0.702, 0.7004], taps=["encoder"])
    error.update(network(), digits())
    assert list(error.compute()) == ["encoder@0.7", "encoder@0.702", "encoder@0.7004"]
