from __future__ import annotations

import json
from statistics import median

import pytest
import torch
from typer.testing import CliRunner

from secli.bench import networks, peak_memory
from secli.bench.networks import measure_speed
from secli.bench.peak_memory import Step
from secli.bench.timing import NOISE, TimedNetwork, spread
from secli.cli.app import app
from secli.models.flops import flops

runner = CliRunner()


def test_every_network_and_mode_is_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of our own: seconds per pass 1, 2, 3, … in the order in which they were asked for."""
    asked: list[tuple[str, str, int]] = []

    def seconds(self: TimedNetwork, mode: str, passes: int) -> float:
        asked.append((self.name, mode, passes))
        return float(len(asked))

    monkeypatch.setattr(TimedNetwork, "seconds", seconds)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(TimedNetwork, "flops", lambda *_: 40.0)
    monkeypatch.setattr(networks._Roof, "rate", lambda *_: 1000.0)
    found = measure_speed(
        ["cnn", "dcn"], batch=4, repeats=3, seconds=8.0, on_progress=lambda *at: told.append(at)
    )
    pairs = [("cnn", "train"), ("cnn", "eval"), ("dcn", "train"), ("dcn", "eval")]
    # each is warmed, then timed once: 8 s hold 4 passes of 2 s, 2 of 4 s, 2 of 6 s, one of 8 s
    warm = [(*pair, 1) for pair in pairs for _ in range(2)]
    turn = [(*pair, passes) for pair, passes in zip(pairs, (4, 2, 2, 1), strict=True)]
    assert asked == warm + 3 * turn
    first = [4 * 4 / 9, 4 * 4 / 13, 4 * 4 / 17]
    assert found[0].images_per_second == median(first)
    assert (found[0].low, found[0].high) == (min(first), max(first))
    assert [(each.model, each.mode) for each in found] == pairs
    assert found[0].input == (1, 28, 28)
    assert found[0].flops_per_second == median(first) * 10
    assert found[0].of_roof == median(first) / 100
    assert found[0].vs_literal is None
    assert told[-1] == (16, 16)


def test_a_training_step_is_whole_but_leaves_the_weights() -> None:
    subject = TimedNetwork("mnist_cnn_28", 4, "cpu", 32)
    before = [parameter.clone() for parameter in subject.model.parameters()]
    assert subject.seconds("train", 2) > 0
    assert subject.images.shape == (4, 1, 32, 32)
    assert all(parameter.grad is not None for parameter in subject.model.parameters())
    assert len(subject.optimizer.state) == len(before)
    assert all(torch.equal(a, b) for a, b in zip(before, subject.model.parameters(), strict=True))
    assert subject.model.training
    subject.seconds("eval", 1)
    assert not subject.model.training


def test_speeds_come_from_the_clock() -> None:
    for found in measure_speed(["mnist_cnn_28"], batch=8, repeats=3, seconds=0.02):
        assert 0 < found.low <= found.images_per_second <= found.high


def test_a_literal_form_takes_its_turn_and_its_ratio_is_that_of_the_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([9.0] * 4 + [1.0, 3.0, 2.0, 4.0, 1.0, 5.0])
    monkeypatch.setattr(TimedNetwork, "seconds", lambda *_: next(clock))
    (found,) = measure_speed(["mnist_ses_scalar_28"], ["eval"], batch=2, repeats=3, seconds=1.0)
    assert (found.vs_literal_low, found.vs_literal, found.vs_literal_high) == (2.0, 3.0, 5.0)
    assert found.images_per_second == 2.0


def test_float32_takes_its_turn_beside_another_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    clock = iter([9.0] * 4 + [1.0, 3.0, 2.0, 4.0, 1.0, 5.0])

    def seconds(self: TimedNetwork, *_: object) -> float:
        turns.append(self.precision)
        return next(clock)

    monkeypatch.setattr(TimedNetwork, "seconds", seconds)
    (found,) = measure_speed(["cnn"], ["train"], batch=2, repeats=3, seconds=1.0, precision="bf16")
    assert turns[4:] == ["bf16", "32"] * 3
    assert (found.vs_float32_low, found.vs_float32, found.vs_float32_high) == (2.0, 3.0, 5.0)
    assert (found.precision, found.images_per_second, found.vs_literal) == ("bf16", 2.0, None)


def test_a_subject_in_float32_is_one_apart() -> None:
    subject = TimedNetwork("mnist_cnn_28", 2, "cpu", None, "bf16")
    other = subject.in_float32()
    assert other is not None
    assert other.in_float32() is None
    seen: dict[str, torch.dtype] = {}
    for each in (subject, other):
        each.model.register_forward_hook(lambda _, __, y, name=each.precision: seen.update({name: y.dtype}))
        each.seconds("train", 1)
    assert seen == {"bf16": torch.bfloat16, "32": torch.float32}
    # weights and what the optimiser keeps are in float32 either way
    for each in (subject, other):
        assert {p.dtype for p in each.model.parameters()} == {torch.float32}
        assert {v.dtype for s in each.optimizer.state.values() for v in s.values()} == {torch.float32}
    mine, theirs = ({id(p) for p in each.model.parameters()} for each in (subject, other))
    assert not mine & theirs


def test_tf32_is_on_for_its_own_turns_only(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = TimedNetwork("mnist_cnn_28", 2, "cpu", None, "tf32")
    other = subject.in_float32()
    assert other is not None
    before = torch.backends.cudnn.allow_tf32
    seen: list[tuple[str, bool]] = []

    def run(self: TimedNetwork, _: str) -> None:
        seen.append((self.precision, torch.backends.cudnn.allow_tf32))

    monkeypatch.setattr(TimedNetwork, "run", run)
    for each in (subject, other):
        each.seconds("eval", 1)
    assert seen == [("tf32", True), ("32", False)]
    assert torch.backends.cudnn.allow_tf32 == before


def test_operations_are_those_of_the_whole_pass() -> None:
    subject = TimedNetwork("mnist_cnn_28", 3, "cpu", None)
    forward = subject.flops("eval")
    assert forward == flops(subject.model, subject.images)
    # two more of each layer, save the gradient with respect to the pictures
    assert 2.5 * forward < subject.flops("train") < 3 * forward


def test_a_busy_machine_is_told_from_a_quiet_one() -> None:
    assert spread([100.0, 101, 102, 103, 60]) < NOISE  # one repeat alone says nothing
    assert spread([100.0, 130, 70, 160, 99]) > NOISE
    assert spread([7.0]) == 0


def test_the_peak_of_a_step_grows_with_the_batch() -> None:
    small, large = (peak_memory.peak_memory(Step("cnn", batch, "cpu", None, "32", 1)) for batch in (8, 512))
    assert small is not None
    assert large is not None
    assert large > small + 20  # the first convolution alone keeps 24 MiB more
    assert peak_memory.peak_memory(Step("cnn", 2, "cpu", None, "32", 1, literal=True)) is None


def test_the_command_prints_rows_with_machine_and_command() -> None:
    arguments = [
        "bench",
        "cnn",
        "mnist_ses_scalar_28",
        "--batch",
        "2",
        "--repeats",
        "1",
        "--threads",
        "1",
        "-q",
    ]
    result = runner.invoke(app, [*arguments, "--eval", "--precision", "bf16", "--format", "json"])
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [(row["model"], row["mode"]) for row in rows] == [("cnn", "eval"), ("mnist_ses_scalar_28", "eval")]
    assert list(rows[0]) == [
        "model", "mode", "images_per_second", "low", "high", "repeats", "batch", "input", "precision",
        "flops_per_second", "of_roof", "vs_literal", "vs_literal_low", "vs_literal_high",
        "vs_float32", "vs_float32_low", "vs_float32_high", "noisy",
        "peak_memory_mib", "memory_vs_literal", "device", "threads", "torch", "command",
    ]  # fmt: skip
    assert rows[0]["vs_literal"] is None
    assert rows[1]["vs_literal"] > 0
    assert rows[1]["precision"] == "bf16"
    assert rows[1]["vs_float32_low"] == rows[1]["vs_float32"] > 0
    assert rows[1]["peak_memory_mib"] is None
    table = runner.invoke(
        app, [*arguments, "--train", "--no-memory", "--no-literal"], env={"COLUMNS": "120"}
    ).stdout
    assert "1 thread, batch 2, 1 repeat, precision 32" in table
    assert table.splitlines()[-4].split()[:3] == ["model", "mode", "images/s"]
    assert [line.split()[:2] for line in table.splitlines()[-2:]] == [
        ["cnn", "train"],
        ["mnist_ses_scalar_28", "train"],
    ]


def test_peaks_stand_in_the_rows_and_noise_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {False: 30.0, True: 60.0}
    monkeypatch.setattr(peak_memory, "peak_memory", lambda step: peaks[step.literal])
    monkeypatch.setattr(networks, "spread", lambda _: 0.3)
    arguments = ["bench", "mnist_ses_scalar_28", "--batch", "2", "--repeats", "1", "--threads", "1", "-q"]
    result = runner.invoke(app, [*arguments, "--format", "json"])
    train, evaluate = json.loads(result.stdout)
    assert (train["peak_memory_mib"], train["memory_vs_literal"]) == (30.0, 0.5)
    assert (evaluate["peak_memory_mib"], evaluate["memory_vs_literal"]) == (None, None)
    assert "differ too much to decide (mnist_ses_scalar_28 train, mnist_ses_scalar_28 eval)" in result.stderr


def test_making_data_is_timed() -> None:
    result = runner.invoke(app, ["bench", "--data", "--dataset", "digits", "--format", "json", "-q"])
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)
    assert (row["data"], row["realisations"], row["images"]) == ("digits", 6, 6 * 1797)
    assert row["images_per_second"] == pytest.approx(row["images"] / row["seconds"])
    table = runner.invoke(app, ["bench", "--data", "--dataset", "digits", "-q"]).stdout
    assert "digits, 6 realisations, 10782 images:" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the networks to time (see 'secli models'), or give --all, --equivariance MODEL or --data"),
        (["dss_v1x"], "unknown model 'dss_v1x'; did you mean 'dss_v1'?"),
        (
            ["cnn", "--data"],
            "--data times no networks in training or evaluation; it goes with --dataset, --source, --repeats",
        ),
        (
            ["cnn", "--precision", "tf32", "--device", "cpu"],
            "--precision tf32: needs a CUDA device; on cpu use 32 or bf16",
        ),
        (
            ["--data", "--dataset", "mnist-scales"],
            "unknown dataset 'mnist-scales'; did you mean 'mnist-scale'?",
        ),
        (["cnn", "--format", "csv"], "unknown format --format 'csv'; known: json, table"),
        (
            ["cnn", "--equivariance", "cnn"],
            "--equivariance times no networks in training or evaluation; it goes with --images, --factors, --repeats, "
            "--batch",
        ),
        (
            ["--forms", "--replicas", "2"],
            "--forms and --replicas exclude each other: each times something else",
        ),
        (
            ["--data", "--equivariance", "cnn", "--replicas", "2"],
            "--replicas and --equivariance and --data exclude each other: each times something else",
        ),
        (["cnn", "--replicas", "2", "--eval"], "--replicas times training steps; leave out --eval"),
        (["cnn", "--export-png"], "--export-png goes with --data"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["bench", *arguments])
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {message}\n")
