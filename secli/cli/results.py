"""Measurements and their files: the progress of a measurement, and where its results are written, all or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from secli.cli.console import bar, note
from secli.config import TrainingSettings
from secli.datasets.pictures import Pictures
from secli.equivariance.pooling import pool
from secli.errors import InputError
from secli.figures.curves import plot_curves
from secli.records.identity import measured_like, pooling_key, told_defaults
from secli.records.schema import CURVES_FILE, EquivarianceRecord, read_record, write_record
from secli.storage.disk_space import check_file
from secli.storage.leftovers import tidy
from secli.storage.writing import atomic_set, write_text
from secli.sweeps.measure import MeasureRequest, measure_subject
from secli.tables.curve_tables import render_curves
from secli.training.load import Subject


class Measurement(NamedTuple):
    """What is measured: a network, the pictures to measure it on, and of what kind."""

    subject: Subject
    pictures: Pictures
    question: MeasureRequest


def measure_all(
    measurements: Sequence[Measurement], where: TrainingSettings, save: Path | None, force: bool, quiet: bool
) -> list[EquivarianceRecord]:
    """Measure one network after the other and write the results of each; what a killed process has measured counts."""
    known = [None if force else left_over(each, save) for each in measurements]
    records = []
    for measurement, before in zip(measurements, known, strict=True):
        record = before or measure_watched(measurement, where, quiet)
        records.append(record)
        write_results(measurement.subject, record, save, quiet)
    return records


def measure_watched(
    measurement: Measurement, where: TrainingSettings, quiet: bool = False
) -> EquivarianceRecord:
    """Measure one network, with a progress display."""

    def remark(text: str) -> None:
        if not quiet:
            note(f"remark: {text}")

    with bar("passes", quiet) as tell:
        return measure_subject(
            *measurement,
            where,
            lambda network, what, done, total: tell(done, total, f"{network}: {what}"),
            remark,
        )


def write_results(
    subject: Subject, record: EquivarianceRecord, save: Path | None = None, quiet: bool = False
) -> None:
    """Write results into the ``--save`` directory, or else a run's into the run: all files, or none."""
    file = _file(subject, save)
    if file is None:
        return
    with atomic_set(file.parent, file.stem) as folder:
        write_record(folder / file.name, record)
        write_text(folder / f"{file.stem}.csv", render_curves([record], "csv"))
        try:
            plot_curves([record], folder / f"{file.stem}.png")
        except InputError as error:  # nothing in it can be measured
            file.with_suffix(".png").unlink(missing_ok=True)
            note(f"{file.with_suffix('.png')}: {error}")
    if not quiet:
        note(f"results: {file} (and .csv, .png)")


def _file(subject: Subject, save: Path | None) -> Path | None:
    """Return where the results of a network go; None keeps them on the terminal."""
    if save is not None:
        return save / f"{_name(subject)}.json"
    return None if subject.run is None else subject.run / CURVES_FILE


def check_files(subjects: Sequence[Subject], save: Path | None, force: bool) -> None:
    """Refuse what cannot be written, and to replace a measurement that is there, unless ``--force`` asks for it.

    What a process that was killed has left of one is no measurement; see :func:`left_over`.

    Raises
    ------
    InputError
        Before anything is measured; the message names the file.
    """
    taken: dict[Path, str] = {}
    for subject in subjects:
        file = _file(subject, save)
        if file is None:
            continue
        other = taken.setdefault(file, subject.info.name)
        if other != subject.info.name:
            raise InputError(
                f"--save {save}: {other} and {subject.info.name} would be written into one file, {file.name}; measure "
                "them in two calls, into two directories"
            )
        tidy(file.parent)
        check_file(file)
        if not force and all(file.with_suffix(end).exists() for end in (".json", ".csv", ".png")):
            raise _stands(file, save)


def left_over(measurement: Measurement, save: Path | None) -> EquivarianceRecord | None:
    """Return the record of a measurement whose other files are missing, if it is the one that is asked for.

    Raises
    ------
    InputError
        When the record is of another measurement: it must not be lost.
    """
    file = _file(measurement.subject, save)
    if file is None or not file.exists():
        return None
    try:
        record = read_record(file)
    except InputError:  # half a record
        return None
    if not isinstance(record, EquivarianceRecord) or not _answers(record, measurement):
        raise _stands(file, save)
    return record


def _answers(record: EquivarianceRecord, measurement: Measurement) -> bool:
    subject, pictures, question = measurement
    kinds = {row.kind for row in record.local} - {"stage"}
    return (
        measured_like(record, question.settings, pictures.info.digest)
        and (record.model, record.seed) == (subject.info, subject.seed)
        and record.data.order == pictures.order
        and bool(record.lie) == question.lie
        and (bool(record.local), kinds) == (question.local or bool(question.kinds), set(question.kinds))
        and bool(record.controls) == question.controls
        and bool(record.explained) == question.explain
    )


def _stands(file: Path, save: Path | None) -> InputError:
    elsewhere = "" if save is not None else ", or --save DIR to put the new one elsewhere"
    return InputError(f"{file}: a measurement stands here already; add --force to replace it{elsewhere}")


def _name(subject: Subject) -> str:
    if subject.run is not None:
        return "-".join(subject.run.resolve().parts[-2:])
    options = subject.info.options
    weights, digest = options.get("weights"), options.get("weights_sha256")
    parts = [subject.info.name]
    if weights is None:
        parts.append(f"s{subject.seed}")
    else:
        parts += [Path(weights).stem, options.get("weights_state") or "", (digest or "")[:8]]
    name = "-".join(part for part in map(_plain, parts) if part)
    return name.lstrip(".-_")  # a leading dot would hide the file


def _plain(text: str) -> str:
    """Return a text with nothing in it that a file's name cannot hold."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text)


def pooled(subjects: Sequence[Subject], records: Sequence[EquivarianceRecord]) -> list[EquivarianceRecord]:
    """Return one record per network: runs that differ in nothing but seed and realisation are averaged."""
    defaults = told_defaults(record.model for record in records)
    groups: dict[str, list[EquivarianceRecord]] = {}
    for subject, record in zip(subjects, records, strict=True):
        groups.setdefault(pooling_key(record, subject.record, defaults), []).append(record)
    return [pool(group) for group in groups.values()]
