"""The tables that a sweep's file names are checked before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from secli.errors import InputError
from secli.sweeps.spec import SweptTable, read_sweep


def written(tmp_path: Path, table: dict[str, Any]) -> Path:
    file = tmp_path / "sweep.yaml"
    content = {
        "name": "trial",
        "about": "a trial",
        "models": ["cnn"],
        "datasets": ["digits-scale"],
        "tables": [{"title": "Errors", **table}],
    }
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"rows": ["system", "net"], "columns": ["size", "augment"], "published": True, "ranks": True},
        {
            "rows": ["label", "model.base"],
            "columns": ["tag", "training.lr"],
            "values": ["delta_0.5", "accuracy"],
        },
        {"curves": True, "factors": [1, 0.5], "only": {"model": ["cnn", "dss_*"], "tag": "a"}},
        {"ablate": ["model.base", "lr"], "test": "wilcoxon"},
    ],
)
def test_what_the_tables_know_is_taken(tmp_path: Path, table: dict[str, Any]) -> None:
    (found,) = read_sweep(written(tmp_path, table)).tables
    assert isinstance(found, SweptTable)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rows": ["sistem"]}, "unknown fact 'sistem'; did you mean 'system'?"),
        ({"columns": ["augmnt"]}, "unknown fact 'augmnt'; did you mean 'augment'?"),
        ({"ablate": ["training.lrate"]}, "unknown fact"),
        ({"only": {"modl": "cnn"}}, "did you mean 'model'?"),
        ({"values": ["test_eror"]}, "unknown quantity 'test_eror'; did you mean 'test_error'?"),
        ({"factors": [0]}, "greater than 0"),
        ({"rows": []}, "at least 1 item"),
        ({"rows": ["label"], "columns": ["label"]}, "label is both row and column"),
        ({"curves": True, "columns": ["augment"]}, "columns, curves and ablate exclude each other"),
        ({"test": "anova"}, "test"),
        ({"colums": ["size"]}, "unknown key 'tables.0.colums'"),
    ],
)
def test_what_they_do_not_know_is_refused_in_one_line(
    tmp_path: Path, table: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_sweep(written(tmp_path, table))
    assert message in str(caught.value)
    assert "sweep.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
