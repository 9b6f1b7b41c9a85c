"""Rows, spreads, and what is set aside rather than averaged in silence."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secli.errors import InputError, UnknownNameError
from secli.records.schema import CURVES_FILE, RECORD_FILE, TrainingRecord, write_record
from secli.tables.groups import summarise
from secli.tables.statistic import statistic
from tests.tables.fabricate import FACTORS, curve_row, curves, data, training, write_run


def reasons(summary: Any) -> dict[str, str]:
    return {Path(one.path).name: one.reason for one in summary.set_aside}


def test_mean_and_spread_over_seeds_and_realisations(tmp_path: Path) -> None:
    errors = [0.05, 0.06, 0.08]
    draws = [(0, 0), (1, 0), (0, 1)]
    for number, (error, (seed, realisation)) in enumerate(zip(errors, draws, strict=True)):
        write_run(tmp_path / f"run{number}", training("cnn", error, seed=seed, realisation=realisation))
    (row,) = summarise([tmp_path]).rows
    assert row.n == 3
    assert row["test_error"].mean == pytest.approx(statistics.fmean(errors))
    assert row["test_error"].std == pytest.approx(statistics.stdev(errors))
    assert row.model.parameters == 34_670
    assert row["train_seconds"].mean == 100.0


def test_one_run_has_no_spread(tmp_path: Path) -> None:
    (row,) = summarise([write_run(tmp_path / "a", training())]).rows
    assert (row.n, row["test_error"].std) == (1, None)


@given(st.lists(st.floats(0, 1) | st.none() | st.just(float("nan")), max_size=6))
def test_statistic_counts_only_what_is_there(values: list[float | None]) -> None:
    there = [v for v in values if v is not None and v == v]
    found = statistic(values)
    assert found.n == len(there)
    assert (found.mean is None) == (not there)
    assert (found.std is None) == (len(there) < 2)
    if found.mean is not None:
        assert min(there) - 1e-12 <= found.mean <= max(there) + 1e-12


def wide(error: float, seed: int = 0) -> TrainingRecord:
    """A run of twice the width that the registry has."""
    record = training("cnn", error, seed=seed, options={"width": 2})
    return record.model_copy(update={"model": record.model.model_copy(update={"changed": {"width": 1}})})


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_unfinished_runs_are_listed_with_the_reason(tmp_path: Path, status: Any) -> None:
    write_run(tmp_path / "good", training())
    write_run(tmp_path / "bad", training("cnn", 0.0, seed=1, status=status, reason="loss is NaN at epoch 2"))
    summary = summarise([tmp_path])
    assert summary.rows[0].n == 1
    assert reasons(summary) == {"bad": f"{status}: loss is NaN at epoch 2"}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (training("cnn", 0.5, seed=5, epochs=2), "epochs 2, not 60; '--by model,epochs' keeps them apart"),
        (training("cnn", 0.5, seed=5, augment="scale"), "augment scale, not none"),
        (wide(0.5, seed=5), "model.width 2, not 1"),
        (training("cnn", 0.5, seed=5, dataset="fashion-scale"), "trained on fashion-scale, not mnist-scale"),
        (training("cnn", 0.5, seed=5, test_images=100), "test images 100, not 50000"),
        (training("cnn", 0.5, seed=5, digest="other"), "holds other images under the same name"),
    ],
)
def test_what_does_not_belong_is_set_aside(tmp_path: Path, other: Any, expected: str) -> None:
    write_run(tmp_path / "a", training("cnn", 0.05, seed=0))
    write_run(tmp_path / "b", training("cnn", 0.05, seed=1))
    write_run(tmp_path / "odd", other)
    summary = summarise([tmp_path])
    assert summary.rows[0].n == 2
    assert summary.rows[0]["test_error"].mean == pytest.approx(0.05)
    assert expected in reasons(summary)["odd"]


def test_the_machine_and_the_threads_may_differ(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training(seed=0, threads=1, device="cpu"))
    write_run(tmp_path / "b", training(seed=1, threads=2, device="cuda"))
    summary = summarise([tmp_path])
    assert summary.rows[0].n == 2
    assert not summary.set_aside


def test_by_keeps_groups_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training("cnn", 0.05))
    write_run(tmp_path / "b", training("cnn", 0.04, augment="scale"))
    write_run(tmp_path / "c", wide(0.03))
    assert len(summarise([tmp_path], ["augment"]).rows) == 2
    rows = summarise([tmp_path], ["augment", "model.width"]).rows
    assert [(row.by["augment"], row.by["model.width"], row.n) for row in rows] == [
        ("none", 1, 1),
        ("scale", 1, 1),
        ("none", 2, 1),
    ]


def test_by_dataset_keeps_datasets_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training("cnn", 0.05))
    write_run(tmp_path / "b", training("cnn", 0.09, dataset="fashion-scale"))
    summary = summarise([tmp_path], ["model", "dataset"])
    assert [row.data for row in summary.rows] == ["mnist-scale", "fashion-scale"]
    assert not summary.set_aside


def test_unknown_grouping_and_tap_suggest_the_near_miss(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", training(), curves())
    with pytest.raises(UnknownNameError, match="did you mean 'augment'"):
        summarise([run], ["augmnt"])
    with pytest.raises(UnknownNameError, match="did you mean 'conv1'"):
        summarise([run], tap="conv11")
    with pytest.raises(InputError, match="none of the runs was measured"):
        summarise([write_run(tmp_path / "b", training())], tap="conv1")


def test_a_run_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", training(), curves())
    shutil.copytree(run, tmp_path / "copy")
    summary = summarise([run, run, tmp_path, run / RECORD_FILE, run / CURVES_FILE, tmp_path / "copy"])
    assert summary.rows[0].n == 1
    assert not summary.set_aside


def test_a_repeated_draw_is_no_second_draw(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training("cnn", 0.05, seed=3))
    write_run(tmp_path / "b", training("cnn", 0.05, seed=3, threads=1))
    summary = summarise([tmp_path])
    assert summary.rows[0].n == 1
    assert "repeats seed 3 on r0" in reasons(summary)["b"]


def test_delta_is_the_mean_over_common_factors_at_the_deepest_spatial_tap(tmp_path: Path) -> None:
    def rows() -> list[Any]:
        found = [curve_row("conv1", f, 0.1) for f in FACTORS]
        found += [curve_row("conv2", f, 0.4 if f != 1 / 3 else 0.7) for f in FACTORS]
        found += [curve_row("conv3", f, None if f < 0.6 else 0.9) for f in FACTORS]
        return found + [curve_row("logits", f, 9.0, field="Invariant") for f in FACTORS]

    write_run(tmp_path / "a", training(), curves(rows=rows()))
    summary = summarise([tmp_path])
    (row,) = summary.rows
    assert summary.mean_factors == pytest.approx((1 / 3, 0.5, 0.8))
    assert row.tap == "conv2"
    assert row["delta"].mean == pytest.approx((0.7 + 0.4 + 0.4) / 3)
    assert {f: row[f"delta_{f}"].mean for f in summary.factors} == {0.5: 0.4, 0.8: 0.4}


def test_factors_and_tap_can_be_chosen_and_missing_values_have_a_reason(tmp_path: Path) -> None:
    rows = [
        curve_row(tap, f, None if tap == "conv2" and f < 0.6 else 0.3)
        for tap in ("conv1", "conv2")
        for f in FACTORS
    ]
    write_run(tmp_path / "a", training(), curves(rows=rows))
    summary = summarise([tmp_path], factors=[0.5, 0.8, 0.7], tap="conv2")
    (row,) = summary.rows
    assert [row[f"delta_{f}"].mean for f in (0.5, 0.8, 0.7)] == [None, 0.3, None]
    assert any("s = 0.5 for cnn: fewer than 4 cells at conv2" in note for note in summary.notes)
    assert any("s = 0.7 for cnn: not measured at conv2" in note for note in summary.notes)


def test_a_factor_one_network_cannot_measure_is_left_out_of_the_mean_for_all(tmp_path: Path) -> None:
    blind = [curve_row("lift", f, None if f < 0.4 else 0.2) for f in FACTORS]
    write_run(tmp_path / "a", training("cnn"), curves("cnn"))
    write_run(tmp_path / "b", training("dss_v1"), curves("dss_v1", rows=blind))
    assert summarise([tmp_path]).mean_factors == pytest.approx((0.5, 0.8))


def test_neighbouring_factors_are_one(tmp_path: Path) -> None:
    near = [curve_row("conv1", f, 0.2) for f in (1 / 3, 0.5032, 0.8)]
    write_run(tmp_path / "a", training("cnn"), curves("cnn", rows=near))
    write_run(tmp_path / "b", training("dss_v1"), curves("dss_v1"))
    summary = summarise([tmp_path])
    assert summary.mean_factors == pytest.approx((1 / 3, 0.5, 0.8))
    assert summary.rows[0]["delta_0.5"].mean == 0.2


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        (curves(seed=2, metric="relative"), "metric relative, not squared"),
        (curves(seed=2, background="none"), "background none, not empty"),
        (curves(seed=2, dataset="digits"), "data digits, not mnist"),
    ],
)
def test_delta_measured_otherwise_is_set_aside_but_the_error_stays(
    tmp_path: Path, odd: Any, expected: str
) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"r{seed}", training(seed=seed), curves(seed=seed))
    write_run(tmp_path / "odd", training(seed=2), odd)
    summary = summarise([tmp_path])
    (row,) = summary.rows
    assert (row.n, row["test_error"].n, row["delta"].n) == (3, 3, 2)
    assert expected in reasons(summary)["odd"]


def test_untrained_curves_get_a_row_of_their_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", training(), curves(level=0.5))
    fresh = tmp_path / "fresh.json"
    write_record(fresh, curves(level=0.9, trained=False))
    summary = summarise([run, fresh])
    assert [row.label for row in summary.rows] == ["cnn", "cnn (untrained)"]
    assert summary.rows[1]["test_error"].mean is None
    assert summary.rows[0]["delta"].n == 1


def test_a_result_joins_the_run_that_it_measured(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", training(seed=4))
    result = tmp_path / "result.json"
    write_record(result, curves(seed=4, run=str(run)))
    (row,) = summarise([run, result]).rows
    assert (row.n, row["test_error"].n, row["delta"].n) == (1, 1, 1)
    (alone,) = summarise([result]).rows
    assert alone["test_error"].n == 1


def test_a_result_whose_training_is_unknown_is_not_averaged_with_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", training(seed=4), curves(seed=4))
    result = tmp_path / "result.json"
    write_record(result, curves(seed=5, run=str(tmp_path / "gone")))
    summary = summarise([run, result])
    assert summary.rows[0].n == 1
    assert "training settings are unknown" in reasons(summary)["result.json"]


def test_several_versions_of_secli_are_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training(seed=0))
    write_run(tmp_path / "b", training(seed=1, secli="0.2.0"))
    assert any("0.1.0 (1), 0.2.0 (1)" in note for note in summarise([tmp_path]).notes)


def test_rows_trained_for_unlike_epochs_are_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training("cnn"))
    write_run(tmp_path / "b", training("dcn", epochs=2))
    assert "The rows differ in epochs: 60 (cnn); 2 (dcn)." in summarise([tmp_path]).notes


def test_damaged_record_below_a_directory_is_set_aside_but_a_named_one_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "good", training())
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / RECORD_FILE).write_text("{")
    assert "damaged record" in reasons(summarise([tmp_path]))["bad"]
    with pytest.raises(InputError, match="damaged record"):
        summarise([bad])


def test_directories_still_being_written_are_not_seen(tmp_path: Path) -> None:
    write_run(tmp_path / "good", training())
    write_run(tmp_path / ".good.abc.tmp", training(seed=9))
    assert summarise([tmp_path]).rows[0].n == 1


def test_wrong_paths_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("[1, 2]")
    for path, message in [
        (tmp_path / "gone", "no such run directory"),
        (tmp_path / "empty", "no record here or below"),
        (tmp_path / "list.json", "not a record of secli"),
    ]:
        with pytest.raises(InputError, match=message):
            summarise([path])
    with pytest.raises(InputError, match="no runs given"):
        summarise([])


def test_nothing_left_names_the_first_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training(status="failed", reason="NaN"))
    with pytest.raises(InputError, match=r"nothing to compare, .* \(failed: NaN\)"):
        summarise([tmp_path])


def test_the_frame_has_one_column_per_number(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training("cnn", 0.05, seed=0), curves(seed=0))
    write_run(tmp_path / "b", training("cnn", 0.07, seed=1), curves(seed=1))
    frame = summarise([tmp_path]).frame()
    assert frame.loc[0, "test_error_mean"] == pytest.approx(0.06)
    assert frame.loc[0, "delta_0.5_n"] == 2
    assert list(frame["model"]) == ["cnn"]
    numbers = (
        "test_error",
        "delta",
        "delta_0.5",
        "delta_0.8",
        "accuracy_0.5",
        "accuracy_0.8",
        "train_seconds",
    )
    parts = [f"{number}_{part}" for number in numbers for part in ("mean", "std", "n")]
    assert list(frame.columns) == ["model", "trained", "n", *parts, "tap", "parameters"]
    assert frame["parameters"].dtype == int


def test_what_nobody_measured_has_its_columns_too(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training("cnn", 0.05))
    frame = summarise([tmp_path], factors=[0.5]).frame()
    assert frame["delta_mean"].isna().all()
    assert list(frame["delta_0.5_n"]) == [0]


def test_data_helper_gives_one_digest_per_realisation() -> None:
    assert data(realisation=0).digest != data(realisation=1).digest


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not json", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"schema_version": ' + b"1" * 5000 + b"}", "is too large"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b'{"schema_version": 1e999, "kind": "training"}', "1e999 is not a finite number"),
        (b'{"schema_version": true, "kind": "training"}', "not a record of secli"),
    ],
)
def test_one_record_that_cannot_be_read_takes_no_other_with_it(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    good = write_run(tmp_path / "good", training())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / RECORD_FILE).write_bytes(content)
    for paths in ([tmp_path], [good, tmp_path / "bad"]):
        summary = summarise(paths)
        assert [row.n for row in summary.rows] == [1]
        assert reason in reasons(summary)["bad"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("training", "seed"), "many"),
        (("training", "epochs"), -1),
        (("data", "parameters"), {"sizes": 3}),
        (("data", "realisation"), 10**40),
        (("results", "test_error"), 2.0),
        (("model", "parameters"), -1),
    ],
)
def test_a_record_with_a_wrong_value_is_set_aside(
    tmp_path: Path, place: tuple[str, str], value: object
) -> None:
    write_run(tmp_path / "good", training())
    record = write_run(tmp_path / "bad", training(seed=1)) / RECORD_FILE
    content = json.loads(record.read_text())
    content[place[0]][place[1]] = value
    record.write_text(json.dumps(content))
    summary = summarise([tmp_path])
    assert [row.n for row in summary.rows] == [1]
    assert "damaged record" in reasons(summary)["bad"]


def test_what_was_put_aside_is_passed_over(tmp_path: Path) -> None:
    write_run(tmp_path / "good", training())
    for name in ("good.damaged", "good.damaged2"):
        write_run(tmp_path / name, training(seed=5))
    assert [row.n for row in summarise([tmp_path]).rows] == [1]
