from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from secli.catalogue import MODELS
from secli.cli.app import app

runner = CliRunner()
pytestmark = pytest.mark.usefixtures("_described_once")


@pytest.mark.parametrize("columns", [80, 160])
def test_the_table_lists_every_model_and_keeps_its_width(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = runner.invoke(app, ["models"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(len(line) for line in lines) <= columns
    firsts = [line.split()[0] for line in lines if line.strip()]
    assert all(name in firsts for name in MODELS)
    row = next(line for line in lines if line.split()[:1] == ["dss_v1"])
    assert "20 538" in row
    assert "1×28×28" in row
    assert "Worrall, Welling, Deep Scale-spaces" in result.stdout
    assert "…" not in result.stdout


def test_json_is_complete_and_counts_are_real() -> None:
    result = runner.invoke(app, ["models", "--format", "json"])
    assert result.exit_code == 0
    models = json.loads(result.stdout)
    assert [model["name"] for model in models] == list(MODELS)
    counts = {model["name"]: model["parameters"] for model in models}
    for name, count in counts.items():
        assert count == MODELS[name].parameters
    assert (counts["cnn"], counts["dss_v1"]) == (34_670, 20_538)
    assert counts["mnist_ses_vector_56p"] == counts["mnist_cnn_28"] == 494_549
    assert counts["mnist_dss_scalar_56"] == 494_359
    for model in models:
        assert list(model) == ["name", "family", "paper", "parameters", "flops", "input", "taps", "options"]
        assert model["input"] == ([3, 96, 96] if model["name"].startswith("wrn_") else [1, 28, 28])
        assert model["flops"] > 0
        assert all(list(tap) == ["name", "field", "shape"] for tap in model["taps"])
        assert model["taps"][-1]["name"] == "logits"
        assert all(
            set(option) == {"name", "default", "allowed", "description"} for option in model["options"]
        )


@pytest.mark.parametrize("columns", [80, 160])
def test_one_model_in_full(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = runner.invoke(app, ["models", "dss_v1"])
    assert result.exit_code == 0
    assert max(len(line) for line in result.stdout.splitlines()) <= columns
    words = result.stdout.split()
    for expected in ("20", "538", "lift", "block2", "16×4×28×28", "interaction", "dilation", "drop_top"):
        assert expected in words, expected
    assert "NeurIPS" in words
    assert "milestones" in words
    assert "[20," in words  # brackets are data, not markup


def test_one_model_as_json_is_a_list_of_one() -> None:
    result = runner.invoke(app, ["models", "mnist_dss_vector_56", "--format", "json"])
    (model,) = json.loads(result.stdout)
    assert model["taps"][0] == {
        "name": "conv1",
        "field": "scale space 1,2, stride 0.5, base blur 0.125",
        "shape": [32, 2, 56, 56],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dss_v1x"], "error: unknown model 'dss_v1x'; did you mean 'dss_v1'?"),
        (
            ["mnist_ses_vector28"],
            "error: unknown model 'mnist_ses_vector28'; did you mean 'mnist_ses_vector_28'?",
        ),
        (["zebra"], "error: unknown model 'zebra'; known: cnn, dcn"),
        (["cnn", "dcn"], "error: Got unexpected extra argument"),
        (["--format", "xml"], "error: unknown format --format 'xml'; known: json, table"),
        ([""], "error: unknown model ''"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["models", *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1


def test_an_unknown_name_is_refused_before_torch_is_loaded() -> None:
    program = (
        "import sys; from secli.cli.app import app\n"
        "code = app(['models', 'zebra'], standalone_mode=False)\n"
        "assert code == 2, code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
