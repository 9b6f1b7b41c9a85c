"""Any encoding of stdout and stderr, closed ones too: nothing fails, nothing is lost, programs get UTF-8."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from secli.cli import console
from secli.cli.app import app
from secli.cli.streams import prepare_streams
from secli.datasets.build import make_dataset

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
ENCODINGS = ["ascii", "cp1252", "latin-1", "cp437", "utf-16", "utf-8"]


def run(monkeypatch: pytest.MonkeyPatch, encoding: str, *arguments: str) -> tuple[int, bytes, bytes]:
    """Run secli in this process with streams of an encoding that refuse what does not fit."""
    streams = io.BytesIO(), io.BytesIO()
    for name, stream in zip(("stdout", "stderr"), streams, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(stream, encoding=encoding, errors="strict"))
    code = typer.main.get_command(app).main(list(arguments), standalone_mode=False)
    sys.stdout.flush()
    sys.stderr.flush()
    return code, streams[0].getvalue(), streams[1].getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_help_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    for command in COMMANDS:
        code, out, error = run(monkeypatch, encoding, command, "--help")
        assert (code, error) == (0, b"")
        text = out.decode(encoding)
        assert "Usage:" in text
        assert "--help" in text


def test_what_does_not_fit_is_written_in_letters_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = run(monkeypatch, "ascii", "equivariance", "--help")
    said = " ".join(out.decode("ascii").split())
    assert "D = ||L_s Phi(f) - Phi(L_s f)||^2 / ||L_s Phi(f)||^2" in said
    assert "\\u" not in said


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_texts_are_kept(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding=encoding, errors="strict"))
    prepare_streams()
    console.out("Δσ ± 1 │ Größe 图 \U0001f4f7 ok")
    console.out('{"Δ": "图"}', "json")
    sys.stdout.flush()
    content = stream.getvalue()
    assert content.endswith('{"Δ": "图"}\n'.encode())
    text = content.removesuffix('{"Δ": "图"}\n'.encode()).decode(encoding)
    expected = {
        "ascii": r"Ds +- 1 | Gr\xf6\xdfe \u56fe \U0001f4f7 ok",
        "cp1252": r"Ds ± 1 | Größe \u56fe \U0001f4f7 ok",
        "latin-1": r"Ds ± 1 | Größe \u56fe \U0001f4f7 ok",
        "cp437": r"Dσ ± 1 │ Größe \u56fe \U0001f4f7 ok",
    }
    assert text == expected.get(encoding, "Δσ ± 1 │ Größe 图 \U0001f4f7 ok") + "\n"


def test_a_file_name_that_is_no_text_is_written_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding="utf-8", errors="strict"))
    prepare_streams()
    console.out(b"runs/\xff\xe9".decode("utf-8", "surrogateescape"))
    sys.stdout.flush()
    assert stream.getvalue() == b"runs/\xff\xe9\n"


def test_a_measurement_in_ascii(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_dataset("digits", tmp_path, jobs=1)
    arguments = ["equivariance", "mnist_cnn_28", "--data", str(tmp_path / "digits" / "r0"), "--taps", "conv1"]
    arguments += ["--factors", "0.7", "--images", "4", "--threads", "1", "-q"]
    code, out, error = run(monkeypatch, "ascii", *arguments)
    assert (code, error) == (0, b"")
    assert b"Equivariance error D_s" in out
    assert len({len(line) for line in out.splitlines() if line.startswith(b"+")}) <= 2
    code, out, _ = run(monkeypatch, "ascii", *arguments, "--format", "json")
    assert code == 0
    assert json.loads(out.decode("utf-8"))["model"]["name"] == "mnist_cnn_28"


def test_closed_streams_lose_nothing_but_the_text(tmp_path: Path) -> None:
    command = '"$0" -m secli make-data digits --out "$1" --jobs 1 >&- 2>&- <&-'
    done = subprocess.run(["sh", "-c", command, sys.executable, str(tmp_path)], check=False)
    assert done.returncode == 0
    assert (tmp_path / "digits" / "r0" / "manifest.json").is_file()
