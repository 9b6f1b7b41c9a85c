"""Names of runs, batches of an epoch, and the checks before a run starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from secli.config import ModelSettings, TrainingSettings
from secli.datasets.store import ScaleDataset
from secli.errors import InputError
from secli.models.building import build
from secli.training.devices import on_this_machine
from secli.training.plan import batch_bounds, build_for, default_training, model_info, resolve, run_directory

Quick = Callable[..., TrainingSettings]
CNN = ModelSettings(name="cnn")


def name_of(dataset: ScaleDataset, training: TrainingSettings, model: ModelSettings = CNN) -> str:
    path = run_directory(Path("runs"), model.name, dataset, resolve(model, training))
    assert path.parent == Path("runs/cnn")
    return path.name


def test_a_run_is_named_by_dataset_realisation_and_seed(tiny: ScaleDataset) -> None:
    usual = default_training("cnn")
    assert name_of(tiny, usual) == f"{tiny.name}-r0-s0"
    elsewhere = usual.model_copy(update={"seed": 7, "device": "cpu", "devices": 2, "threads": 3})
    assert name_of(tiny, elsewhere) == f"{tiny.name}-r0-s7"


def test_whatever_differs_from_the_defaults_gives_a_name_of_its_own(tiny: ScaleDataset) -> None:
    usual = default_training("cnn")
    names = [
        name_of(tiny, usual),
        name_of(tiny, usual.model_copy(update={"epochs": 3})),
        name_of(tiny, usual.model_copy(update={"augment": "scale"})),
        name_of(tiny, usual, ModelSettings(name="cnn", options={"in_channels": 3})),
    ]
    assert len(set(names)) == 4
    assert all(len(name) == len(names[0]) + 9 for name in names[1:])
    default = ModelSettings(name="cnn", options={"in_channels": 1})
    assert name_of(tiny, usual, default) == names[0]


@given(st.integers(1, 500), st.integers(1, 64), st.integers(1, 8))
def test_batches_cover_the_epoch_and_none_is_too_small(images: int, batch: int, least: int) -> None:
    assume(images >= least <= batch)
    bounds = batch_bounds(images, batch, least)
    assert [start for start, _ in bounds] == [0, *(end for _, end in bounds[:-1])]
    assert bounds[-1][1] == images
    sizes = [end - start for start, end in bounds]
    assert all(size == batch for size in sizes[:-1])
    assert least <= sizes[-1] < batch + least


def test_a_dataset_that_does_not_fit_says_which_option_to_set(
    tiny: ScaleDataset, quick: Quick, variant: Callable[..., ScaleDataset]
) -> None:
    colour = variant("colour", colour=True)
    with pytest.raises(
        InputError, match=r"colour/r0: images of 3 channels, .* add --set model.in_channels=3"
    ):
        build_for(colour, resolve(CNN, quick()))
    build_for(colour, resolve(ModelSettings(name="cnn", options={"in_channels": 3}), quick()))
    with pytest.raises(InputError, match=r"10 classes, but model cnn takes 7; add --set model.classes=10"):
        build_for(tiny, resolve(ModelSettings(name="cnn", options={"classes": 7}), quick()))


@pytest.mark.parametrize(("batch", "devices", "least"), [(1, 1, 2), (3, 2, 4)])
def test_a_batch_that_starves_the_batch_norm_is_refused(
    tiny: ScaleDataset, quick: Quick, batch: int, devices: int, least: int
) -> None:
    with pytest.raises(InputError, match=f"training.batch = {batch}: at least {least} images"):
        build_for(tiny, resolve(CNN, quick(batch=batch, devices=devices)))


def test_the_machine_is_resolved_and_recorded(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("secli.training.devices.cores", lambda: 6)
    resolved = on_this_machine(quick(device="auto", threads=0))
    assert (resolved.device, resolved.threads) == ("cpu", 6)
    assert on_this_machine(quick(threads=2)).threads == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, "--device cuda: torch finds no CUDA device here"),
        ({"device": "mps"}, "--device mps: torch finds no Metal device here"),
        ({"devices": 1000}, "--devices 1000: this machine has"),
        ({"precision": "16"}, "--precision 16: needs a CUDA device; on cpu use 32 or bf16"),
        ({"precision": "tf32"}, "--precision tf32: needs a CUDA device"),
    ],
)
def test_what_the_machine_lacks_is_refused(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], message: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        on_this_machine(quick(**changes))


def test_nesterov_without_momentum_is_refused(quick: Quick) -> None:
    with pytest.raises(InputError, match=r"training.nesterov = True: needs training.momentum greater than 0"):
        resolve(CNN, quick(nesterov=True, momentum=0.0))


def test_the_record_says_which_options_are_not_the_registry_s() -> None:
    chosen = resolve(ModelSettings(name="dss_v1", options={"channels": 4}), TrainingSettings())
    info = model_info(chosen, build("dss_v1", {"channels": 4}))
    assert info.changed == {"channels": 16}
    assert info.options["channels"] == 4
    assert model_info(resolve(ModelSettings(name="cnn"), TrainingSettings()), build("cnn")).changed == {}
