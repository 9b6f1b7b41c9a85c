"""Records that are older than an option or a setting belong to those that have it at its default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from secli.records.identity import BEFORE, pooling_key, settings_of, told_defaults, training_differences
from secli.records.schema import ModelInfo, read_record
from secli.tables.groups import summarise
from tests.tables.fabricate import curves, training, write_run


def runs(root: Path, *, augment: str = "none", changed: dict[str, Any] | None = None) -> Path:
    """Three runs of ``dss_v1``; the first knows neither ``io_levels`` nor ``centre``."""
    options = {"base": 2.0, "io_levels": None}
    for realisation in range(3):
        record = training("dss_v1", 0.05, realisation=realisation, options=options, augment=augment)
        told = {"changed": changed or {}}
        record = record.model_copy(update={"model": ModelInfo(**{**record.model.model_dump(), **told})})
        run = write_run(root / f"r{realisation}", record)
        if realisation == 0:
            file = run / "record.json"
            content = json.loads(file.read_text())
            del content["model"]["options"]["io_levels"], content["training"]["centre"]
            file.write_text(json.dumps(content))
    return root


def test_an_older_record_stands_in_the_row_of_newer_ones(tmp_path: Path) -> None:
    summary = summarise([runs(tmp_path)])
    assert [row.n for row in summary.rows] == [3]
    assert not summary.set_aside


def test_a_default_is_the_registrys_not_the_value_that_a_run_took(tmp_path: Path) -> None:
    summary = summarise([runs(tmp_path, changed={"io_levels": 4})])
    assert [row.n for row in summary.rows] == [2]
    assert "io_levels" in summary.set_aside[0].reason


def test_what_the_older_augmentation_trained_stays_apart(tmp_path: Path) -> None:
    summary = summarise([runs(tmp_path, augment="scale")])
    assert [row.n for row in summary.rows] == [2]
    assert "centre" in summary.set_aside[0].reason
    assert settings_of({"augment": "scale"})["centre"] == BEFORE
    assert settings_of({"augment": "none"})["centre"] == "pixel"


def test_curves_of_older_and_newer_runs_are_pooled() -> None:
    old, new = (
        curves("dss_v1", options={"base": 2.0}),
        curves("dss_v1", options={"base": 2.0, "io_levels": None}),
    )
    new = new.model_copy(update={"model": ModelInfo(**{**new.model.model_dump(), "changed": {}})})
    defaults = told_defaults([old.model, new.model])
    trained = training("dss_v1")
    older = trained.model_copy(
        update={"training": {k: v for k, v in trained.training.items() if k != "centre"}}
    )
    assert pooling_key(old, older, defaults) == pooling_key(new, trained, defaults)
    other = new.model_copy(
        update={"model": new.model.model_copy(update={"options": {"base": 2.0, "io_levels": 2}})}
    )
    assert pooling_key(other, trained, defaults) != pooling_key(new, trained, defaults)


@pytest.mark.parametrize("name", ["resnet18", "net.py:Net"])
def test_networks_of_others_are_left_as_they_are(name: str) -> None:
    told = ModelInfo(name=name, options={"weights": "a.pth"}, parameters=1, changed={})
    assert told_defaults([told]) == {}


def test_a_record_that_was_read_says_what_it_knows(tmp_path: Path) -> None:
    record = read_record(write_run(tmp_path, training("cnn")) / "record.json")
    assert "changed" in record.model.model_fields_set


def test_a_run_of_another_model_is_another_run() -> None:
    record = training("cnn", 0.05)
    (found,) = training_differences("dcn", record.model.options, record.training, record, {})
    assert found == ("model", "dcn", "cnn")
