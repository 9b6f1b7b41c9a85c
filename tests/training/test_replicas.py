"""Replicas at once: each is its own single run to rounding, in what it computes and in what it writes."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from secli.config import ModelSettings, TrainingSettings
from secli.datasets.build import make_dataset
from secli.datasets.store import ScaleDataset, open_dataset
from secli.errors import HeldRunError, InputError, InterruptedRunError
from secli.layers.dropout import Streams
from secli.models.building import build
from secli.records.schema import ModelInfo, TrainingRecord, read_training_record
from secli.training.devices import make_fabric
from secli.training.epoch import image_order
from secli.training.events import Begun, EpochEnded, Event, Remark, Report, Stepped
from secli.training.fit import Job
from secli.training.plan import resolve
from secli.training.replicas import train as replicas_train
from secli.training.replicas.fit import StackedFit
from secli.training.replicas.train import NOT_BEGUN, train_replicas
from secli.training.run import Intent, train
from secli.training.run import begin as begin_run
from tests.training.test_waiting import NothingWaits

Quick = Callable[..., TrainingSettings]
Trained = Sequence[tuple[Path, TrainingRecord]]
CNN = ModelSettings(name="cnn", options={"widths": [4, 4, 8, 8]})
MNIST = ModelSettings(name="mnist_cnn_28", options={"dropout": 0.6})
FILES = ["config.yaml", "metrics.jsonl", "model.safetensors", "record.json", "state/last.pt"]


@pytest.fixture(scope="module")
def realisations(tmp_path_factory: pytest.TempPathFactory) -> list[ScaleDataset]:
    """Three small ones."""
    out = tmp_path_factory.mktemp("realisations")
    made = make_dataset("digits-scale", out, realisations=(0, 1, 2), sizes=(65, 20, 30), jobs=1)
    return [open_dataset(each.path) for each in made]


def seeds(quick: Quick, count: int = 3, **changes: Any) -> list[TrainingSettings]:
    return [quick(seed=seed, **changes) for seed in range(count)]


def singly(
    model: ModelSettings, datasets: Sequence[ScaleDataset], trainings: Sequence[TrainingSettings], out: Path
) -> Trained:
    return [train(model, *pair, out) for pair in zip(datasets, trainings, strict=True)]


def stacked(
    model: ModelSettings,
    datasets: Sequence[ScaleDataset],
    trainings: Sequence[TrainingSettings],
    out: Path,
    **how: bool,
) -> Trained:
    """Train at once, and make sure that it was at once."""

    def listen(run: Path, event: Event) -> None:
        assert not isinstance(event, Remark), event

    return train_replicas(model, datasets, trainings, out, at_once=True, on_event=listen, **how)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def farthest(some: Trained, others: Trained) -> float:
    """Return the largest difference of weights, in units of how far training has moved the tensor."""
    apart = 0.0
    for (run, _), (other, record) in zip(some, others, strict=True):
        mine, theirs = (safetensors.torch.load_file(each / "model.safetensors") for each in (run, other))
        assert mine.keys() == theirs.keys()
        start = build(record.model.name, record.model.options, seed=record.training["seed"]).state_dict()
        for name, value in theirs.items():
            # without a floor, rounding would be compared with rounding where a gradient is zero
            moved = (value - start[name]).abs().max().clamp_min(1e-8)
            apart = max(apart, float((mine[name] - value).abs().max() / moved))
    return apart


def assert_same_runs(some: Trained, others: Trained, weights: float = 1e-6) -> None:
    """Check that runs hold the same files, figures and weights."""
    for (run, record), (other, expected) in zip(some, others, strict=True):
        assert run.relative_to(run.parents[1]) == other.relative_to(other.parents[1])
        assert sorted(str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()) == FILES
        assert (run / "config.yaml").read_text() == (other / "config.yaml").read_text()
        assert read_training_record(run) == record
        assert (record.status, record.model, record.data) == ("finished", expected.model, expected.data)
        assert record.training == expected.training
        assert record.results is not None
        assert expected.results is not None
        for key in ("test_error", "test_images", "validation_error", "best_epoch", "epochs"):
            assert getattr(record.results, key) == getattr(expected.results, key), key
        for row, theirs in zip(rows(run), rows(other), strict=True):
            assert list(row) == list(theirs)
            assert row["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-9)
            assert [row[key] for key in ("epoch", "train_error", "val_error", "lr")] == [
                theirs[key] for key in ("epoch", "train_error", "val_error", "lr")
            ]
    assert farthest(some, others) < weights


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (CNN, {"augment": "scale", "lr": 1e-3}),
        (CNN, {"nesterov": True, "weight_decay": 0.01, "milestones": (1,), "lr": 1e-3}),
        (CNN, {"optimizer": "adam", "lr": 1e-4, "weight_decay": 0.01}),
        (ModelSettings(name="dss_v1"), {"lr": 1e-3}),
        (MNIST, {"lr": 1e-3, "batch": 40}),
    ],
    ids=["augmented", "nesterov", "adam", "dss", "dropout"],
)
def test_each_replica_is_its_single_run(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, model: ModelSettings, changes: dict[str, Any]
) -> None:
    trainings = seeds(quick, **changes)
    together = stacked(model, [tiny] * 3, trainings, tmp_path / "together")
    alone = singly(model, [tiny] * 3, trainings, tmp_path / "alone")
    assert_same_runs(together, alone)
    assert farthest(together[:2], alone[1:]) > 0.5  # a control: other seeds end elsewhere


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_steerable_networks_too(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> None:
    model = ModelSettings(name="mnist_ses_vector_28")
    trainings = seeds(quick, 2, lr=1e-3, epochs=1, batch=40)
    together = stacked(model, [tiny] * 2, trainings, tmp_path / "together")
    assert_same_runs(together, singly(model, [tiny] * 2, trainings, tmp_path / "alone"))


@pytest.mark.usefixtures("double")
def test_realisations_with_one_seed(realisations: list[ScaleDataset], quick: Quick, tmp_path: Path) -> None:
    trainings = [quick(augment="scale", lr=1e-3)] * 3
    together = stacked(CNN, realisations, trainings, tmp_path / "together")
    alone = singly(CNN, realisations, trainings, tmp_path / "alone")
    assert_same_runs(together, alone)
    assert [record.data.realisation for _, record in together] == [0, 1, 2]
    assert farthest(together[:2], alone[1:]) > 0.2


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("shared", ["masks", "order"])
def test_replicas_that_share_their_randomness_are_not_their_single_runs(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    trainings = seeds(quick, 2, lr=1e-3, batch=40, epochs=1)
    alone = singly(MNIST, [tiny] * 2, trainings, tmp_path / "alone")
    if shared == "masks":
        seed = Streams.seed
        monkeypatch.setattr(Streams, "seed", lambda self, seeds: seed(self, [seeds[0]] * len(seeds)))
    else:
        one_for_all = lambda count, seed, epoch: image_order(count, 0, epoch)  # noqa: E731
        monkeypatch.setattr("secli.training.loop.image_order", one_for_all)
    monkeypatch.setattr("secli.training.replicas.train.cannot_stack", lambda *_: None)  # which would see it
    together = stacked(MNIST, [tiny] * 2, trainings, tmp_path / "together")
    assert_same_runs(together[:1], alone[:1])
    assert farthest(together[1:], alone[1:]) > 0.2


@pytest.mark.usefixtures("double")
def test_without_validation_images_and_in_half_precision(
    quick: Quick, variant: Callable[..., ScaleDataset], tmp_path: Path
) -> None:
    data = variant("unvalidated", validation=False)
    trainings = seeds(quick, 2, lr=1e-3)
    together = stacked(CNN, [data] * 2, trainings, tmp_path / "together")
    assert_same_runs(together, singly(CNN, [data] * 2, trainings, tmp_path / "alone"))
    half = seeds(quick, 2, precision="bf16", epochs=1)
    for (_, record), (_, single) in zip(
        stacked(CNN, [data] * 2, half, tmp_path / "half"),
        singly(CNN, [data] * 2, half, tmp_path / "half-alone"),
        strict=True,
    ):
        assert record.training["precision"] == "bf16"
        assert record.results is not None
        assert single.results is not None
    for run in (tmp_path / "half" / "cnn").iterdir():
        ours, theirs = rows(run)[0], rows(tmp_path / "half-alone" / "cnn" / run.name)[0]
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.02)


# ---- one after the other


def test_one_after_the_other_gives_the_very_bytes_of_single_runs(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, digest: Callable[[Path], str]
) -> None:
    trainings = seeds(quick, 2, epochs=1)
    alone = singly(CNN, [tiny] * 2, trainings, tmp_path / "alone")
    events: list[Event] = []
    # the default on a CPU
    inrow = train_replicas(
        CNN, [tiny] * 2, trainings, tmp_path / "row", on_event=lambda run, event: events.append(event)
    )
    assert [digest(run) for run, _ in inrow] == [digest(run) for run, _ in alone]
    assert [type(event) for event in events if not isinstance(event, Stepped)] == [Begun, EpochEnded] * 2


def test_what_cannot_go_together_is_told_and_trained_one_after_the_other(
    tiny: ScaleDataset,
    quick: Quick,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    digest: Callable[[Path], str],
) -> None:
    trainings = seeds(quick, 2, epochs=1)
    alone = singly(CNN, [tiny] * 2, trainings, tmp_path / "alone")
    forward = torch.nn.ReLU.forward
    monkeypatch.setattr(
        torch.nn.ReLU, "forward", lambda self, x: forward(self, x) + 0 * float(x.detach().sum())
    )
    remarks: list[str] = []

    def listen(run: Path, event: Event) -> None:
        if isinstance(event, Remark):
            remarks.append(event.text)

    inrow = train_replicas(CNN, [tiny] * 2, trainings, tmp_path / "row", at_once=True, on_event=listen)
    (remark,) = remarks
    assert remark.startswith("the replicas are trained one after the other: ")
    assert ".item()" in remark
    assert [digest(run) for run, _ in inrow] == [digest(run) for run, _ in alone]


# ---- stopping, going on, failing


def stop_at(epoch: int, step: int) -> Callable[[Path, Event], None]:
    """Send one signal when all replicas have reported this step."""
    sent = False

    def listen(run: Path, event: Event) -> None:
        nonlocal sent
        if isinstance(event, Stepped) and (event.epoch, event.step) == (epoch, step) and not sent:
            sent = True
            signal.raise_signal(signal.SIGINT)

    return listen


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secli.training.loop.SECONDS_BETWEEN_REPORTS", 0.0)
    monkeypatch.setattr("secli.training.loop.SECONDS_BETWEEN_REPORTS", 0.0)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_stopped_replicas_go_on_together_and_singly(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, every_step: None, optimizer: str
) -> None:
    trainings = seeds(quick, optimizer=optimizer, lr=1e-3 if optimizer == "sgd" else 1e-5)
    undisturbed = stacked(CNN, [tiny] * 3, trainings, tmp_path / "undisturbed")
    out = tmp_path / "stopped"
    with pytest.raises(InterruptedRunError, match=r"and 2 more: stopped in epoch 2 of 2, after step 2 of 4"):
        train_replicas(CNN, [tiny] * 3, trainings, out, at_once=True, on_event=stop_at(2, 2))
    runs = [out / run.relative_to(tmp_path / "undisturbed") for run, _ in undisturbed]
    assert [read_training_record(run).status for run in runs] == ["interrupted"] * 3
    single = train(CNN, tiny, trainings[1], out, resume=True)  # one of them by itself
    begun: list[tuple[Path, int, int]] = []

    def listen(run: Path, event: Event) -> None:
        if isinstance(event, Begun):
            begun.append((run, event.epoch, event.step))

    rest = train_replicas(CNN, [tiny] * 3, trainings, out, resume=True, at_once=True, on_event=listen)
    assert begun == [(runs[0], 2, 2), (runs[2], 2, 2)]
    assert rest[1] == single
    assert_same_runs(rest, undisturbed)


@pytest.mark.usefixtures("double")
def test_replicas_go_on_together_with_what_a_single_run_left(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, every_step: None
) -> None:
    trainings = seeds(quick, 2, nesterov=True, lr=1e-3)
    out = tmp_path / "stopped"
    for training in trainings:
        listen = stop_at(1, 3)
        with pytest.raises(InterruptedRunError):
            train(CNN, tiny, training, out, on_event=lambda event, listen=listen: listen(out, event))  # type: ignore[misc]
    together = stacked(CNN, [tiny] * 2, trainings, out, resume=True)
    assert_same_runs(together, singly(CNN, [tiny] * 2, trainings, tmp_path / "alone"))


def test_stopping_one_after_the_other_leaves_the_rest_to_be_begun(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, every_step: None
) -> None:
    trainings = seeds(quick, 2, epochs=1)
    with pytest.raises(InterruptedRunError, match="and 1 more: stopped in epoch 1 of 1, after step 2 of 4"):
        train_replicas(CNN, [tiny] * 2, trainings, tmp_path, at_once=False, on_event=stop_at(1, 2))
    records = [read_training_record(run) for run in sorted((tmp_path / "cnn").iterdir())]
    assert [record.status for record in records] == ["interrupted"] * 2
    assert records[1].reason == NOT_BEGUN
    finished = train_replicas(CNN, [tiny] * 2, trainings, tmp_path, resume=True)
    assert [record.status for _, record in finished] == ["finished"] * 2


@pytest.mark.usefixtures("double")
def test_a_replica_that_diverges_fails_alone(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_step: None
) -> None:
    trainings = seeds(quick, optimizer="adam", lr=1e-4)
    alone = singly(CNN, [tiny] * 3, trainings, tmp_path / "alone")

    def poisoned(*arguments: Any, **options: Any) -> torch.nn.Module:
        network = build(*arguments, **options)
        if options["seed"] == 1:
            next(network.parameters()).data[:] = float("nan")
        return network

    monkeypatch.setattr("secli.training.replicas.train.build", poisoned)
    monkeypatch.setattr("secli.training.replicas.train.cannot_stack", lambda *_: None)
    remarks: list[Event] = []
    together = train_replicas(
        CNN,
        [tiny] * 3,
        trainings,
        tmp_path / "together",
        at_once=True,
        on_event=lambda run, event: remarks.append(event) if isinstance(event, Remark) else None,
    )
    assert [record.status for _, record in together] == ["finished", "failed", "finished"]
    run, record = together[1]
    assert str(record.reason) == "the loss is not finite at epoch 1, step 1 of 4 (learning rate 0.0001)"
    assert read_training_record(run) == record
    assert remarks == [Remark(f"{run}: {record.reason}; the other replicas go on")]
    assert_same_runs(together[::2], alone[::2])


def test_all_may_diverge(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> None:
    ended = stacked(CNN, [tiny] * 2, seeds(quick, 2, lr=1e30), tmp_path)
    assert [record.status for _, record in ended] == ["failed"] * 2
    assert all("not finite at epoch 1, step 2 of 4" in str(record.reason) for _, record in ended)


# ---- what is refused


def test_nothing_is_written_when_one_replica_is_refused(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    train(CNN, tiny, quick(seed=1, epochs=1), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    trainings = seeds(quick, epochs=1)
    with pytest.raises(InputError, match=r"s1-.*: a run exists here already; add --resume"):
        stacked(CNN, [tiny] * 3, trainings, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    forced = stacked(CNN, [tiny] * 3, trainings, tmp_path, force=True)
    assert [record.status for _, record in forced] == ["finished"] * 3


def test_what_does_not_go_together_is_refused_in_one_line(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, variant: Callable[..., ScaleDataset]
) -> None:
    def refused(datasets: list[ScaleDataset], trainings: list[TrainingSettings], message: str) -> None:
        with pytest.raises(InputError, match=message):
            stacked(CNN, datasets, trainings, tmp_path / "runs")

    pair = seeds(quick, 2)
    refused([tiny, variant("unvalidated", validation=False)], pair, "has 0 val images, but .* has 20")
    refused([tiny, variant("colour", colour=True)], pair, "has 3 channels, but .* has 1")
    refused([tiny] * 2, seeds(quick, 2, devices=2), "--replicas: works on one device; leave out --devices")
    refused([tiny] * 2, [quick()] * 2, "would be trained twice")
    with pytest.raises(ValueError, match="may differ in their seeds alone"):
        train_replicas(CNN, [tiny] * 2, [quick(), quick(lr=0.5, seed=1)], tmp_path / "runs")
    with pytest.raises(ValueError, match="2 datasets, but 1 settings"):
        train_replicas(CNN, [tiny] * 2, [quick()], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_step_does_not_wait_for_the_device(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> None:
    settings = quick(augment="scale", batch=32)
    info = ModelInfo(name="mnist_cnn_28", options=resolve(MNIST, settings).options, parameters=0)
    jobs = [Job(tmp_path, info, tiny, each, resume=False) for each in seeds(quick, 2, augment="scale")]
    networks = [build(info.name, info.options, seed=seed) for seed in range(2)]
    fit = StackedFit(make_fabric(settings), jobs, networks, lambda run, event: None, lambda: False)
    fit.stack.train()
    fit._draw()
    fit._take_step()
    with NothingWaits():
        fit._take_step()


def test_a_replica_that_cannot_begin_leaves_none_running(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process took the second directory a moment ago; the first one's record must not say "running"."""

    def begin(intent: Intent, locks: contextlib.ExitStack, report: Report) -> Job:
        if intent.training.seed == 1:
            raise HeldRunError(f"{intent.run}: another process is training here")
        return begin_run(intent, locks, report)

    monkeypatch.setattr(replicas_train, "begin", begin)
    with pytest.raises(HeldRunError, match="another process"):
        train_replicas(CNN, [tiny] * 3, seeds(quick), tmp_path)
    (run,) = (tmp_path / "cnn").iterdir()
    record = read_training_record(run)
    assert record.status == "failed"
    assert record.reason is not None
    assert "another process" in str(record.reason)
