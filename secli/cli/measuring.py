"""What ``secli equivariance`` and ``secli demo`` share: pictures, measuring one network, writing the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from secli.cli.console import note, progress

if TYPE_CHECKING:
    from secli.config import MeasureSettings, TrainingSettings
    from secli.datasets.pictures import Pictures
    from secli.models.contract import Model
    from secli.records import EquivarianceRecord, ModelInfo
    from secli.training.loading import Subject


@dataclass(frozen=True)
class Wanted:
    """What is measured of each network.

    Attributes
    ----------
    settings
        Of the curves.
    lie, local, controls
        Whether the Lie derivative, the stages by themselves, the controls are measured too.
    kinds
        Kinds of layers that are measured by themselves.
    """

    settings: MeasureSettings
    lie: bool = False
    local: bool = False
    kinds: tuple[str, ...] = ()
    controls: bool = False


def machine(device: str, threads: int) -> TrainingSettings:
    """Return the device and the threads to work with, resolved for this machine.

    Norms are summed in float64, which Metal does not have: there the CPU measures.
    """
    from secli.config import TrainingSettings, validated
    from secli.errors import InputError
    from secli.training.devices import on_this_machine

    if device == "mps":
        raise InputError("--device mps: measuring needs float64, which Metal does not have; use --device cpu")
    asked = validated(TrainingSettings, {"device": device, "threads": threads}, "equivariance")
    where = on_this_machine(asked)
    return where.model_copy(update={"device": "cpu"}) if where.device == "mps" else where


def pictures_for(subject: Subject, place: Path, settings: MeasureSettings) -> Pictures:
    """Open the pictures in the shape that a network takes, and check that it takes them."""
    from secli.datasets.pictures import open_pictures
    from secli.training.plan import ImageShape, check_images, outputs

    shape = None
    if subject.foreign:
        channels, height, width = subject.info.options["input"]
        shape = (channels, height, width)
    pictures = open_pictures(place, input_shape=shape, images=settings.images)
    channels, height, width = pictures.images.shape[1:]
    images = ImageShape(str(place), channels, height, width)
    if not subject.foreign:
        check_images(images, subject.info.name, subject.info.options)
        outputs(images, subject.info.name, subject.model)  # type: ignore[arg-type]
    return pictures


def measure_subject(
    subject: Subject, pictures: Pictures, wanted: Wanted, where: TrainingSettings, quiet: bool = False
) -> EquivarianceRecord:
    """Measure one network, with a progress display."""
    from secli.equivariance.controls import controls
    from secli.training.determinism import reproducible

    if not quiet:
        for remark in remarks(subject, pictures):
            note(f"remark: {remark}")
    with reproducible(where, strict=False):
        record = _measured(subject, subject.model, subject.info, pictures, wanted, where, quiet)
        if not wanted.controls:
            return record
        beside = controls(
            subject.model,
            name=subject.info.name,
            options=subject.info.options,
            parameters=subject.info.parameters,
            image_shape=(pictures.images.shape[1], pictures.images.shape[2], pictures.images.shape[3]),
            classes=max(2, len(pictures.classes)),
            seed=subject.seed,
            on_missing=lambda control, reason: (
                None if quiet else note(f"remark: no control '{control}': {reason}")
            ),
        )
        only_curves = Wanted(wanted.settings.model_copy(update={"taps": None, "factors": _factors(record)}))
        records = [
            _measured(subject, network, info, pictures, only_curves, where, quiet, control)
            for control, network, info in beside
            if not (control == "untrained" and subject.fresh)  # that is the network itself
        ]
    return record.model_copy(update={"controls": records})


def _factors(record: EquivarianceRecord) -> tuple[float, ...]:
    """Return the factors of a record: its controls are measured at the same ones."""
    return tuple(dict.fromkeys(row.factor for row in record.rows))


def _measured(
    subject: Subject,
    network: Model,
    info: ModelInfo,
    pictures: Pictures,
    wanted: Wanted,
    where: TrainingSettings,
    quiet: bool,
    control: str | None = None,
) -> EquivarianceRecord:
    from secli.equivariance.attribution import local_errors
    from secli.equivariance.curves import measure_curves
    from secli.equivariance.lie import lie_derivatives
    from secli.equivariance.result import equivariance_record
    from secli.training.devices import device_name

    settings, images, device = wanted.settings, pictures.images, where.device
    title = control or info.name
    with _watched(title, "curves", quiet) as watch:
        curves = measure_curves(
            network,
            images,
            settings,
            labels=pictures.labels,
            classes=len(pictures.classes),
            on_black=pictures.on_black,
            device=device,
            on_progress=watch,
        )
    lie, local = [], []
    if wanted.lie:
        with _watched(title, "Lie derivative", quiet) as watch:
            lie = lie_derivatives(
                network, images, settings, on_black=pictures.on_black, device=device, on_progress=watch
            )
    if wanted.local or wanted.kinds:
        with _watched(title, "parts", quiet) as watch:
            local = local_errors(
                network,
                images,
                settings,
                kinds=wanted.kinds,
                on_black=pictures.on_black,
                device=device,
                on_progress=watch,
            )
    fresh = control is not None
    return equivariance_record(
        curves,
        settings,
        pictures.info.model_copy(update={"order": pictures.order}),
        info,
        seed=subject.seed,
        device=device_name(device),
        threads=where.threads,
        training=None if fresh else subject.record,
        run=None if fresh or subject.run is None else str(subject.run),
        lie=lie,
        local=local,
        control=control,
    )


@contextmanager
def _watched(network: str, what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how far a measurement is."""
    with progress(quiet) as display:
        task = display.add_task(f"{network}: {what}", total=1, unit="passes", detail="")
        yield lambda done, total: display.update(task, completed=done, total=total)


def remarks(subject: Subject, pictures: Pictures) -> list[str]:
    """Return what a reader of the numbers must know about the images."""
    found = []
    if pictures.scaled:
        found.append(f"the images of {pictures.info.path} are rescaled already; factors count on top of that")
    trained = None if subject.record is None else subject.record.data.realisation
    if trained is not None and trained != pictures.info.realisation:
        found.append(f"{subject.run} was trained on r{trained}, whose training images may be among these")
    return found


def write_results(
    subject: Subject, record: EquivarianceRecord, save: Path | None = None, quiet: bool = False
) -> None:
    """Write results into the ``--save`` directory, or else a run's into the run."""
    from secli.records import write_record, write_text
    from secli.tables.curves import render_curves
    from secli.tables.plots import plot_curves

    place = _place(subject, save)
    if place is None:
        return
    write_record(place, record)
    write_text(place.with_suffix(".csv"), render_curves([record], "csv"))
    plot_curves([record], place.with_suffix(".png"))
    if not quiet:
        note(f"results: {place} (and .csv, .png)")


def _place(subject: Subject, save: Path | None) -> Path | None:
    """Return where the results of a network go; None keeps them on the terminal."""
    from secli.records import CURVES_FILE

    if save is not None:
        return save / f"{_file_name(subject)}.json"
    return None if subject.run is None else subject.run / CURVES_FILE


def check_places(subjects: Sequence[Subject], save: Path | None, force: bool) -> None:
    """Refuse to replace a measurement that stands, unless ``--force`` asks for it.

    Raises
    ------
    InputError
        Before anything is measured; the message names the file.
    """
    from secli.errors import InputError

    for subject in subjects:
        place = _place(subject, save)
        if place is not None and place.exists() and not force:
            elsewhere = "" if save is not None else ", or --save DIR to put the new one elsewhere"
            raise InputError(
                f"{place}: a measurement stands here already; add --force to replace it{elsewhere}"
            )


def _file_name(subject: Subject) -> str:
    if subject.run is not None:
        return "-".join(subject.run.resolve().parts[-2:])
    plain = "".join(c if c.isalnum() or c in "._-" else "-" for c in subject.info.name)
    return f"{plain}-s{subject.seed}"


def pooled(subjects: Sequence[Subject], records: Sequence[EquivarianceRecord]) -> list[EquivarianceRecord]:
    """Return one record per network: runs that differ in nothing but seed and realisation are averaged."""
    from secli.equivariance.pooling import identity, pool

    groups: dict[str, list[EquivarianceRecord]] = {}
    for subject, record in zip(subjects, records, strict=True):
        groups.setdefault(identity(record, subject.record), []).append(record)
    return [pool(group) for group in groups.values()]
