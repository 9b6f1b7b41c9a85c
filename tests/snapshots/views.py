"""What users see of stored runs: each view is rendered from files in ``runs``, nothing is computed.

``python -m tests.snapshots.views`` writes ``seen`` again; look at the difference before you commit it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.testing import CliRunner

from secli.cli.app import app
from secli.config import Config, MeasureSettings, ModelSettings, TrainingSettings
from secli.datasets.manifest import Manifest
from secli.records.schema import EquivarianceRecord, SweepRecord, TrainingRecord, read_record
from secli.sweeps.spec import Sweep
from secli.tables.curves import render_curves

HERE = Path(__file__).parent
SEEN = HERE / "seen"
FORMATS = ("table", "markdown", "latex", "csv", "json")
SUFFIXES = {"table": "txt", "markdown": "md", "latex": "tex", "csv": "csv", "json": "json"}
MEASURED = "runs/mnist_ses_vector_28/mnist-scale-r0-s0-none/equivariance.json"
FILES: dict[str, type[BaseModel]] = {
    "record.json": TrainingRecord,
    "equivariance.json": EquivarianceRecord,
    "sweep.json": SweepRecord,
    "manifest.json": Manifest,
    "config.yaml": Config,
    "sweep.yaml": Sweep,
    "model": ModelSettings,
    "training": TrainingSettings,
    "measure": MeasureSettings,
}
COMPARED = {
    "plain": ["--by", "augment"],
    "published": ["--by", "augment", "--published"],
    "accuracy": ["--by", "augment", "--accuracy", "--factors", "0.5,0.8", "--sort=-error"],
    "pivot": ["--rows", "model", "--columns", "augment", "--value", "test_error,delta", "--ranks"],
    "pivot-published": ["--rows", "label", "--columns", "size,augment", "--published", "--test", "wilcoxon"],
    "curves": ["--rows", "model", "--curves", "--tap", "block2"],
}


def run(*arguments: str, columns: int = 100) -> str:
    """Return what a command prints, in the folder of the stored runs."""
    here, typed = Path.cwd(), sys.argv
    os.chdir(HERE)
    sys.argv = ["secli", *arguments]
    try:
        result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns), "NO_COLOR": "1"})
    finally:
        os.chdir(here)
        sys.argv = typed
    assert result.exit_code == 0, result.stderr
    return rounded(result.stdout)


def report(suffix: str) -> str:
    """Return a report's text; its pictures are matplotlib's."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(HERE / "runs", Path(folder) / "runs")
        run("report", "runs", "-o", f"{folder}/report.{suffix}", "--title", "Stored runs", "--published")
        text = (Path(folder) / f"report.{suffix}").read_text(encoding="utf-8").replace(folder, "FOLDER")
    text = re.sub(r"<svg.*?</svg>", "<svg/>", text, flags=re.DOTALL)
    return rounded(re.sub(r"data:image/[^\"')]*", "data:image", text))


def rounded(text: str) -> str:
    """Return a text whose long numbers are cut: libraries add in another order."""
    return re.sub(r"-?\d+\.\d{8,}(e-?\d+)?", lambda found: f"{float(found[0]):.8g}", text)


def schema(of: type[BaseModel]) -> str:
    """Return every key of a file: its kind, its default, what it says."""
    keys = plain(of.model_json_schema(mode="validation"))
    return json.dumps(keys, indent=1, sort_keys=True, ensure_ascii=False)


def plain(node: Any) -> Any:
    """Return a schema without what versions of pydantic write in different ways."""
    if isinstance(node, list):
        return [plain(each) for each in node]
    if isinstance(node, float) and node.is_integer():
        return int(node)
    if not isinstance(node, dict):
        return node
    names = {"maxLength": "maxItems", "minLength": "minItems"} if node.get("type") == "array" else {}
    kept = {
        names.get(key, key): plain(value)
        for key, value in node.items()
        if isinstance(value, dict) or key not in ("title", "additionalProperties")
    }
    kept.pop("propertyNames", None)
    if len(kept.get("allOf", ())) == 1:
        kept |= kept.pop("allOf")[0]
    if "const" in kept:
        kept.pop("enum", None)
    return kept


def views() -> dict[str, Callable[[], str]]:
    """Return how each view is rendered, by the name of its file."""
    found: dict[str, Callable[[], str]] = {}
    for name, options in COMPARED.items():
        for form in FORMATS:
            found[f"compare-{name}.{SUFFIXES[form]}"] = partial(
                run, "compare", "runs", *options, "--format", form
            )
        found[f"compare-{name}-160.txt"] = partial(run, "compare", "runs", *options, columns=160)
    for form in FORMATS:
        found[f"equivariance.{SUFFIXES[form]}"] = partial(_curves, form)
    for suffix in ("html", "md"):
        found[f"report.{suffix}"] = partial(report, suffix)
    for columns in (80, 160):
        found[f"models-{columns}.txt"] = partial(run, "models", columns=columns)
    found["model.txt"] = partial(run, "models", "mnist_ses_vector_28", columns=80)
    for file, kind in FILES.items():
        found[f"schema-{file}.json"] = partial(schema, kind)
    return found


def _curves(form: str) -> str:
    record = read_record(HERE / MEASURED)
    assert isinstance(record, EquivarianceRecord)
    return rounded(render_curves([record], form, width=80))


if __name__ == "__main__":
    chosen = sys.argv[1:]
    SEEN.mkdir(exist_ok=True)
    for name, render in views().items():
        if not chosen or any(each in name for each in chosen):
            (SEEN / name).write_text(render(), encoding="utf-8")
    stale = {path.name for path in SEEN.iterdir()} - set(views())
    for name in stale:
        (SEEN / name).unlink()
    sys.stdout.write(f"written to {SEEN}: look at the difference before you commit it\n")
