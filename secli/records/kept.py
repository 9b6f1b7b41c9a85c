"""A finished run without its weights: which files that is, whether they agree, and a copy that may stand anywhere."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from secli.errors import InputError
from secli.records.epochs import METRICS_FILE
from secli.records.schema import (
    CURVES_FILE,
    MOST_BYTES,
    RECORD_FILE,
    DataInfo,
    EquivarianceRecord,
    Provenance,
    TrainingRecord,
    read_record,
    read_training_record,
    write_record,
)
from secli.storage.leftovers import owned
from secli.storage.writing import atomic_directory, replace_folder, write_text
from secli.yaml_files import check_depth, read_yaml

CONFIG_FILE = "config.yaml"

_REALISATION = re.compile(r"r\d+")


class KeptRun(NamedTuple):
    """A finished run as its small files tell it; ``curves`` is None where none were measured."""

    record: TrainingRecord
    curves: EquivarianceRecord | None


def config_text(record: TrainingRecord) -> str:
    """Return the YAML with which ``secli train --config`` repeats a run."""
    return yaml.safe_dump(_config(record), sort_keys=False, allow_unicode=True)


def _config(record: TrainingRecord) -> dict[str, Any]:
    return {
        "model": {"name": record.model.name, "options": record.model.options},
        "data": record.data.path,
        "training": record.training,
    }


def read_kept(run: Path) -> KeptRun:
    """Read a finished run's small files and check that they tell of one run, to its end.

    Raises
    ------
    InputError
        When the run is not finished, a file is missing or damaged, or two of them disagree; one line.
    """
    record = read_training_record(run)
    if record.status != "finished" or record.results is None:
        raise InputError(f"{run}: {record.status}, not finished")
    file = run / CONFIG_FILE
    if read_yaml(file, str(file)) != _config(record):
        raise InputError(f"{file}: says other settings than {RECORD_FILE}")
    _check_epochs(run / METRICS_FILE, record)
    if not (run / CURVES_FILE).exists():
        return KeptRun(record, None)
    curves = read_record(run / CURVES_FILE)
    if not isinstance(curves, EquivarianceRecord):
        raise InputError(f"{run / CURVES_FILE}: a record of kind '{curves.kind}', not of equivariance curves")
    on = curves.trained_on
    same = (curves.model, curves.seed) == (record.model, record.training["seed"])
    if not same or on is None or (on.name, on.digest) != (record.data.name, record.data.digest):
        raise InputError(f"{run / CURVES_FILE}: curves of another run than {RECORD_FILE}")
    return KeptRun(record, curves)


def _check_epochs(file: Path, record: TrainingRecord) -> None:
    """Refuse metrics that are not those of every epoch, or in which the kept epoch is another."""
    results = record.results
    assert results is not None
    rows = _metrics(file)
    if [row.get("epoch") for row in rows] != list(range(1, record.training["epochs"] + 1)):
        raise InputError(f"{file}: not the metrics of all {record.training['epochs']} epochs")
    if len(rows) != results.epochs or not 1 <= results.best_epoch <= len(rows):
        raise InputError(f"{file}: not the epochs that {RECORD_FILE} counts")
    best = rows[results.best_epoch - 1].get("val_error")
    if best != results.validation_error:
        raise InputError(f"{file}: epoch {results.best_epoch} has another error than {RECORD_FILE} says")
    seconds = sum(float(one) for row in rows if isinstance(one := row.get("seconds"), int | float))
    if not math.isclose(seconds, results.train_seconds, rel_tol=1e-6, abs_tol=1e-6):
        raise InputError(f"{file}: another time in all than {RECORD_FILE} says")


def _metrics(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open("rb") as stream:
            lines = stream.read(MOST_BYTES).splitlines()
    except FileNotFoundError:
        raise InputError(f"{file}: missing") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            check_depth(row)
        except (ValueError, RecursionError):
            raise InputError(f"{file}: line {number} is damaged") from None
        if not isinstance(row, dict):
            raise InputError(f"{file}: line {number} is no epoch")
        rows.append(row)
    return rows


def keep(run: Path, into: Path) -> KeptRun | None:
    """Copy a finished run's small files into a folder, which is whole or absent; None where it holds them already.

    The copies name no path of this machine: data are called as by their default folders, runs by their last two names.

    Raises
    ------
    InputError
        As :func:`read_kept`.
    """
    kept = portable(read_kept(run))
    if not into.exists():
        with atomic_directory(into) as folder:
            _write(folder, kept, run)
        return kept
    try:
        if read_kept(into) == kept:
            return None
    except InputError:
        pass  # damaged: replaced by the whole one
    with owned(into) as folder:
        folder.mkdir()
        _write(folder, kept, run)
        replace_folder(folder, into)
    return kept


def copy_kept(run: Path, folder: Path) -> KeptRun:
    """Write the small files of a finished run into a folder that is there; the same content as :func:`keep` gives.

    Raises
    ------
    InputError
        As :func:`read_kept`.
    """
    kept = portable(read_kept(run))
    _write(folder, kept, run)
    return kept


def _write(folder: Path, kept: KeptRun, run: Path) -> None:
    write_text(folder / CONFIG_FILE, config_text(kept.record))
    write_text(folder / METRICS_FILE, (run / METRICS_FILE).read_text(encoding="utf-8"))
    write_record(folder / RECORD_FILE, kept.record)
    if kept.curves is not None:
        write_record(folder / CURVES_FILE, kept.curves)


def portable(kept: KeptRun) -> KeptRun:
    """Return a run's records without paths that mean something on one machine only."""
    record = kept.record.model_copy(
        update={"data": _data(kept.record.data), "provenance": _provenance(kept.record.provenance)}
    )
    return KeptRun(record, None if kept.curves is None else _curves(kept.curves))


def _curves(curves: EquivarianceRecord) -> EquivarianceRecord:
    run = None if curves.run is None else _run(curves.run)
    changes = {
        "run": run,
        "weights": f"run {run}" if run is not None else curves.weights,
        "trained_on": None if curves.trained_on is None else _data(curves.trained_on),
        "data": _data(curves.data),
        "pooled": tuple(map(_run, curves.pooled)),
        "controls": [_curves(control) for control in curves.controls],
        "provenance": _provenance(curves.provenance),
    }
    return curves.model_copy(update=changes)


def _run(path: str) -> str:
    return "/".join(Path(path).parts[-2:]) if Path(path).is_absolute() else path


def _data(data: DataInfo) -> DataInfo:
    """Name a dataset as ``secli make-data`` lays it out: ``data/<dataset>/r<k>``; a folder by its name alone."""
    path = Path(data.path)
    if not path.is_absolute():
        return data
    parts = path.parts[-2:] if _REALISATION.fullmatch(path.name) else (path.name,)
    return data.model_copy(update={"path": str(Path("data", *parts))})


def _provenance(provenance: Provenance) -> Provenance:
    try:
        words = shlex.split(provenance.command)
    except ValueError:  # a quote that is never closed
        words = provenance.command.split()
    return provenance.model_copy(update={"command": shlex.join(map(_word, words))})


def _word(word: str) -> str:
    """Return a word of a command; of an absolute path (``/a/b``, ``--out=/a/b``) the last component."""
    option, equals, value = word.partition("=") if not word.startswith("/") else ("", "", word)
    return option + equals + Path(value).name if value.startswith("/") else word
