"""The loop: repeatable, resumable at any step, leaving the process as it was."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from secli.config import ModelSettings, TrainingSettings
from secli.datasets.loading import to_device
from secli.datasets.store import ScaleDataset
from secli.errors import InterruptedRunError, SecliError
from secli.models.building import build
from secli.records.schema import read_training_record
from secli.training.evaluate import count_errors
from secli.training.events import Begun, EpochEnded, Event, Remark, Stepped
from secli.training.load import load_subject
from secli.training.run import load_run, train

Quick = Callable[..., TrainingSettings]
Digest = Callable[[Path], str]
CNN = ModelSettings(name="cnn")


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report every step, so that a test can act at any of them."""
    monkeypatch.setattr("secli.training.loop.SECONDS_BETWEEN_REPORTS", 0.0)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs that nobody disturbed stand."""
    return tmp_path_factory.mktemp("undisturbed")


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_time(run: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in metrics(run)
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    tiny: ScaleDataset, quick: Quick, digest: Digest, tmp_path: Path
) -> None:
    settings = quick(augment="scale", epochs=1)
    runs = [train(CNN, tiny, settings, tmp_path / name)[0] for name in ("a", "b")]
    torch.manual_seed(1)
    other, _ = train(CNN, tiny, quick(augment="scale", epochs=1, seed=1), tmp_path / "c")
    assert digest(runs[0]) == digest(runs[1]) != digest(other)
    plain, _ = train(CNN, tiny, quick(epochs=1), tmp_path / "d")
    assert digest(plain) != digest(runs[0])


def test_dropout_is_repeatable_too(tiny: ScaleDataset, quick: Quick, digest: Digest, tmp_path: Path) -> None:
    settings = quick(epochs=1, optimizer="adam", batch=40)
    model = ModelSettings(name="mnist_cnn_28")
    first, _ = train(model, tiny, settings, tmp_path / "a")
    torch.rand(5)
    second, _ = train(model, tiny, settings, tmp_path / "b")
    assert digest(first) == digest(second)


@pytest.mark.parametrize("moment", [(1, 1), (1, 4), (2, 3), (3, 4), "epoch 1", "epoch 3"])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    tiny: ScaleDataset,
    quick: Quick,
    digest: Digest,
    tmp_path: Path,
    reference: Path,
    every_step: None,
    moment: tuple[int, int] | str,
) -> None:
    settings = quick(epochs=3, augment="scale", optimizer="adam", milestones=(1,))
    undisturbed, _ = train(CNN, tiny, settings, reference, resume=True)
    sent = False

    def interrupt(event: Event) -> None:
        nonlocal sent
        at = isinstance(event, Stepped) and (event.epoch, event.step) == moment
        at = at or (isinstance(event, EpochEnded) and f"epoch {event.epoch}" == moment)
        if at and not sent:
            sent = True
            signal.raise_signal(signal.SIGTERM if moment == (1, 1) else signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(
        InterruptedRunError, match="the state is saved: repeat the command with --resume"
    ) as caught:
        train(CNN, tiny, settings, tmp_path, on_event=interrupt)
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    run = tmp_path / undisturbed.relative_to(reference)
    record = read_training_record(run)
    assert record.status == "interrupted"
    if isinstance(moment, tuple):
        assert str(record.reason) == f"stopped in epoch {moment[0]} of 3, after step {moment[1]} of 4"
    begun: list[Event] = []
    again, finished = train(CNN, tiny, settings, tmp_path, resume=True, on_event=begun.append)
    assert again == run
    assert finished.status == "finished"
    first = begun[0]
    assert isinstance(first, Begun)
    if isinstance(moment, tuple):
        assert (first.epoch, first.step) == moment
    assert digest(run) == digest(undisturbed)
    assert without_time(run) == without_time(undisturbed)


def test_a_second_signal_ends_at_once(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, every_step: None
) -> None:
    def twice(event: Event) -> None:
        if isinstance(event, Stepped):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(CNN, tiny, quick(), tmp_path, on_event=twice)
    (record,) = (read_training_record(run) for run in (tmp_path / "cnn").iterdir())
    assert (record.status, str(record.reason)) == ("interrupted", "ended at once by a second signal")


def test_a_loss_that_is_not_finite_ends_the_run_as_failed(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    with pytest.raises(SecliError, match=r"not finite at epoch 1, step 2 of 4 .* a lower --lr") as caught:
        train(CNN, tiny, quick(lr=1e30), tmp_path)
    assert caught.value.exit_code == 1
    (run,) = (tmp_path / "cnn").iterdir()
    record = read_training_record(run)
    assert record.status == "failed"
    assert record.results is None
    assert str(record.reason) == "the loss is not finite at epoch 1, step 2 of 4 (learning rate 1e+30)"


def test_the_first_epoch_of_the_lowest_validation_error_is_kept_and_tested(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    events: list[Event] = []
    run, record = train(CNN, tiny, quick(epochs=6, milestones=(2, 4)), tmp_path, on_event=events.append)
    rows = metrics(run)
    errors = [row["val_error"] for row in rows]
    results = record.results
    assert results is not None
    assert results.best_epoch == errors.index(min(errors)) + 1
    assert results.validation_error == min(errors)
    assert results.epochs == 6 == len(rows)
    assert [row["lr"] for row in rows] == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025])
    assert results.train_seconds == pytest.approx(sum(row["seconds"] for row in rows))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    network, _ = load_run(run)
    assert not network.training
    images, labels = to_device(tiny.split("test"))
    assert results.test_error == int(count_errors(network, images, labels, batch=7)) / 30
    assert results.test_images == 30
    ended = [event for event in events if isinstance(event, EpochEnded)]
    assert [event.epoch for event in ended if event.best][-1] == results.best_epoch


def test_without_a_validation_split_the_last_epoch_is_kept(
    quick: Quick, variant: Callable[..., ScaleDataset], tmp_path: Path
) -> None:
    run, record = train(CNN, variant("unvalidated", validation=False), quick(epochs=3), tmp_path)
    assert record.results is not None
    assert (record.results.best_epoch, record.results.validation_error) == (3, None)
    assert [row["val_error"] for row in metrics(run)] == [None] * 3


def test_torch_is_left_as_it_was(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(CNN, tiny, quick(epochs=1, threads=threads + 1), tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_form_is_allowed_and_told(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Indeterminate(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            if torch.are_deterministic_algorithms_enabled() and not (
                torch.is_deterministic_algorithms_warn_only_enabled()
            ):
                raise RuntimeError("wobble does not have a deterministic implementation. More words.")
            return gradient

    forward = torch.nn.ReLU.forward
    monkeypatch.setattr(
        torch.nn.ReLU, "forward", lambda self, value: Indeterminate.apply(forward(self, value))
    )
    events: list[Event] = []
    _, record = train(CNN, tiny, quick(epochs=1), tmp_path, on_event=events.append)
    assert record.status == "finished"
    (remark,) = (event for event in events if isinstance(event, Remark))
    assert "wobble does not have a deterministic implementation" in remark.text
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_a_full_disk_stops_the_run_cleanly_and_it_can_go_on(
    tiny: ScaleDataset,
    quick: Quick,
    digest: Digest,
    tmp_path: Path,
    reference: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = quick(epochs=3)
    undisturbed, _ = train(CNN, tiny, settings, reference, resume=True)
    write = Path.write_bytes
    states = 0

    def full(path: Path, data: Any) -> int:
        nonlocal states
        state = path.name.startswith(".last.pt")
        states += state
        if state and states == 2:
            write(path, bytes(data)[:1000])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            SecliError,
            match=r"last\.pt: no space left on device: .* needed, .*; what was saved before is kept",
        ) as caught:
            train(CNN, tiny, settings, tmp_path)
    assert caught.value.exit_code == 1
    run = tmp_path / undisturbed.relative_to(reference)
    assert (read_training_record(run).status, len(metrics(run))) == ("failed", 1)
    assert not list(run.rglob(".*"))
    train(CNN, tiny, settings, tmp_path, resume=True)
    assert digest(run) == digest(undisturbed)


def test_half_precision_trains(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> None:
    _, record = train(CNN, tiny, quick(epochs=1, precision="bf16"), tmp_path)
    assert record.results is not None
    assert record.training["precision"] == "bf16"


def test_two_processes_share_each_batch(tiny: ScaleDataset, quick: Quick, tmp_path: Path) -> None:
    events: list[Event] = []
    settings = quick(epochs=1, devices=2, threads=2)
    run, record = train(CNN, tiny, settings, tmp_path / "two", on_event=events.append)
    alone, _ = train(CNN, tiny, quick(epochs=1, threads=1), tmp_path / "one")
    assert record.status == "finished"
    assert [type(event) for event in events if not isinstance(event, Stepped)] == [Begun, EpochEnded]
    (shared,), (single,) = metrics(run), metrics(alone)
    # the batch norms see half a batch each, so the losses are near, not equal
    assert shared["train_loss"] == pytest.approx(single["train_loss"], rel=0.05)
    load_run(run)


@pytest.mark.slow
def test_two_processes_repeat_and_resume(
    tiny: ScaleDataset, quick: Quick, digest: Digest, tmp_path: Path
) -> None:
    settings = quick(epochs=40, devices=2, threads=2)
    undisturbed, _ = train(CNN, tiny, settings, tmp_path / "a")

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.epoch == 1:
            # to the process: events arrive in another thread than the one that handles signals
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        train(CNN, tiny, settings, tmp_path / "b", on_event=interrupt)
    run, _ = train(CNN, tiny, settings, tmp_path / "b", resume=True)
    assert digest(run) == digest(undisturbed)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_run_begins_with_the_weights_of_its_seed(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, seed: int
) -> None:
    still = quick(epochs=1, seed=seed, lr=1e-30, weight_decay=0.0)  # so small a rate moves no weight
    run, _ = train(CNN, tiny, still, tmp_path / "runs")
    network, record = load_run(run)
    first = build("cnn", record.model.options, seed=seed)
    for (name, kept), drawn in zip(network.named_parameters(), first.parameters(), strict=True):
        assert torch.allclose(kept, drawn, rtol=0, atol=1e-20), name


def test_fresh_weights_are_those_of_the_seed() -> None:
    networks = [load_subject("cnn", seed=seed).model for seed in (0, 0, 1)]
    first, same, other = (
        network.state_dict()["logits.classify.weight"] for network in map(as_module, networks)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def as_module(network: object) -> torch.nn.Module:
    assert isinstance(network, torch.nn.Module)
    return network
