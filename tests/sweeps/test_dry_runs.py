"""Dry runs of the files in configs/: nothing real is built, little memory is taken, and too many runs are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner

from secli.cli.app import app
from secli.layers import disco_fit
from secli.sweeps import cpu_rates as rates_room
from secli.sweeps.cpu_rates import Rates, measured_rates
from secli.sweeps.estimate import distinct, estimate, protocol_sizes
from secli.sweeps.plan import plan
from secli.sweeps.spec import MOST_RUNS, read_sweep

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    file for file in (ROOT / "configs").glob("*.yaml") if "about:" in file.read_text(encoding="utf-8")
)
RATES = Rates(8e10, 1.5e9, 1.3e10, 3.5e9)
TINY: dict[str, Any] = {
    "name": "tiny",
    "about": "a trial",
    "models": [{"name": "cnn", "options": {"widths": [2, 2, 2, 2]}}],
    "datasets": [{"name": "digits-scale", "sizes": [64, 20, 30]}],
    "training": {"epochs": 2, "batch": 16, "device": "cpu", "milestones": []},
}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def swept(*arguments: str, **keys: Any) -> Any:
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY | keys))
    return CliRunner().invoke(app, ["sweep", "tiny.yaml", "--dry-run", *arguments])


# under the run-time checks of types a count takes many times as long: the others are slow, and the largest is planned
# in a process of its own below
FILES = [
    pytest.param(file, id=file.stem, marks=[] if file.stem == "quick" else [pytest.mark.slow])
    for file in CONFIGS
]


@pytest.mark.parametrize("file", FILES)
def test_every_file_plans_without_a_weight_and_without_a_fit(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("real work")

    largest = 0
    register = nn.Module.register_parameter

    def watched(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal largest
        if isinstance(parameter, Tensor) and not parameter.is_meta:
            largest = max(largest, parameter.numel())
        register(module, name, parameter)

    monkeypatch.setattr(nn.Module, "register_parameter", watched)
    monkeypatch.setattr(disco_fit, "fit_proxies", refuse)
    monkeypatch.setattr("secli.layers.disco.fit_proxies", refuse)
    monkeypatch.setattr("secli.sweeps.operation_counts.build", refuse)
    runs = plan(read_sweep(file))
    estimates = estimate(runs, protocol_sizes, {}, {1: RATES})
    assert largest == 0
    assert all(each.seconds and each.memory for each in estimates)
    assert distinct(runs) < len(runs)
    # a second call has nothing left to count
    monkeypatch.setattr("secli.sweeps.operation_counts.outline", refuse)
    assert estimate(runs, protocol_sizes, {}, {1: RATES}) == estimates


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_the_largest_file_takes_less_than_a_gibibyte() -> None:
    """The peak of a process of its own, but for the libraries' files, of which each system maps another share.

    Training steps of these networks take 40 GiB.
    """
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from secli.cli.app import app\n"
        "try:\n"
        "    app(['sweep', sys.argv[1], '--dry-run', '--format', 'json'])\n"
        "finally:\n"
        "    # not getrusage: what it says begins with the peak of the process that started this one\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    kib = {line.split()[0]: int(line.split()[1]) for line in lines if line.startswith(('VmHWM', 'RssFile'))}\n"
        "    print(kib['VmHWM:'] - kib['RssFile:'], file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script, str(ROOT / "configs/stl10.yaml")]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 60
    assert 100 * 2**10 < int(done.stderr.split()[-1]) < 700 * 2**10  # KiB


def test_the_plan_says_on_what_it_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_room, "measured_rates", lambda threads: RATES)
    for columns in (80, 160):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = swept(
            "--threads", "1", grid={"training.lr": [0.1, 0.01], "model.widths": [[2] * 4, [3] * 4]}
        ).stdout
        words = " ".join(text.split())
        assert "counted from the shapes of 2 networks that differ (no step was run)" in words
        assert "measured just now: with 1 thread 80 GFLOP/s in convolutions" in words
        assert "3.5 GB/s in all else" in words
        assert "Half or twice the time is possible" in words
        paragraphs = text.split("\n\n")[1:]
        assert len(paragraphs) == 2
        assert all(len(line) <= columns for part in paragraphs for line in part.splitlines())
    content = json.loads(swept("--format", "json").stdout)
    assert content["estimate"]["basis"] == {
        "networks_counted": 1,
        "runs_from_finished_runs": 0,
        "cpu": [
            {
                "threads": 1,
                "product_flops_per_second": RATES.products,
                "sampling_flops_per_second": RATES.samples,
                "transform_flops_per_second": RATES.transforms,
                "other_bytes_per_second": RATES.traffic,
            }
        ],
    }


def test_the_rates_of_this_machine_are_measured_with_the_threads_of_the_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[int] = []
    fastest = rates_room._fastest

    def watched(*arguments: Any) -> float:
        threads.append(torch.get_num_threads())
        return fastest(*arguments)

    monkeypatch.setattr(rates_room, "_fastest", watched)
    before = torch.get_num_threads()
    rates = measured_rates(2)
    assert threads == [2] * 4
    assert torch.get_num_threads() == before
    assert all(rate > 1e6 for rate in rates)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"seeds": "0-999999"}, "seeds = '0-999999': 1000000 numbers, at most 10000"),
        ({"seeds": "0-5999,6000-11999"}, "12000 numbers, at most 10000"),
        ({"seeds": "0-999999999999999999"}, "over a billion numbers"),
        ({"seeds": "0-99999999999999999999999"}, "write numbers as"),
        ({"seeds": "²"}, "write numbers as"),
        (
            {"seeds": "0-999", "datasets": [{"name": "digits-scale", "realisations": "0-999"}]},
            "1000000 runs before exclusions, at most 10000",
        ),
        (
            {"grid": {f"model.option{i}": list(range(10)) for i in range(40)}},
            "over a billion runs before exclusions",
        ),
        (
            {"parts": [{"tag": "a", "seeds": "0-5000"}, {"tag": "b", "seeds": "0-5000"}]},
            "10002 runs before exclusions",
        ),
    ],
)
def test_more_runs_than_can_be_planned_are_refused_before_they_are_listed(
    keys: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secli.sweeps.plan._run", lambda *_: pytest.fail("a run is resolved"))
    result = swept(**keys)
    assert result.exit_code == 2
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


def test_as_many_runs_as_may_be_are_counted_not_listed() -> None:
    Path("s.yaml").write_text(yaml.safe_dump(TINY | {"seeds": "0-9999"}))
    (part,) = read_sweep(Path("s.yaml")).parts
    assert part.count() == MOST_RUNS


def test_a_tap_that_a_network_has_not_is_refused() -> None:
    result = swept(measure={"taps": ["block1", "blcok2"]})
    assert result.exit_code == 2
    assert "model cnn: measure.taps: unknown tap 'blcok2'" in result.stderr
    assert swept(measure={"taps": ["block*"]}).exit_code == 0
