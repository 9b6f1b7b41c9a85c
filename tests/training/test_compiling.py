"""A compiled network trains, is saved and resumed under the plain one's names; what is missing is said in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from secli.config import ModelSettings, TrainingSettings
from secli.datasets.store import ScaleDataset
from secli.errors import InputError, SecliError
from secli.models.building import build
from secli.training import compiling
from secli.training.compiling import check_compiler, compiler_failure
from secli.training.devices import on_this_machine
from secli.training.events import silent
from secli.training.fit import Job
from secli.training.launch import launch
from secli.training.plan import resolve

CNN = ModelSettings(name="cnn")

PROGRAM = """
import signal
import sys
from functools import partial
from pathlib import Path
import torch
from secli.config import ModelSettings, TrainingSettings
from secli.datasets import loading
from secli.datasets.store import open_dataset
from secli.errors import InterruptedRunError
from secli.training import compiling, evaluate, fit
from secli.training.events import EpochEnded
from secli.training.plan import default_training
from secli.training.run import load_run, train

backend, name, data, out = sys.argv[1], sys.argv[2], open_dataset(Path(sys.argv[3])), Path(sys.argv[4])
if backend != "inductor":
    compiling.BACKEND = backend
    compiling.check_compiler = lambda device: None
# in float64, where the orders of a sum still agree after eight steps
torch.set_default_dtype(torch.float64)
for module in (fit, evaluate):
    module.pixels = partial(loading.pixels, dtype=torch.float64)
traced = []
wrapped = compiling.torch.compile

def counted(*arguments, **options):
    traced.append(options["backend"])
    return wrapped(*arguments, **options)

compiling.torch.compile = counted
import secli.training.devices
secli.training.devices.check_compiler = compiling.check_compiler
usual = default_training(name).model_dump()
usual |= {"epochs": 2, "batch": 16, "device": "cpu", "threads": 1}
compiled, plain = (TrainingSettings(**usual | {"compile": on}) for on in (True, False))
model = ModelSettings(name=name)
steps = torch._dynamo.utils.counters["stats"]

def weights(run):
    return {key: value.clone() for key, value in load_run(run)[0].state_dict().items()}

def interrupt(event):
    if isinstance(event, EpochEnded) and event.epoch == 1:
        signal.raise_signal(signal.SIGINT)

ordinary, _ = train(model, data, plain, out / "plain")
assert not traced and not steps["unique_graphs"]
one, record = train(model, data, compiled, out / "one")
assert traced == [backend, backend], traced  # Fabric compiles once more what it has wrapped
assert steps["unique_graphs"] == 2, steps  # batches of 16 and of 17 images
assert record.training["compile"] is True
assert one.name != ordinary.name
expected, found = weights(ordinary), weights(one)
assert expected.keys() == found.keys()
for key, value in expected.items():
    torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-9)
try:
    train(model, data, compiled, out / "two", on_event=interrupt)
    raise SystemExit("not interrupted")
except InterruptedRunError:
    pass
two, _ = train(model, data, compiled, out / "two", resume=True)
for key, value in weights(two).items():
    assert torch.equal(value, found[key]), key
"""


def run_compiled(backend: str, name: str, data: ScaleDataset, out: Path) -> None:
    """In a process of its own, without the shape hook, which is not part of a network."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, backend, name, str(data.path), str(out)],
        env={**os.environ, "SECLI_SHAPE_HOOK": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""


def test_a_compiled_network_trains_and_resumes_under_the_plain_ones_names(
    tiny: ScaleDataset, tmp_path: Path
) -> None:
    run_compiled("eager", "cnn", tiny, tmp_path)  # the layers are traced ahead of time in their own tests


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "mnist_ses_vector_28"])
def test_so_it_does_with_the_real_backend(tiny: ScaleDataset, tmp_path: Path, name: str) -> None:
    run_compiled("inductor", name, tiny, tmp_path)


@pytest.mark.parametrize(("device", "mode"), [("cpu", "default"), ("cuda", "reduce-overhead")])
def test_on_cuda_graphs_are_replayed(monkeypatch: pytest.MonkeyPatch, device: str, mode: str) -> None:
    asked: dict[str, object] = {}

    def compile(network: torch.nn.Module, **options: object) -> torch.nn.Module:
        asked.update(options)
        return network

    monkeypatch.setattr("torch.compile", compile)
    compiling.compiled(build("cnn"), torch.device(device))
    assert asked == {"backend": "inductor", "mode": mode, "dynamic": False}


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings(compile=True, device="cpu")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"--compile: torch needs a C\+\+ compiler .*or leave out --compile"):
        on_this_machine(settings)
    on_this_machine(settings.model_copy(update={"compile": False}))
    monkeypatch.setenv("CXX", sys.executable)  # something that is there
    on_this_machine(settings)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"torch needs a C\+\+ compiler"):
        on_this_machine(settings)
    with pytest.raises(InputError, match="torch needs the package triton and a C compiler"):
        check_compiler("cuda")
    with pytest.raises(InputError, match="works on cpu and cuda, not on mps"):
        check_compiler("mps")


def test_a_compiler_that_fails_ends_the_run_in_one_line(
    tiny: ScaleDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainingSettings(compile=True, device="cpu", threads=1)

    def fail(*arguments: object) -> None:
        raise torch._dynamo.exc.InternalTorchDynamoError("unheard of\n\nfrom user code: ...")

    monkeypatch.setattr("secli.training.launch._alone", fail)
    job = Job(tmp_path, None, tiny, settings, resume=False)  # type: ignore[arg-type]
    with pytest.raises(SecliError, match=r"^--compile: unheard of; leave out --compile$") as caught:
        launch(job, silent)
    assert caught.value.exit_code == 1
    assert compiler_failure(RuntimeError("else")) is None


def test_on_several_devices_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"training\.compile: works on one device, not on 2"):
        resolve(CNN, TrainingSettings(compile=True, devices=2))


@pytest.mark.parametrize(
    ("device", "parts", "mode"),
    [("cuda", 1, "reduce-overhead"), ("cuda", 2, "default"), ("cpu", 1, "default"), ("cpu", 3, "default")],
)
def test_graphs_are_replayed_on_cuda_for_whole_batches_only(
    monkeypatch: pytest.MonkeyPatch, device: str, parts: int, mode: str
) -> None:
    """A replayed graph would write over the gradients of the part before."""
    asked: list[str] = []

    def compile(network: torch.nn.Module, mode: str, **how: object) -> torch.nn.Module:
        asked.append(mode)
        return network

    monkeypatch.setattr("torch.compile", compile)
    compiling.compiled(torch.nn.Linear(1, 1), torch.device(device), parts)
    assert asked == [mode]
