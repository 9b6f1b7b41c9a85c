"""Curves as tables: what is null says why, what is off the lattice is marked."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from secli.errors import UnknownNameError
from secli.records.notes import recognised
from secli.records.schema import CurveRow, EquivarianceRecord
from secli.tables.curve_notes import telling_warnings
from secli.tables.curve_tables import (
    accuracy_table,
    controls_table,
    curve_table,
    interval_text,
    lie_table,
    local_table,
    parts_table,
    render_curves,
)
from secli.tables.readings import value_at
from secli.tables.render import FORMATS
from secli.tables.table import Table
from tests.tables.fabricate import (
    FACTORS,
    curve_row,
    curves,
    lie_row,
    local_row,
    with_controls,
    with_parts,
)


def names(table: Table) -> list[str]:
    return [str(row[0].value).replace("\u00a0", " ") for row in table.rows]


def full() -> EquivarianceRecord:
    """A record with everything in it."""
    local = [
        local_row(part, kind, f, 0.1) for part, kind in (("b.conv", "conv"), ("b", "stage")) for f in FACTORS
    ]
    record = with_controls(with_parts(curves("dss_v1", taps=["lift", "conv1"])))
    return record.model_copy(update={"lie": [lie_row("lift", 0.02), lie_row("conv1", None)], "local": local})


def test_one_block_per_tap_and_one_column_per_factor() -> None:
    table = curve_table(curves(taps=["conv1", "conv2"]))
    assert names(table) == ["conv1", "  95 %", "  floor", "conv2", "  95 %", "  floor"]
    assert len(table.columns) == 1 + len(FACTORS)
    assert table.rows[3][1].value == pytest.approx(math.log(3) ** 2)
    assert table.rows[0][4].value == 0.0


def test_interval_and_floor_stand_below_the_mean() -> None:
    rows = [
        curve_row("conv1", 0.5, 0.412, low=0.391, high=0.429, floor=0.0041),
        curve_row("conv1", 1.0, 0.0, low=0.0, high=0.0, floor=0.0),
    ]
    mean, interval, floor = curve_table(curves(rows=rows)).rows
    assert [cell.value for cell in mean] == ["conv1", 0.412, 0.0]
    assert [cell.value for cell in interval[1:]] == [".39–.43", ""]
    assert [cell.value for cell in floor[1:]] == [0.0041, ""]


def test_where_nothing_varies_there_is_no_line_for_it() -> None:
    rows = [curve_row("logits", f, 0.3, low=None, high=None, floor=0.0) for f in (0.5, 1.0)]
    assert names(curve_table(curves(rows=rows))) == ["logits"]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.391, 0.429, ".39–.43"),
        (0.41204, 0.41311, ".412–.413"),
        (1.21, 1.39, "1.2–1.4"),
        (12.1, 13.9, "12–14"),
        (0.00042, 0.00047, "4.2e-4–4.7e-4"),
        (0.00123, 0.00124, "1.2e-3–1.2e-3"),
        (0.0, 0.0, "0–0"),
        (None, 1.0, ""),
        (math.nan, 1.0, ""),
    ],
)
def test_an_interval_is_written_compactly(low: float | None, high: float | None, text: str) -> None:
    assert interval_text(low, high) == text


def test_single_levels_have_a_table_of_their_own() -> None:
    record = with_parts(curves(taps=["lift"]))
    assert names(curve_table(record)) == ["lift", "  95 %", "  floor"]
    table = parts_table(record)
    assert names(table) == ["lift level 0", "lift level 1", "lift level 2"]
    assert table.rows[1][1].value == pytest.approx(2 * 0.5 * math.log(3) ** 2)
    assert table.rows[2][1].value is None
    assert table.notes == ("— off the stack: lift level 2 at every s.",)
    both = [curve_row("lift", 0.5, 0.1), curve_row("lift", 0.5, 0.2, level=0, channel=7)]
    assert names(parts_table(curves(rows=both))) == ["lift level 0, channel 7"]


def test_comparisons_never_read_a_single_level() -> None:
    record = with_parts(curves(taps=["lift"]))
    mixed = record.model_copy(update={"rows": record.rows[::-1]})
    assert value_at(mixed, "lift", 0.5) == pytest.approx(0.5 * math.log(2) ** 2)


def test_controls_stand_tap_by_tap() -> None:
    table = controls_table(with_controls(curves(taps=["conv1", "conv2"])))
    assert names(table) == [
        "identity", "pointwise", "untrained", "  conv1", "  conv2", "plain cnn", "  conv1", "  other",
    ]  # fmt: skip
    assert [cell.value for cell in table.rows[0][1:]] == [0.0] * 5
    assert table.rows[4][1].value == pytest.approx(2 * math.log(3) ** 2)


def test_controls_have_their_accuracy() -> None:
    table = accuracy_table(with_controls(curves()))
    assert names(table) == ["accuracy", "agreement", "untrained: accuracy", "plain cnn: accuracy"]
    assert table.rows[2][4].value == pytest.approx(0.95)


def test_lie_derivatives_stand_with_their_interval() -> None:
    table = lie_table(curves().model_copy(update={"lie": [lie_row("a", 0.5, dropped=2), lie_row("b", None)]}))
    assert [cell.value for cell in table.rows[0]] == ["a", 0.5, ".45–.55", 100]
    assert [cell.value for cell in table.rows[1]] == ["b", None, "—", 0]
    assert table.notes == (
        "2 values of single images left out: vanishing or not finite.",
        "— the features vanish: b.",
    )


def test_parts_are_grouped_by_kind() -> None:
    rows = [
        local_row(part, kind, factor, mean)
        for part, kind, mean in (
            ("b1.relu", "activation", 0.4),
            ("b1.conv", "conv", None),
            ("b1", "stage", 0.2),
            ("b2", "stage", 0.3),
            ("b1.odd", "upsampling", 0.1),
        )
        for factor in (1.0, 0.5)
    ]
    table = local_table(curves().model_copy(update={"local": rows}))
    assert names(table) == [
        "stage", "  b1", "  b2", "conv", "  b1.conv", "activation", "  b1.relu", "upsampling", "  b1.odd",
    ]  # fmt: skip
    assert [column.key for column in table.columns[1:]] == ["s_0.5", "s_1"]
    assert table.rows[2][1].value == 0.3
    assert "— fewer than 4 cells: b1.conv." in table.notes


def warned(tap: str, factor: float, *texts: str, **changes: object) -> CurveRow:
    return curve_row(tap, factor, 0.1, warnings=texts, **changes)


def test_warnings_are_footnotes_with_a_mark() -> None:
    rows = [
        warned("a", 0.8),
        warned("a", 0.5, "tiny plane: the picture covers 5.1 cells"),
        warned("b", 0.5, "tiny plane: the picture covers 7 cells", "framed"),
        warned("a", 1.0),
        warned("b", 1.0),
    ]
    table = curve_table(curves(rows=rows))
    assert [row[1].mark for row in table.rows if row[0].value in ("a", "b")] == ["†", "†‡"]
    assert [row[3].mark for row in table.rows if row[0].value in ("a", "b")] == ["", ""]
    assert "† tiny plane: the picture covers 5.1–7 cells: a, b at s = 0.5." in table.notes
    assert "‡ framed: b at s = 0.5." in table.notes


def test_what_a_sign_says_already_is_no_footnote() -> None:
    rows = [
        warned("a", 0.7, "off the lattice of scales: levels are interpolated", on_lattice=False),
        warned("a", 0.5, on_lattice=True),
    ]
    table = curve_table(curves(rows=rows))
    assert table.rows[0][2].mark == "°"
    assert not any("off the lattice:" in note for note in table.notes)


def test_a_warning_that_holds_everywhere_needs_no_mark() -> None:
    rows = [warned("a", f, *(() if f == 1 else ("framed",)), floor=None) for f in (0.5, 0.8, 1.0)]
    table = curve_table(curves(rows=rows))
    assert [cell.mark for cell in table.rows[0]] == ["", "", "", ""]
    assert "framed: a at every s but 1." in table.notes


def test_every_table_fits_the_terminal() -> None:
    for width in (80, 160):
        text = render_curves([full()], "table", width)
        assert max(len(line) for line in text.splitlines()) <= width
        for title in ("Controls", "Lie derivative", "What each part adds", "one scale level", "Accuracy"):
            assert title in text


def test_csv_has_everything_in_one_table() -> None:
    lines = list(csv.DictReader(io.StringIO(render_curves([full()], "csv"))))
    own = [line for line in lines if not line["control"]]
    count = {
        q: sum(line["quantity"] == q for line in own)
        for q in ("error", "lie", "local", "accuracy", "agreement")
    }
    assert count == {"error": 2 * 5 * 4, "lie": 2, "local": 10, "accuracy": 5, "agreement": 5}
    assert {line["control"] for line in lines} == {"", "identity", "pointwise", "untrained", "plain cnn"}
    level = next(line for line in own if line["level"] == "1" and line["factor"] == "0.5")
    assert (level["tap"], level["quantity"]) == ("lift", "error")
    assert float(level["mean"]) == pytest.approx(2 * 0.5 * math.log(2) ** 2)
    part = next(line for line in own if line["quantity"] == "local")
    assert (part["tap"], part["kind"], part["low"]) == ("b.conv", "conv", "0.09")
    lie = next(line for line in own if line["quantity"] == "lie")
    assert (lie["tap"], lie["factor"], lie["mean"]) == ("lift", "", "0.02")


def test_csv_joins_warnings() -> None:
    rows = [warned("a", 0.5, "framed", "tiny plane")]
    (line,) = csv.DictReader(io.StringIO(render_curves([curves(rows=rows, accuracy=False)], "csv")))
    assert line["warnings"] == "framed; tiny plane"


def test_null_is_a_dash_with_its_reason() -> None:
    rows = [curve_row("conv1", 0.5, None, reason="fewer than 4 cells"), curve_row("conv1", 1.0, 0.0)]
    text = render_curves([curves(rows=rows, factors=(0.5, 1.0))], "table", 80)
    assert "—" in text
    assert "fewer than 4 cells: conv1 at s = 0.5." in text


def test_off_lattice_is_marked() -> None:
    rows = [curve_row("lift", 0.7, 0.1, on_lattice=False), curve_row("lift", 0.5, 0.1, on_lattice=True)]
    text = render_curves([curves(rows=rows, accuracy=False)], "table", 80)
    assert text.count("0.100°") == 1
    assert "0.100 " in text
    assert "levels are interpolated" in text


def test_json_is_the_record_and_a_list_for_several() -> None:
    one, two = full(), curves("dcn")
    assert json.loads(render_curves([one], "json")) == one.model_dump(mode="json")
    assert [record["model"]["name"] for record in json.loads(render_curves([one, two], "json"))] == [
        "dss_v1",
        "dcn",
    ]


def test_json_never_holds_nan() -> None:
    row = curve_row("conv1", 0.5, 0.1).model_copy(update={"mean": float("nan")})  # no record holds one
    record = curves(rows=[]).model_copy(update={"rows": [row]})
    assert json.loads(render_curves([record], "json"))["rows"][0]["mean"] is None


def test_csv_is_one_line_per_value() -> None:
    every = list(csv.DictReader(io.StringIO(render_curves([curves("cnn"), curves("dcn")], "csv"))))
    lines = [line for line in every if line["quantity"] == "error"]
    assert len(lines) == 2 * 2 * len(FACTORS)
    assert {line["network"] for line in lines} == {"cnn", "dcn"}
    assert float(lines[0]["mean"]) == pytest.approx(0.5 * math.log(3) ** 2)


def test_namesakes_are_told_apart() -> None:
    text = render_curves([curves(seed=0), curves(seed=1), curves(trained=False)], "markdown")
    for label in ("cnn seed 0**", "cnn seed 1**", "cnn (untrained, seed 0)**"):
        assert label in text


def test_accuracy_is_in_per_cent() -> None:
    table = accuracy_table(curves())
    assert table.rows[0][4].value == pytest.approx(0.95)
    assert all(column.percent for column in table.columns[1:])
    assert "95.0" in render_curves([curves()], "markdown")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_written(format: str) -> None:
    assert render_curves([full(), curves("dcn")], format).endswith("\n")


def test_unknown_format() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'latex'"):
        render_curves([curves()], "latx")


def test_runs_averaged_are_said_to_be() -> None:
    one = curves()
    pooled = one.model_copy(update={"pooled": ("runs/a", "runs/b", "runs/c")})
    assert "Mean over 3 runs, each on" in render_curves([pooled], "table")
    assert "interval of the mean over runs" in " ".join(render_curves([pooled], "markdown").split())
    assert "runs" not in render_curves([one], "table")


def test_what_holds_for_every_plane_needs_no_mark_though_logits_never_carry_it() -> None:
    rows = [curve_row("conv1", f, 0.1, warnings=("framed",)) for f in (0.5, 0.8)]
    rows += [curve_row("logits", f, 0.1, field="Invariant") for f in (0.5, 0.8)]
    assert telling_warnings(rows) == []
    assert telling_warnings([*rows, curve_row("conv2", 0.5, 0.1)]) == [recognised("framed").form]


def test_a_mean_over_no_images_is_not_told_as_one() -> None:
    rows = [curve_row("conv1", f, None, n=0) for f in (0.5, 0.8)]
    text = render_curves([curves("cnn", rows=rows, accuracy=False)], "table")
    assert "Mean over" not in text
    assert "No value on images of mnist r0" in text


def test_taps_without_any_value_share_a_line() -> None:
    rows = [curve_row("a", f, 0.1, compared=0.4 + f / 10, border=3.0) for f in (0.5, 0.8)]
    rows += [curve_row(tap, f, None) for tap in ("b", "c") for f in (0.5, 0.8)]
    rows += [curve_row("d", 0.5, None), curve_row("d", 0.8, 0.2)]
    text = render_curves([curves("cnn", rows=rows, accuracy=False)], "table", 100)
    first = [line.split("  ")[0] for line in text.splitlines()]
    assert "2 taps without a value" in first
    assert not {"b", "c"} & set(first)
    assert {"a", "d"} <= set(first)
    assert "b, c at every s" in text
    assert "45–48 % of a tap's cells are compared; a border of 3 px is left out." in text
    alone = render_curves([curves("cnn", rows=rows[:4], accuracy=False)], "table", 100)
    assert "b" in [line.split("  ")[0] for line in alone.splitlines()]
    # programs read every row
    assert render_curves([curves("cnn", rows=rows, accuracy=False)], "csv").count("fewer than 4") == 5
