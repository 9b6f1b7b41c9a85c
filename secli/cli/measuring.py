"""What ``secli equivariance`` and ``secli demo`` share: the progress of a measurement, and writing its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from secli.cli.console import note, progress

if TYPE_CHECKING:
    from secli.config import TrainingSettings
    from secli.datasets.pictures import Pictures
    from secli.errors import InputError
    from secli.records.schema import EquivarianceRecord
    from secli.sweeps.measure import MeasureRequest
    from secli.training.load import Subject


def measure_watched(
    subject: Subject, pictures: Pictures, wanted: MeasureRequest, where: TrainingSettings, quiet: bool = False
) -> EquivarianceRecord:
    """Measure one network, with a progress display."""
    from secli.sweeps.measure import measure_subject

    def remark(text: str) -> None:
        if not quiet:
            note(f"remark: {text}")

    with progress(quiet) as display:
        task = display.add_task("", total=1, unit="passes", detail="")

        def watch(network: str, what: str, done: int, total: int) -> None:
            display.update(task, description=f"{network}: {what}", completed=done, total=total)

        return measure_subject(subject, pictures, wanted, where, watch, remark)


def write_results(
    subject: Subject, record: EquivarianceRecord, save: Path | None = None, quiet: bool = False
) -> None:
    """Write results into the ``--save`` directory, or else a run's into the run: all files, or none."""
    from secli.errors import InputError
    from secli.records.schema import write_record
    from secli.storage.writing import atomic_set, write_text
    from secli.tables.curves import render_curves
    from secli.tables.plots import plot_curves

    place = _place(subject, save)
    if place is None:
        return
    with atomic_set(place.parent, place.stem) as folder:
        write_record(folder / place.name, record)
        write_text(folder / f"{place.stem}.csv", render_curves([record], "csv"))
        try:
            plot_curves([record], folder / f"{place.stem}.png")
        except InputError as error:  # nothing in it can be measured
            place.with_suffix(".png").unlink(missing_ok=True)
            note(f"{place.with_suffix('.png')}: {error}")
    if not quiet:
        note(f"results: {place} (and .csv, .png)")


def _place(subject: Subject, save: Path | None) -> Path | None:
    """Return where the results of a network go; None keeps them on the terminal."""
    from secli.records.schema import CURVES_FILE

    if save is not None:
        return save / f"{_file_name(subject)}.json"
    return None if subject.run is None else subject.run / CURVES_FILE


def check_places(subjects: Sequence[Subject], save: Path | None, force: bool) -> None:
    """Refuse what cannot be written, and to replace a measurement that stands, unless ``--force`` asks for it.

    What a process that was killed has left of one is no measurement that stands; see :func:`left_over`.

    Raises
    ------
    InputError
        Before anything is measured; the message names the file.
    """
    from secli.errors import InputError
    from secli.storage.disk_space import check_file
    from secli.storage.leftovers import tidy

    taken: dict[Path, str] = {}
    for subject in subjects:
        place = _place(subject, save)
        if place is None:
            continue
        other = taken.setdefault(place, subject.info.name)
        if other != subject.info.name:
            raise InputError(
                f"--save {save}: {other} and {subject.info.name} would be written into one file, {place.name}; measure "
                "them in two calls, into two directories"
            )
        tidy(place.parent)
        check_file(place)
        if not force and all(place.with_suffix(end).exists() for end in (".json", ".csv", ".png")):
            raise _stands(place, save)


def left_over(
    subject: Subject, save: Path | None, pictures: Pictures, wanted: MeasureRequest
) -> EquivarianceRecord | None:
    """Return the record of a measurement whose other files are missing, if it is the one that is asked for.

    Raises
    ------
    InputError
        When the record is of another measurement: it must not be lost.
    """
    from secli.errors import InputError
    from secli.records.schema import EquivarianceRecord, read_record

    place = _place(subject, save)
    if place is None or not place.exists():
        return None
    try:
        record = read_record(place)
    except InputError:  # half a record
        return None
    if not isinstance(record, EquivarianceRecord) or not _answers(record, subject, pictures, wanted):
        raise _stands(place, save)
    return record


def _answers(
    record: EquivarianceRecord, subject: Subject, pictures: Pictures, wanted: MeasureRequest
) -> bool:
    settings = wanted.settings.model_dump(mode="json", exclude={"batch"})
    kinds = {row.kind for row in record.local} - {"stage"}
    return (
        {key: record.measure.get(key, value) for key, value in settings.items()} == settings
        and (record.model, record.seed) == (subject.info, subject.seed)
        and (record.data.digest, record.data.order) == (pictures.info.digest, pictures.order)
        and bool(record.lie) == wanted.lie
        and (bool(record.local), kinds) == (wanted.local or bool(wanted.kinds), set(wanted.kinds))
        and bool(record.controls) == wanted.controls
    )


def _stands(place: Path, save: Path | None) -> InputError:
    from secli.errors import InputError

    elsewhere = "" if save is not None else ", or --save DIR to put the new one elsewhere"
    return InputError(f"{place}: a measurement stands here already; add --force to replace it{elsewhere}")


def _file_name(subject: Subject) -> str:
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
    from secli.equivariance.pooling import pool
    from secli.records.identity import pooling_key, told_defaults

    defaults = told_defaults(record.model for record in records)
    groups: dict[str, list[EquivarianceRecord]] = {}
    for subject, record in zip(subjects, records, strict=True):
        groups.setdefault(pooling_key(record, subject.record, defaults), []).append(record)
    return [pool(group) for group in groups.values()]
