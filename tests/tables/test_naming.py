"""What tables call a set of images: no hash where a protocol and what differs from it tell it from its neighbours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from secli.records.schema import DataInfo
from secli.tables.aggregate import summarise
from secli.tables.comparison import compare
from secli.tables.formats import render
from secli.tables.naming import called, with_realisations
from secli.tables.report.gather import gather
from secli.tables.report.html import to_html
from tests.tables.fabricate import curves, data, training, write_run

SMALL = {"sizes": [60, 20, 40], "factors": [0.3, 1.0], "image_size": 28}


def info(name: str = "digits-scale-1a2b3c4d", realisation: int = 0, **parameters: Any) -> DataInfo:
    return data(name, realisation, "0" * 64).model_copy(update={"parameters": SMALL | parameters})


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (data("mnist-scale"), "mnist-scale"),
        (info(), "digits-scale (60 train, 20 val, 40 test)"),
        (info(factors=[0.5, 1]), "digits-scale (60 train, 20 val, 40 test, factors 0.5 to 1)"),
        (info(sizes=[1000, 200, 597], image_size=32), "digits-scale (32 px)"),
        (info("digits-1a2b3c4d", factors=None), "digits (60 train, 20 val, 40 test)"),
        (info("folder-scale-1a2b3c4d", image_size=None), "folder-scale (60 train, 20 val, 40 test)"),
        (data("digits-scale-1a2b3c4d"), "digits-scale-1a2b3c4d"),  # nothing tells what differs
        (data("my pictures-1a2b3c4d"), "my pictures-1a2b3c4d"),  # no protocol: the name of a folder
    ],
)
def test_what_differs_from_the_protocol_stands_in_place_of_the_hash(one: DataInfo, words: str) -> None:
    assert called([one, one]) == {one.name: words}


def test_the_hash_stays_where_two_would_be_equal() -> None:
    one, same, other = info(), info("digits-scale-5e6f7a8b"), info("digits-scale-99999999", sizes=[9, 9, 9])
    assert called([one, same, other]) == {
        one.name: "digits-scale-1a2b3c4d (60 train, 20 val, 40 test)",
        same.name: "digits-scale-5e6f7a8b (60 train, 20 val, 40 test)",
        other.name: "digits-scale (9 train, 9 val, 9 test)",
    }


@pytest.mark.parametrize(
    ("numbers", "words"),
    [([0], "r0"), ([1, 0], "r0, r1"), ([2, 0, 1, 1], "r0 to r2"), ([0, 1, 3], "r0, r1, r3")],
)
def test_realisations(numbers: list[int], words: str) -> None:
    assert with_realisations(data("digits", r) for r in numbers) == f"digits {words}"


def test_tables_and_reports_name_no_hash_and_programs_keep_the_name(tmp_path: Path) -> None:
    sets = [info(), info("digits-scale-5e6f7a8b", sizes=[90, 20, 40])]
    on = info("digits-0f0f0f0f", factors=None)
    for place, one in enumerate(sets):
        record = training("cnn", 0.05).model_copy(update={"data": one})
        measured = curves("cnn", trained_on=one).model_copy(update={"data": on})
        write_run(tmp_path / str(place), record, measured)
    comparison = compare(summarise([tmp_path], ("model", "dataset")))
    text = render(comparison.main, "table", 200)
    assert text.splitlines()[0] == (
        "Comparison over networks trained on digits-scale (60 train, 20 val, 40 test) r0; "
        "digits-scale (90 train, 20 val, 40 test) r0"
    )
    assert "images of digits (60 train, 20 val, 40 test) r0." in text
    assert text.count("digits-scale (90 train") > 1  # the row's own name
    for form in ("table", "markdown", "latex"):
        assert not any(
            name in render(comparison.main, form, 200) for name in ("1a2b3c4d", "5e6f7a8b", "0f0f0f0f")
        )
    assert [row["dataset"] for row in json.loads(render(comparison.main, "json"))] == [
        one.name for one in sets
    ]
    (aside,) = compare(summarise([tmp_path])).summary.set_aside
    assert aside.reason.startswith(
        "trained on digits-scale (90 train, 20 val, 40 test), not digits-scale (60 train"
    )
    page = to_html(gather([tmp_path], "secli report"))
    assert (
        page.count("1a2b3c4d") == page.count("1a2b3c4d r0 (trained on): sha256") == 1
    )  # the provenance at the foot
