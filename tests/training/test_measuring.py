"""What is measured between the epochs of a training changes nothing of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from secli.config import MeasureSettings, ModelSettings, TrainingSettings
from secli.datasets.loading import to_device
from secli.datasets.store import ScaleDataset
from secli.equivariance.measure import measure
from secli.equivariance.while_training import EpochMeasure
from secli.errors import InputError, InterruptedRunError
from secli.records.epochs import METRICS_FILE, read_epochs
from secli.training.events import EpochEnded, Event, Remark
from secli.training.load import load_model
from secli.training.run import train

Quick = Callable[..., TrainingSettings]
Digest = Callable[[Path], str]


def of(dataset: ScaleDataset, every: int = 1, **settings: object) -> EpochMeasure:
    images, labels = to_device(dataset.split("val"))
    chosen = MeasureSettings.model_validate({"factors": (0.8, 0.5), "images": 10, **settings})
    return EpochMeasure(every, images, labels, chosen)


@pytest.mark.parametrize(
    "model", [ModelSettings(name="cnn"), ModelSettings(name="mnist_ses_scalar_28", options={"dropout": 0.7})]
)
def test_the_weights_are_the_same_with_and_without(
    tiny: ScaleDataset, quick: Quick, digest: Digest, tmp_path: Path, model: ModelSettings
) -> None:
    settings = quick(augment="scale")
    plain, _ = train(model, tiny, settings, tmp_path / "plain")
    measured, _ = train(model, tiny, settings, tmp_path / "measured", measure=of(tiny))
    assert plain.name == measured.name
    assert digest(plain) == digest(measured)
    assert read_epochs(plain) == []
    assert [one.epoch for one in read_epochs(measured)] == [1, 2]


def test_a_reading_is_what_the_measure_reads(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> None:
    run, _ = train(ModelSettings(name="cnn"), tiny, quick(epochs=1), tmp_path, measure=of(tiny))
    (read,) = read_epochs(run)
    images, labels = to_device(tiny.split("val"))
    frame = measure(load_model(run), images[:10], factors=[0.8, 0.5], labels=labels[:10])
    expected = {(row.tap, row.factor): row.mean for row in frame.itertuples()}
    assert {(row.tap, row.factor) for row in read.reading.rows} == set(expected)
    for row in read.reading.rows:
        value = expected[row.tap, row.factor]
        if row.mean is None:
            assert row.reason is not None
        else:
            assert row.mean == pytest.approx(value, rel=1e-4)
    assert [row.accuracy for row in read.reading.accuracy] == [
        row["accuracy"] for row in frame.attrs["accuracy"]
    ]
    assert read.reading.images == 10


def test_every_second_epoch_and_over_an_interruption(
    tiny: ScaleDataset, quick: Quick, digest: Digest, tmp_path: Path
) -> None:
    model, settings = ModelSettings(name="cnn"), quick(epochs=5)
    whole, _ = train(model, tiny, settings, tmp_path / "whole", measure=of(tiny, 2, taps=("block1",)))
    sent = False

    def interrupt(event: Event) -> None:
        nonlocal sent
        if isinstance(event, EpochEnded) and event.epoch == 3 and not sent:
            sent = True
            signal.raise_signal(signal.SIGINT)

    halves = tmp_path / "halves"
    with pytest.raises(InterruptedRunError):
        train(model, tiny, settings, halves, on_event=interrupt, measure=of(tiny, 2, taps=("block1",)))
    again, _ = train(model, tiny, settings, halves, resume=True, measure=of(tiny, 2, taps=("block1",)))
    assert digest(again) == digest(whole)
    rows = [[(one.epoch, one.reading.rows) for one in read_epochs(run)] for run in (whole, again)]
    assert rows[0] == rows[1]
    assert [epoch for epoch, _ in rows[0]] == [2, 4]


def test_gradients_and_random_numbers_are_left() -> None:
    from secli.models.building import build

    network = build("cnn", {}, seed=0)
    network.train()
    network(torch.rand(2, 1, 28, 28)).sum().backward()
    gradients = [None if one.grad is None else one.grad.clone() for one in network.parameters()]
    state = torch.get_rng_state()
    measure_of = EpochMeasure(
        1,
        torch.zeros(2, 1, 28, 28, dtype=torch.uint8),
        torch.zeros(2, dtype=torch.int64),
        MeasureSettings(factors=(0.5,), images=2),
    )
    assert measure_of.after(1, network) is not None
    assert network.training
    assert torch.equal(state, torch.get_rng_state())
    for before, parameter in zip(gradients, network.parameters(), strict=True):
        assert before is None or torch.equal(before, parameter.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "not JSON",
        "[]",
        "null",
        '{"epoch": 0, "equivariance": {}}',
        '{"epoch": 1, "equivariance": {"images": 1}}',
        '{"epoch": 1, "equivariance": ' + "[" * 2000 + "]" * 2000 + "}",
        '{"epoch": 1}',
        '{"epoch": 1, "equivariance": {"images": 1, "seconds": 1, "rows": [{"tap": "a", "factor": 1, "mean": NaN}], '
        '"accuracy": []}}',
    ],
)
def test_damaged_lines_hold_no_reading(tmp_path: Path, line: str) -> None:
    good = {"images": 1, "seconds": 1.0, "rows": [], "accuracy": []}
    text = f"{line}\n" + json.dumps({"epoch": 2, "train_loss": 1.0, "equivariance": good}) + "\n"
    (tmp_path / METRICS_FILE).write_text(text)
    assert [one.epoch for one in read_epochs(tmp_path)] == [2]
    assert read_epochs(tmp_path / "nowhere") == []


def test_a_reading_that_fails_is_told_and_costs_no_epoch(
    tiny: ScaleDataset, quick: Quick, digest: Digest, tmp_path: Path
) -> None:
    class Failing:
        def after(self, epoch: int, network: object) -> None:
            raise InputError("it cannot be measured")

    told: list[Event] = []
    model = ModelSettings(name="cnn")
    plain, _ = train(model, tiny, quick(), tmp_path / "plain")
    run, record = train(model, tiny, quick(), tmp_path, measure=Failing(), on_event=told.append)
    assert record.status == "finished"
    assert digest(run) == digest(plain)
    texts = [event.text for event in told if isinstance(event, Remark)]
    assert texts == [f"nothing measured after epoch {k}: it cannot be measured" for k in (1, 2)]


def test_several_processes_are_measured_by_the_first_and_wait_for_nothing(
    tiny: ScaleDataset, quick: Quick, digest: Digest, tmp_path: Path
) -> None:
    model, settings = ModelSettings(name="cnn"), quick(epochs=2, devices=2, threads=2)
    plain, _ = train(model, tiny, settings, tmp_path / "plain")
    run, _ = train(model, tiny, settings, tmp_path / "measured", measure=of(tiny, taps=("block1",)))
    assert digest(run) == digest(plain)
    assert [one.epoch for one in read_epochs(run)] == [1, 2]
