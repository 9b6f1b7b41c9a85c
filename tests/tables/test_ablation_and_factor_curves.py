"""One parameter at a time, and accuracy and Δ at every factor."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest

from secli.errors import InputError, UnknownNameError
from secli.records.schema import AccuracyRow
from secli.tables.ablation import ablation_tables
from secli.tables.collect import SetAside, collect
from secli.tables.factor_curves import curve_tables
from secli.tables.formats import json_rows, render
from secli.tables.pivot import Wanted
from secli.tables.published import load_published
from tests.tables.fabricate import curves, data, training, write_run

BASE = {"base": 2.0, "channels": 16}
DOWNSCALING = (1.0, 1 / 1.1, 1 / 1.5, 0.5, 0.4, 1 / 3)


def write(
    directory: Path, name: str, error: float, seed: int = 0, lr: float = 0.01, **options: float
) -> None:
    resolved = {**BASE, **options}
    folder = "-".join(f"{key}{value}" for key, value in {**resolved, "lr": lr, "seed": seed}.items())
    record = training(name, error, seed=seed, lr=lr, options=resolved)
    write_run(directory / name / folder, record, curves(name, seed=seed, options=resolved, level=10 * error))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A base configuration, two other bases, one other number of channels, one other rate; three seeds."""
    for seed in range(3):
        for name, level in (("dss_v1", 0.05), ("deform_dss", 0.04)):
            error = level + 0.001 * seed
            write(tmp_path, name, error, seed)
            write(tmp_path, name, error + 0.01, seed, base=1.2)
            write(tmp_path, name, error + 0.005, seed, base=1.6)
            write(tmp_path, name, error - 0.01, seed, channels=32)
            write(tmp_path, name, error + 0.02, seed, lr=0.1)
    return tmp_path


def test_each_parameter_has_its_table_about_the_base(runs: Path) -> None:
    found, aside = collect([runs])
    base, channels, lr = ablation_tables(
        found, aside, ("model.base", "model.channels", "training.lr"), Wanted()
    )
    assert not aside
    rows = json_rows(base)
    assert [(row["model"], row["model.base"]) for row in rows] == [
        (name, value) for name in ("deform_dss", "dss_v1") for value in ("1.2", "1.6", "2.0 (base)")
    ]
    errors = [row["test_error"]["mean"] for row in rows if row["model"] == "dss_v1"]
    assert errors == pytest.approx([0.061, 0.056, 0.051])
    assert all(row["test_error"]["n"] == 3 for row in rows)
    factors = (1 / 3, 0.5, 0.8)
    unit = 2 * statistics.fmean(math.log(f) ** 2 for f in factors)
    deltas = [row["delta"]["mean"] for row in rows if row["model"] == "dss_v1"]
    assert deltas == pytest.approx([10 * error * unit for error in errors])
    assert [row["model.channels"] for row in json_rows(channels)] == ["16 (base)", "32"] * 2
    assert [row["lr"] for row in json_rows(lr)] == ["0.01 (base)", "0.1"] * 2
    # the best is marked network by network
    assert [row["test_error_standing"] for row in rows] == ["worse", "worse", "best"] * 2


def test_what_moves_two_parameters_or_another_one_is_set_aside(runs: Path) -> None:
    write(runs, "dss_v1", 0.9, 0, base=1.2, channels=32)
    write_run(runs / "odd", training("dss_v1", 0.9, seed=0, options=BASE, epochs=3))
    found, aside = collect([runs])
    tables = ablation_tables(found, aside, ("model.base", "model.channels"), Wanted(rows=("model",)))
    reasons = [one.reason for one in aside]
    assert any(
        "differs from the base in more than one parameter: model.base 1.2, not 2.0" in r for r in reasons
    )
    assert any(r.startswith("epochs 3, not 60") for r in reasons)
    assert any(r.startswith("lr 0.1, not 0.01") for r in reasons)
    assert all(row["test_error"]["mean"] < 0.1 for table in tables for row in json_rows(table))


def test_of_values_as_frequent_the_registrys_is_the_base(tmp_path: Path) -> None:
    for value in (1.2, 2.0):
        options = {"base": value}
        record = training("dss_v1", 0.05, options=options)
        info = record.model.model_copy(update={"changed": {} if value == 2.0 else {"base": 2.0}})
        write_run(tmp_path / str(value), record.model_copy(update={"model": info}))
    found, aside = collect([tmp_path])
    (table,) = ablation_tables(found, aside, ("model.base",), Wanted())
    assert [row["model.base"] for row in json_rows(table)] == ["1.2", "2.0 (base)"]


def test_unknown_parameter_suggests_the_near_miss(runs: Path) -> None:
    found, aside = collect([runs])
    with pytest.raises(
        UnknownNameError, match=r"unknown parameter --ablate 'model.bse'; did you mean 'model.base'"
    ):
        ablation_tables(found, aside, ("model.bse",), Wanted())


def write_curves(directory: Path, name: str, level: float, seed: int) -> None:
    record = curves(name, seed=seed, factors=DOWNSCALING, level=level, trained_on=data("mnist-scale", 0))
    accuracy = [
        AccuracyRow(
            factor=f, accuracy=0.95 - level * abs(math.log(f)) / 10 - 0.001 * seed, agreement=0.9, n=100
        )
        for f in DOWNSCALING
    ]
    write_run(
        directory / name / f"s{seed}",
        training(name, 0.05, seed=seed),
        record.model_copy(update={"accuracy": accuracy}),
    )


def test_curves_at_factors_beside_the_published_ones(tmp_path: Path) -> None:
    for seed in range(3):
        write_curves(tmp_path, "cnn", 0.5, seed)
        write_curves(tmp_path, "dss_v1", 0.2 + 0.01 * seed, seed)
    found, aside = collect([tmp_path])
    accuracy, delta = curve_tables(found, aside, Wanted(), load_published())
    rows = {(row["model"], round(row["factor"], 3)): row for row in json_rows(accuracy)}
    assert len(rows) == 12
    cell = rows["cnn", 0.5]
    assert cell["accuracy"]["mean"] == pytest.approx(0.95 - 0.05 * math.log(2) - 0.001)
    assert cell["accuracy_paper"] == {"mean": 0.917, "std": None, "n": 0}
    assert rows["dss_v1", 0.333]["accuracy_paper"]["mean"] == 0.914
    assert rows["dss_v1", 0.5]["accuracy_standing"] == "best"
    text = render(accuracy, "table", 160)
    assert "read off plots, ±0.002" in text
    assert "SE" not in text  # the published curves have no spread to compare with
    deltas = {(row["model"], round(row["factor"], 3)): row for row in json_rows(delta)}
    assert deltas["cnn", 0.5]["delta"]["mean"] == pytest.approx(0.5 * 2 * math.log(2) ** 2)
    assert deltas["cnn", 1.0]["delta"]["mean"] == 0
    assert deltas["cnn", 1.0]["delta_standing"] is None  # 0 by definition: nobody is ahead
    assert {row["tap"] for row in json_rows(delta)} == {"conv2"}


def test_curves_at_chosen_factors(tmp_path: Path) -> None:
    write_curves(tmp_path, "cnn", 0.5, 0)
    found, aside = collect([tmp_path])
    accuracy, delta = curve_tables(found, aside, Wanted(factors=(0.5, 1.0)))
    assert [row["factor"] for row in json_rows(accuracy)] == [1.0, 0.5]
    assert [row["factor"] for row in json_rows(delta)] == [1.0, 0.5]


def test_curves_need_a_measurement(tmp_path: Path) -> None:
    write_run(tmp_path / "a", training())
    found, aside = collect([tmp_path])
    none: list[SetAside] = aside
    with pytest.raises(InputError, match="none of the runs was measured"):
        curve_tables(found, none, Wanted())


def test_a_network_without_the_option_is_not_in_its_table(runs: Path) -> None:
    for seed in range(3):
        write_run(runs / "cnn" / f"s{seed}", training("cnn", 0.07, seed=seed), curves("cnn", seed=seed))
        write_run(
            runs / "cnn" / f"fast{seed}", training("cnn", 0.09, seed=seed, lr=0.1), curves("cnn", seed=seed)
        )
    found, aside = collect([runs])
    base, lr = ablation_tables(found, aside, ("model.base", "lr"), Wanted())
    assert "cnn" not in {row["model"] for row in json_rows(base)}
    assert [row["lr"] for row in json_rows(lr) if row["model"] == "cnn"] == ["0.01 (base)", "0.1"]
