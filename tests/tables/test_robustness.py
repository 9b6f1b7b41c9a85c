"""The rows of ``secli robustness``: areas over log s, means over factors, sorting, and what is said below."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import pytest

from secli.errors import UnknownNameError
from secli.records.notes import Note
from secli.records.schema import AccuracyRow, EquivarianceRecord
from secli.tables.render import FORMATS, render
from secli.tables.robustness import Contender, PassCost, area, robustness_rows, robustness_table
from tests.tables.fabricate import curves

COST = PassCost(3_000_000_000, 40.0)


def record(
    accuracies: Mapping[float, float | None], reason: Note | None = None, level: float = 0.5
) -> EquivarianceRecord:
    rows = [
        AccuracyRow(
            factor=factor,
            accuracy=accuracy,
            agreement=1.0 if factor == 1 else 0.5,
            consistency=None if factor == 1 else 0.75,
            cosine=1.0 if factor == 1 else 0.9,
            n=10,
            reason=reason,
        )
        for factor, accuracy in accuracies.items()
    ]
    found = curves(taps=["conv1", "conv2", "conv3", "conv4"], factors=[*accuracies], level=level)
    return found.model_copy(update={"accuracy": rows})


@pytest.fixture
def contenders() -> list[Contender]:
    chance = dict.fromkeys((0.5, 1.0, 2.0))
    return [
        Contender("good", record({0.5: 0.6, 1.0: 0.9, 2.0: 0.6}), COST, weights="V1"),
        Contender("gone", None, reason="fails on images of 3×8×8"),
        Contender("drawn", record(chance, Note.of("random-weights"), level=0.1), COST),
        Contender("best", record({0.5: 0.8, 1.0: 0.9, 2.0: 0.7}, level=1.0), COST, weights="V1"),
    ]


def test_the_area_is_that_of_trapezoids_over_the_logarithm() -> None:
    values = {0.4: 0.3, 0.5: 0.7, 0.9: 0.8, 1.3: 0.1}
    points = sorted((math.log(factor), value) for factor, value in values.items())
    total = 0.0
    for k in range(3):
        (x0, y0), (x1, y1) = points[k], points[k + 1]
        total += (x1 - x0) * y0 + (x1 - x0) * (y1 - y0) / 2
    assert area(values) == pytest.approx(total / (math.log(1.3) - math.log(0.4)))


def test_areas_by_hand() -> None:
    assert area({2.0: 1.0, 1.0: 1.0, 0.5: 1.0}) == pytest.approx(1)
    assert area({1.0: 1.0, 0.5: 0.0}) == pytest.approx(0.5)
    assert area({1.0: 1.0, 0.5: 0.0, 0.125: 0.0}) == pytest.approx(1 / 6)  # a third of the range
    assert area({1.0: 1.0, 0.5: None}) is None
    assert area({1.0: 1.0}) is None
    assert area({}) is None


def test_a_row_holds_what_its_record_says(contenders: list[Contender]) -> None:
    rows, read = robustness_rows(contenders)
    good, gone, drawn, best = rows
    assert [row.network for row in rows] == ["good", "gone", "drawn", "best"]
    assert good.accuracy == 0.9
    assert good.accuracy_area == pytest.approx(0.75)
    assert good.agreement_area == pytest.approx(0.75)
    assert (good.consistency, good.probability_drop) == (0.75, None)
    assert good.cosine == pytest.approx(0.9)
    assert read.factors == (0.5,)
    assert (good.tap, read.depth) == ("conv4", 1.0)
    assert good.delta == pytest.approx(0.5 * 4 * math.log(2) ** 2)
    assert best.delta == pytest.approx(4 * math.log(2) ** 2)
    assert (good.flops, good.images_per_second) == (3_000_000_000, 40.0)
    assert (drawn.accuracy, drawn.accuracy_area, drawn.reason) == (None, None, "the weights are random")
    assert drawn.agreement_area == pytest.approx(0.75)
    assert (gone.parameters, gone.delta, gone.reason) == (None, None, "fails on images of 3×8×8")


def test_a_depth_can_be_chosen(contenders: list[Contender]) -> None:
    rows, read = robustness_rows(contenders, depth=0.5)
    assert {row.tap for row in rows} == {"conv2", None}
    assert read.depth == 0.5


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("accuracy_area", ["good", "best", "gone", "drawn"]),
        ("-accuracy_area", ["best", "good", "gone", "drawn"]),
        ("delta", ["drawn", "good", "best", "gone"]),
        ("network", ["best", "drawn", "gone", "good"]),
        ("-network", ["good", "gone", "drawn", "best"]),
    ],
)
def test_rows_are_sorted_and_those_without_a_value_come_last(
    contenders: list[Contender], sort: str, order: list[str]
) -> None:
    assert [row.network for row in robustness_rows(contenders, sort=sort)[0]] == order


def test_an_unknown_column_is_refused(contenders: list[Contender]) -> None:
    with pytest.raises(UnknownNameError, match="--sort 'acuracy'; did you mean 'accuracy'"):
        robustness_rows(contenders, sort="-acuracy")


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_every_network_and_the_reasons(contenders: list[Contender], form: str) -> None:
    rows, read = robustness_rows(contenders)
    text = render(robustness_table(contenders, rows, read, "timed so"), form, 160)
    for name in ("good", "gone", "drawn", "best"):
        assert name in text
    assert "the weights are random" in text
    assert "fails on images of 3×8×8" in text or form == "latex"  # which writes × in a formula
    if form == "json":
        first = json.loads(text)[0]
        assert first["flops"] == 3_000_000_000
        assert first["accuracy"] == 0.9
        assert json.loads(text)[1]["accuracy"] is None
    elif form == "csv":
        assert text.splitlines()[0].startswith("network,weights,accuracy_percent,accuracy_area,")
        assert "good,V1,90.0,0.75," in text
    else:
        assert "GFLOPs" in text


def test_notes_say_what_a_reader_must_know(contenders: list[Contender]) -> None:
    rows, read = robustness_rows(contenders)
    notes = robustness_table(contenders, rows, read, "timed so").notes
    assert "Δ: mean over s = 0.5, the factors below 1 that all could measure, at relative depth 1." in notes
    assert "Weights: V1: good, best." in notes
    assert "— accuracy: the weights are random: drawn." in notes
    assert notes[-1] == "— gone: fails on images of 3×8×8."
    nothing = [contenders[1]]
    lost, nowhere = robustness_rows(nothing)
    table = robustness_table(nothing, lost, nowhere, "timed so")
    assert table.title == "Robustness to a change of scale"
    assert not any("relative depth" in note for note in table.notes)


def test_warnings_of_the_values_behind_a_mean_are_told() -> None:
    framed = record({0.5: 0.6, 1.0: 0.9})
    rows = [
        row.model_copy(update={"warnings": (Note.of("framed"),)}) if row.tap == "conv4" else row
        for row in framed.rows
    ]
    one = Contender("one", framed.model_copy(update={"rows": rows}), COST)
    table, read = robustness_rows([one])
    assert any(note.startswith("Δ, framed: ") for note in robustness_table([one], table, read, "").notes)
    above, other = robustness_rows([one], depth=0.5)
    assert not any("framed" in note for note in robustness_table([one], above, other, "").notes)


def test_a_network_without_a_value_does_not_keep_the_others_from_theirs(contenders: list[Contender]) -> None:
    dead = record({0.5: 0.6, 1.0: 0.9})
    rows = [
        row
        if row.factor == 1
        else row.model_copy(update={"mean": None, "reason": Note.of("dead-tap", images=10)})
        for row in dead.rows
    ]
    lost = Contender("lost", dead.model_copy(update={"rows": rows}), COST)
    together, read = robustness_rows([contenders[0], lost, contenders[3]])
    assert read.factors == (0.5,)
    assert [row.tap for row in together] == ["conv4", "conv4", "conv4"]
    assert together[0].delta == robustness_rows(contenders)[0][0].delta
    table = robustness_table([contenders[0], lost, contenders[3]], together, read, "")
    assert together[1].delta is None
    assert "— Δ: lost: dead tap: L_sΦ(f) vanishes for all 10 images." in table.notes
