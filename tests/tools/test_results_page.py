"""The section of kept records is what the command writes; its verdicts follow from values, departures and numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secli.errors import InputError
from secli.records.kept import config_text, portable, read_kept
from secli.records.schema import RECORD_FILE
from secli.tables.groups import summarise
from secli.tables.published import load_published, reported
from secli.tables.statistic import statistic
from tests.tables.fabricate import training, write_run
from tools.results_page import BEGIN, COMMAND, END, PAGE, RESULTS, section, verdict, with_section

NAME = "mnist_ses_vector_28"


def test_the_page_is_what_the_command_writes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_section(text, RESULTS) == text, f"stale: {COMMAND}"


def unfit(results: Path) -> list[str]:
    """Return the records below a folder that are not whole, or that name a path of the machine they were made on."""
    found = []
    for file in sorted(results.rglob(RECORD_FILE)):
        try:
            whole = read_kept(file.parent)
        except InputError as error:
            found.append(str(error))
        else:
            found += [str(file)] if portable(whole) != whole else []
    return found


def test_kept_records_are_whole_and_name_no_path_of_a_machine(tmp_path: Path) -> None:
    assert unfit(RESULTS) == []
    record = training("cnn", epochs=2)
    run = write_run(tmp_path / "core" / "cnn" / "run", record)
    rows = [{"epoch": epoch, "val_error": 0.05, "seconds": 50.0} for epoch in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (run / "config.yaml").write_text(config_text(record))
    assert unfit(tmp_path) == []
    moved = record.model_copy(update={"data": record.data.model_copy(update={"path": "/home/me/x/r0"})})
    write_run(run, moved)
    assert "says other settings than record.json" in unfit(tmp_path)[0]
    (run / "config.yaml").write_text(config_text(moved))
    assert unfit(tmp_path) == [str(run / RECORD_FILE)]


def kept(results: Path, name: str, errors: list[float], **settings: Any) -> None:
    for r, error in enumerate(errors):
        record = training(name, error, realisation=r, **settings)
        write_run(results / "core" / name / f"mnist-scale-r{r}-s0-{r:012x}{len(settings)}", record)


def row(results: Path, name: str) -> str:
    (line,) = [line for line in section(results).splitlines() if line.startswith(f"| {name} |")]
    return line


def test_a_row_has_what_was_measured_beside_what_is_published(tmp_path: Path) -> None:
    kept(tmp_path, NAME, [0.0200, 0.0208, 0.0216])
    cells = [cell.strip() for cell in row(tmp_path, NAME).strip("|").split("|")]
    assert cells == [
        NAME, "none", "3", "2.08 ± 0.08", "2.08 ± 0.09 (paper); 2.00 ± 0.20 (reproduction)",
        "+0.0; +0.9", "0.03", "cpu, 2 threads", "reproduced",
    ]  # fmt: skip
    text = section(tmp_path)
    assert "- paper: " in text
    assert "secli compare results --published" in text


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([0.0208, 0.0209], "open: n = 2"),
        ([0.0300, 0.0301, 0.0302], "not reproduced: worse"),
        ([0.0100, 0.0101, 0.0102], "not reproduced: better"),
        ([0.0205, 0.0209, 0.0213], "reproduced"),
    ],
)
def test_a_verdict_is_spoken_by_the_difference(tmp_path: Path, errors: list[float], said: str) -> None:
    kept(tmp_path, NAME, errors)
    assert row(tmp_path, NAME).endswith(f"| {said} |")


def test_another_protocol_is_no_reproduction_and_is_named(tmp_path: Path) -> None:
    kept(tmp_path, NAME, [0.0208, 0.0209, 0.0207], epochs=2)
    assert row(tmp_path, NAME).endswith("| other protocol: epochs 60 there, 2 here |")


def test_augmented_runs_have_a_row_of_their_own(tmp_path: Path) -> None:
    kept(tmp_path, "mnist_cnn_28", [0.02, 0.021, 0.022])
    kept(tmp_path, "mnist_cnn_28", [0.018, 0.019, 0.017], augment="scale")
    rows = [line for line in section(tmp_path).splitlines() if line.startswith("| mnist_cnn_28 |")]
    assert [line.split("|")[2].strip() for line in rows] == ["none", "scale"]


def test_without_a_deviation_nothing_is_decided(tmp_path: Path) -> None:
    kept(tmp_path, NAME, [0.02, 0.02, 0.02])
    figures = reported(summarise([tmp_path]).rows[0], load_published())
    bare = replace(figures[0], figure=figures[0].figure.model_copy(update={"std": None}))
    assert verdict(statistic([0.02, 0.021, 0.022]), [bare]) == "open: no deviation published"
    assert verdict(statistic([0.02]), []) == "nothing published"


def test_no_kept_run_is_said_so_and_lost_markers_are_told(tmp_path: Path) -> None:
    assert "No run of full length has been kept yet." in section(tmp_path)
    page = f"a\n{BEGIN}\nold\n{END}\nb\n"
    assert with_section(page, tmp_path).startswith("a\n" + BEGIN)
    assert with_section(page, tmp_path).endswith(END + "\nb\n")
    for broken in ("a", f"{END}{BEGIN}", page + page):
        with pytest.raises(InputError, match="needs one"):
            with_section(broken, tmp_path)
