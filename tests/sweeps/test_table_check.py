"""What a sweep's tables ask for must be among its runs; that is told when the file is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from secli.errors import InputError
from secli.sweeps.plan import plan
from secli.sweeps.prepare_data import Sources
from tests.sweeps.conftest import sweep_of

PARTS = [
    {"tag": "small", "models": [{"name": "dss_v1", "label": "DSS", "options": {"base": 1.5}}]},
    {"tag": "large", "models": ["mnist_cnn_28", "cnn"], "training": {"augment": "scale", "epochs": 3}},
]
SETS = [{"name": "digits-scale", "realisations": [0, 1], "sizes": [64, 20, 30]}]


def planned(table: dict[str, Any], overrides: dict[str, Any] | None = None, **keys: Any) -> None:
    tables = [{"title": "whole"}, {"title": "mine", **table}]
    keys = {"models": None, "parts": PARTS, "datasets": SETS} | keys
    plan(sweep_of(**keys, tables=tables), overrides=overrides)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"only": {"label": "DDS"}}, "only: no run has label DDS; did you mean 'DSS'?"),
        ({"only": {"tag": "smal"}}, "only: no run has tag smal; did you mean 'small'?"),
        ({"only": {"tag": ["small", "huge"]}}, "only: no run has tag huge; known: large, small"),
        ({"only": {"model": "dcn*"}}, "only: no run has model dcn*"),
        ({"only": {"model.bse": 1.5}}, "only: no run has 'model.bse'; did you mean 'model.base'?"),
        ({"only": {"model.base": 2}}, "only: no run has model.base 2; known: "),
        ({"only": {"training.epochs": 4}}, "only: no run has epochs 4; known: 2, 3"),
        ({"only": {"seed": 1}}, "only: no run has seed 1; known: 0"),
        ({"only": {"system": "mnist_cnm"}}, "only: no run has system mnist_cnm; did you mean 'mnist_cnn'?"),
        ({"only": {"size": 56}}, "only: no run has size 56"),
        ({"only": {"net": "p"}}, "only: no run has net p; known: plain"),
        ({"only": {"realisation": "0"}}, "only: no run has realisation 0"),
        ({"only": {"dataset": "digit-scale"}}, "only: no run has dataset digit-scale; did you mean"),
        (
            {"only": {"tag": "small", "model": "cnn"}},
            "only: no run matches all of {'tag': 'small', 'model': 'cnn'}",
        ),
        ({"rows": ["model.bse"]}, "rows: no run has 'model.bse'; did you mean 'model.base'?"),
        ({"columns": ["model.rotation"]}, "columns: no run has 'model.rotation'"),
        ({"ablate": ["model.levls"]}, "ablate: no run has 'model.levls'; did you mean 'model.levels'?"),
    ],
)
def test_what_no_run_has_is_refused_with_the_table_and_the_entry(table: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        planned(table)
    assert str(caught.value).startswith(f"sweep tiny: table 'mine': {told}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "table",
    [
        {"only": {"tag": "small", "label": "D*", "model.base": 1.5, "realisation": [0, 1]}},
        {"only": {"tag": ["small", "large"], "augmentation": ["none", "scale"], "lr": 0.01}},
        {"only": {"dataset": "digits-scale"}},
        {"only": {"dataset": "digits-scale-*"}},
        {"only": {"device": "cuda", "parameters": 3}},  # told only by the finished run
        {"only": {"size": 28, "system": "mnist_cnn", "net": "plain"}},
        {"only": {"model": "dss_v1", "model.base": [1.5]}},
        {"rows": ["label", "model.base"], "columns": ["augment"]},
        {"rows": ["label"], "ablate": ["model.levels", "lr"]},
    ],
)
def test_what_some_run_has_passes(table: dict[str, Any]) -> None:
    planned(table)


def test_a_setting_of_the_command_line_makes_no_table_wrong() -> None:
    planned({"only": {"epochs": 3}}, overrides={"epochs": 1})
    with pytest.raises(InputError, match="no run has epochs 3; known: 1"):
        planned({"only": {"epochs": 3}}, parts=None, models=["cnn"], training={"epochs": 1})


def test_pictures_that_stand_in_may_have_any_name(tmp_path: Path) -> None:
    sweep = sweep_of(tables=[{"title": "mine", "only": {"dataset": "my-digits"}}])
    with pytest.raises(InputError, match="no run has dataset my-digits"):
        plan(sweep)
    plan(sweep, shape_of=Sources(tmp_path, stand_ins={"digits-scale": tmp_path}).shape_of())
