"""A worker process imports nothing from the working directory, and still finds this package and PYTHONPATH."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from secli.datasets.worker_command import package_home, safe_path, worker_command


@pytest.mark.parametrize("name", ["json", "secrets", "uuid", "pickle", "numpy", "secli"])
def test_a_module_of_the_working_directory_is_not_imported(tmp_path: Path, name: str) -> None:
    place, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    (place / f"{name}.py").write_text("open('EXECUTED', 'w')\nraise ImportError('shadowed')\n")
    (elsewhere / "own.py").write_text(
        f"import sys\ndef main():\n    import {name}\n    import secli\n    print(secli.__path__[0], sys.path[0])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(elsewhere)}
    done = subprocess.run(
        worker_command("own"), cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == str(Path(package_home()) / "secli")
    assert done.stdout.split()[1] == str(elsewhere)
    assert not (place / "EXECUTED").exists()


def test_the_switch_for_processes_of_multiprocessing_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "1"):
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        if before is not None:
            monkeypatch.setenv("PYTHONSAFEPATH", before)
        with safe_path():
            assert os.environ["PYTHONSAFEPATH"] == "1"
        assert os.environ.get("PYTHONSAFEPATH") == before
