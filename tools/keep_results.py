"""Keep the records of a sweep's finished runs: ``python -m tools.keep_results sweeps/published-core``.

Their small files (record, settings, metrics of the epochs, curves; no weights) are copied below ``results/``, and what
every other run has come to is told: that is what would be lost with the machine. Nothing is trained and the sweep may
be going on meanwhile.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from secli.errors import InputError, SecliError
from secli.records.epochs import METRICS_FILE
from secli.records.kept import keep
from secli.records.schema import SWEEP_FILE, SweepRecord, read_sweep_record, read_training_record
from secli.storage.writing import atomic_path


def keep_all(sweep: Path, into: Path) -> Iterator[str]:
    """Copy what is finished of a sweep into a folder of its name, and tell how each run stands, a line a run."""
    record = read_sweep_record(sweep)
    if record is None:
        raise InputError(f"{sweep}: no sweep here; 'secli sweep' writes {SWEEP_FILE}")
    home, some = into / record.name, False
    for run in dict.fromkeys(one.run for one in record.runs):
        try:
            line = _kept(sweep / run, home / run)
        except SecliError as error:
            yield f"{run}: {_standing(sweep / run) or str(error).removeprefix(f'{sweep / run}: ')}"
        else:
            some = True
            yield f"{run}: {line}"
    if some:
        _list_runs(sweep, record, home)


def _kept(run: Path, into: Path) -> str:
    kept = keep(run, into)
    if kept is None:
        return "kept before"
    return "kept" if kept.curves is not None else "kept, without curves: none were measured yet"


def _standing(run: Path) -> str | None:
    """Say what would be lost of an unfinished run; None of one that is finished, and so damaged."""
    if not run.exists():
        return "not begun"
    record = read_training_record(run)
    if record.status == "finished":
        return None
    try:
        done = len((run / METRICS_FILE).read_bytes().splitlines())
    except OSError:
        done = 0
    return f"{record.status}: {done} of {record.training['epochs']} epochs would be lost with this machine"


def _list_runs(sweep: Path, record: SweepRecord, home: Path) -> None:
    """Write the list of the sweep's runs too: its order and its names are those of the tables."""
    there = home / SWEEP_FILE
    if not there.exists() or read_sweep_record(home) != record:
        with atomic_path(there) as temporary:
            shutil.copyfile(sweep / SWEEP_FILE, temporary)


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="the sweep's directory (its --out)")
    parser.add_argument("--into", type=Path, default=Path("results"), help="where records are kept")
    given = parser.parse_args()
    try:
        for line in keep_all(given.sweep, given.into):
            print(line)
    except (SecliError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
