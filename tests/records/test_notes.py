"""Notes: worded, grouped, through JSON and back, read from older records, and hostile ones refused."""

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from secli.errors import InputError
from secli.records.codes import CODES
from secli.records.notes import (
    LONGEST_TEXT,
    Note,
    NotMeasurableError,
    by_form,
    note_of,
    recognised,
    row_in_words,
    worded,
)
from secli.records.schema import EquivarianceRecord, TrainingRecord, read_record, write_record
from tests.tables.fabricate import curve_row, curves, training, with_controls

TEXTS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=20)
SIZES = st.lists(st.integers(0, 2**31), max_size=4).map(tuple)
NUMBERS = st.floats(-1e9, 1e9) | st.integers(-(2**31), 2**31)
OWN_WORDS = sorted(CODES.keys() - {"failed", "older"})


def values(spec: str) -> st.SearchStrategy[Any]:
    if spec in (", ", "×"):
        return SIZES
    if spec == "d":
        return st.integers(0, 10**9)
    return NUMBERS if spec else TEXTS


@st.composite
def notes(draw: st.DrawFn, codes: list[str]) -> Note:
    code = draw(st.sampled_from(codes))
    parsed = string.Formatter().parse(CODES[code].words)
    return Note.of(code, **{name: draw(values(spec or "")) for _, name, spec, _ in parsed if name})


def cells(*counts: float) -> list[Note]:
    return [Note.of("too-few-cells", cells=count, least=4) for count in counts]


def test_numbers_that_vary_are_ranges() -> None:
    assert worded(cells(3.5)) == "the picture covers 3.5 cells of this tap, fewer than 4"
    assert worded(cells(3.5, 2.333, 3)) == "the picture covers 2.3–3.5 cells of this tap, fewer than 4"
    assert worded(cells(3.501, 3.499)) == worded(cells(3.5))
    shares = [Note.of("few-compared", share=share) for share in (0.082, 0.031)]
    assert worded(shares) == "only 3.1–8.2% of the cells can be compared"
    shapes = [Note.of("input-shape-unknown", shape=shape) for shape in ((7, 7, 64), (14, 7, 32))]
    assert worded(shapes) == "nothing says how scale acts on (N, 7–14, 7, 32–64), which goes into it"
    assert str(Note.of("no-class-scores", shape=(2, 5, 8), images=2)).startswith(
        "the network returns 2×5×8 for"
    )


def test_notes_of_one_form_say_the_same_of_other_numbers() -> None:
    metric = [Note.of("metric-undefined", metric=name, undefined=3, images=4) for name in ("a", "b")]
    assert [len(same) for same in by_form([*cells(1, 2), *metric, *cells(3)]).values()] == [3, 1, 1]
    one, other = (Note.of("tokens", shape=(5, 8), tap=tap, tokens=5) for tap in ("a", "b"))
    assert one.form == other.form  # the tap is an example of what to declare
    assert worded([one, other]) == str(one)
    longer = Note.of("tokens", shape=(5, 8, 9), tap="a", tokens=5)
    assert longer.form != one.form


def test_a_code_and_its_data_must_be_known_where_a_note_is_made() -> None:
    with pytest.raises(KeyError):
        Note.of("never-heard-of")
    with pytest.raises(KeyError, match="needs"):
        Note.of("too-few-cells", cells=3)


def test_what_a_newer_secli_wrote_is_shown_as_it_is() -> None:
    newer = Note(code="from-the-future", data={"cells": 2.5, "tap": "conv", "shape": [2, 3]})
    assert str(newer) == "from-the-future (cells 2.5, tap conv, shape 2, 3)"
    assert str(Note(code="from-the-future")) == "from-the-future"
    assert str(Note(code="too-few-cells", data={"cells": "three", "least": 4})) == (
        "too-few-cells (cells three, least 4)"
    )
    assert str(Note(code="tiny-plane", data={"cells": [1]})) == "tiny-plane (cells 1)"
    assert str(Note(code="dead-tap")) == "dead-tap"


def test_other_data_than_examples_have_are_never_mixed() -> None:
    data = {"shape": [2, 3], "tokens": 3}
    found = [
        Note(code="tokens", data={**data, **tap}) for tap in ({}, {"tap": 1}, {"tap": [1]}, {"tap": "a"})
    ]
    assert all(map(worded, by_form(found).values()))
    assert len(by_form(found)) == 4


def test_a_note_is_made_of_numbers_that_are_not_finite_too() -> None:
    note = Note.of("wrong-extent", tap="a", cells=3, stride=float("inf"), covered=float("nan"), pixels=28)
    assert str(note) == "wrong-extent (tap a, cells 3, stride inf, covered nan, pixels 28)"


@given(notes(sorted(CODES)))
def test_a_note_survives_json(note: Note) -> None:
    assert Note.model_validate(json.loads(note.model_dump_json())) == note
    assert "\n" not in str(note)


@given(st.lists(notes(sorted(CODES)), min_size=1, max_size=6))
def test_any_notes_of_one_form_can_be_worded(found: list[Note]) -> None:
    for same in by_form(found).values():
        assert worded([same[0]] * 2) == str(same[0])
        assert worded(same)


@given(notes(OWN_WORDS))
def test_every_sentence_is_recognised_and_says_the_same_again(note: Note) -> None:
    assert str(recognised(str(note))) == str(note)


@given(st.text(max_size=200))
def test_any_sentence_of_an_old_record_is_read(sentence: str) -> None:
    assert recognised(sentence).code in CODES


@pytest.mark.parametrize(
    ("sentence", "code"),
    [
        ("the picture covers 2.3 cells of this tap, fewer than 4", "too-few-cells"),
        ("only 8.2% of the cells can be compared", "few-compared"),
        ("dead tap: Φ(f) vanishes for all 40 images", "dead-tap-unscaled"),
        ("nothing says how scale acts on (N, 14, 14, 6), which goes into it", "input-shape-unknown"),
        (
            "its output (N, 197, 8) needs a field: --field 'a=tokens:14x14+1', for example",
            "tokens-in-a-square",
        ),
        ("the loss is not finite at epoch 1, step 2 of 4 (learning rate 1e+30)", "loss-not-finite"),
        ("fewer than 4 cells", "older"),
        ("the picture covers 1e999 cells of this tap, fewer than 4", "older"),
        ("the network returns 9" + "9" * 30 + " for 2 images, not one row of class scores for each", "older"),
        ("a" * (LONGEST_TEXT + 1), "older"),
        ("", "older"),
    ],
)
def test_sentences_of_old_records(sentence: str, code: str) -> None:
    found = recognised(sentence)
    assert found.code == code
    assert str(found) == sentence or len(sentence) > LONGEST_TEXT


def old_form(content: dict[str, Any]) -> dict[str, Any]:
    """Return a record's content as schema version 1 wrote it."""

    def part(value: Any) -> Any:
        if isinstance(value, dict) and set(value) == {"code", "data"}:
            return str(Note(**value))
        if isinstance(value, dict):
            return {key: 1 if key == "schema_version" else part(one) for key, one in value.items()}
        return [part(one) for one in value] if isinstance(value, list) else value

    found: dict[str, Any] = part(content)
    return found


def measured() -> EquivarianceRecord:
    rows = [
        curve_row("a", 0.3, None, reason="the picture covers 2.3 cells of this tap, fewer than 4"),
        curve_row("a", 0.5, 0.1, warnings=("tiny plane: the picture covers 7 cells", "words of its own")),
    ]
    record = curves(rows=rows)
    accuracy = [row.model_copy(update={"reason": Note.of("no-labels")}) for row in record.accuracy]
    return with_controls(record.model_copy(update={"accuracy": accuracy}))


@pytest.mark.parametrize(
    "record", [measured(), training("cnn", status="failed", reason="disk full")], ids=["curves", "training"]
)
def test_records_of_version_1_are_read_as_before(
    tmp_path: Path, record: EquivarianceRecord | TrainingRecord
) -> None:
    file = tmp_path / "record.json"
    write_record(file, record)
    assert read_record(file) == record
    old = old_form(json.loads(file.read_text(encoding="utf-8")))
    assert '"code"' not in json.dumps(old)
    file.write_text(json.dumps(old), encoding="utf-8")
    assert read_record(file) == record


@pytest.mark.parametrize(
    "change",
    [
        {"reason": "a sentence in a record of notes"},
        {"reason": {"code": "Bad Code", "data": {}}},
        {"reason": {"code": "x" * 100, "data": {}}},
        {"reason": {"code": "older", "data": {"text": {"deeper": 1}}}},
        {"reason": {"code": "older", "data": {"sizes": [[1]]}}},
        {"reason": {"code": "older", "data": {"sizes": list(range(100))}}},
        {"reason": {"code": "older", "data": {"cells": 10**19}}, "warnings": [1]},
        {"reason": {"code": "older", "data": {"on": True}}},
        {"reason": {"code": "older", "data": {"a\x1b[31m": 1}}},
        {"reason": {"code": "older", "data": {f"n{'x' * k}": k for k in range(25)}}},
        {"reason": {"code": "older", "more": 1}},
        {"warnings": [{"code": None}]},
    ],
)
def test_damaged_notes_are_refused_in_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "record.json"
    content = curves(rows=[curve_row("a", 0.5, None)]).model_dump(mode="json")
    content["rows"][0] |= change
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match="damaged record") as caught:
        read_record(file)
    told = str(caught.value).replace(str(file), "")
    assert "\n" not in told
    assert "\x1b" not in told
    assert len(told) < 300


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e200, -(10**150)])
def test_numbers_are_finite_and_bounded(number: float) -> None:
    with pytest.raises(ValidationError):
        Note(code="tiny-plane", data={"cells": number})


def test_texts_are_one_bounded_line_without_control_characters() -> None:
    note = Note.of("failed", error="red\x1b[31m\nand \u202emore" + "x" * 10**6)
    assert str(note).startswith("red\\x1b[31m and \\u202emore")
    assert len(str(note)) == LONGEST_TEXT


def test_an_error_says_why_a_value_is_missing() -> None:
    note = cells(3)[0]
    assert note_of(NotMeasurableError(note)) == note
    assert str(NotMeasurableError(note)) == str(note)
    assert note_of(ValueError("bad")) == Note.of("failed", error="bad")


def test_a_row_is_read_in_words() -> None:
    read = row_in_words(
        curve_row("a", 0.5, 0.1, warnings=("framed", "tiny plane: the picture covers 7 cells"))
    )
    assert read["warnings"] == ("framed", "tiny plane: the picture covers 7 cells")
    assert (read["reason"], read["mean"]) == (None, 0.1)
