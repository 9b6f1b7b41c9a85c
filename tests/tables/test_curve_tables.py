"""Curves as tables: what is null says why, what is off the lattice is marked."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from secli.errors import UnknownNameError
from secli.tables.curves import accuracy_table, curve_table, render_curves
from secli.tables.formats import FORMATS
from tests.tables.fabricate import FACTORS, curve_row, curves


def test_one_row_per_tap_and_one_column_per_factor() -> None:
    table = curve_table(curves(taps=["conv1", "conv2"]))
    assert [row[0].value for row in table.rows] == ["conv1", "conv2"]
    assert len(table.columns) == 1 + len(FACTORS)
    assert table.rows[1][1].value == pytest.approx(math.log(3) ** 2)
    assert table.rows[0][4].value == 0.0


def test_null_is_a_dash_with_its_reason() -> None:
    rows = [curve_row("conv1", 0.5, None, reason="fewer than 4 cells"), curve_row("conv1", 1.0, 0.0)]
    text = render_curves([curves(rows=rows, factors=(0.5, 1.0))], "table", 80)
    assert "—" in text
    assert "fewer than 4 cells: conv1 at s = 0.5." in text


def test_off_lattice_is_marked() -> None:
    rows = [curve_row("lift", 0.7, 0.1, on_lattice=False), curve_row("lift", 0.5, 0.1, on_lattice=True)]
    text = render_curves([curves(rows=rows, accuracy=False)], "table", 80)
    assert text.count("0.100°") == 1
    assert "levels are interpolated" in text


def test_json_is_the_record_and_a_list_for_several() -> None:
    one, two = curves("cnn"), curves("dcn")
    assert json.loads(render_curves([one], "json")) == one.model_dump(mode="json")
    assert [record["model"]["name"] for record in json.loads(render_curves([one, two], "json"))] == [
        "cnn",
        "dcn",
    ]


def test_json_never_holds_nan() -> None:
    record = curves(rows=[curve_row("conv1", 0.5, float("nan"))])
    assert json.loads(render_curves([record], "json"))["rows"][0]["mean"] is None


def test_csv_is_one_line_per_value() -> None:
    lines = list(csv.DictReader(io.StringIO(render_curves([curves("cnn"), curves("dcn")], "csv"))))
    assert len(lines) == 2 * 2 * len(FACTORS)
    assert {line["network"] for line in lines} == {"cnn", "dcn"}
    assert float(lines[0]["mean"]) == pytest.approx(0.5 * math.log(3) ** 2)


def test_namesakes_are_told_apart() -> None:
    text = render_curves([curves(seed=0), curves(seed=1), curves(trained=False)], "markdown")
    for label in ("cnn seed 0**", "cnn seed 1**", "cnn (untrained)**"):
        assert label in text


def test_accuracy_is_in_per_cent() -> None:
    table = accuracy_table(curves())
    assert table.rows[0][4].value == pytest.approx(0.95)
    assert all(column.percent for column in table.columns[1:])
    assert "95.0" in render_curves([curves()], "markdown")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_written(format: str) -> None:
    assert render_curves([curves(), curves("dcn")], format).endswith("\n")


def test_unknown_format() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'latex'"):
        render_curves([curves()], "latx")
