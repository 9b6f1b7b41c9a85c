"""Measuring one network on one set of pictures, as a record; it prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from secli.config import MeasureSettings, TrainingSettings, validated
from secli.datasets.photographs import WindowRequest
from secli.datasets.pictures import Pictures, are_large_enough, open_pictures
from secli.equivariance.attribution import local_errors, without_stages
from secli.equivariance.borders import fade_to_black
from secli.equivariance.controls import controls
from secli.equivariance.curves import fields_of_taps, measure_curves
from secli.equivariance.enlargement import enlargement
from secli.equivariance.explain import explain
from secli.equivariance.factors import factors_of
from secli.equivariance.lie import lie_derivatives, null_lie_row
from secli.equivariance.record import equivariance_record
from secli.errors import InputError, SecliError
from secli.models.contract import Model
from secli.provenance import origin_of_weights
from secli.records.notes import note_of
from secli.records.schema import EquivarianceRecord, ModelInfo
from secli.training.determinism import reproducible
from secli.training.devices import device_name, on_this_machine
from secli.training.load import Subject
from secli.training.plan import ImageShape, check_images, outputs

PHOTOGRAPH_BYTES = 2 << 30
"""Memory of the photographs that are kept, at most; a few are kept in any case."""
FEWEST = 16
JUDGED = 16
"""Pictures by whose edges it is decided whether they are photographs."""
Watch = Callable[[str, str, int, int], None]
"""Called with (network or control, what is measured of it, passes done, passes in all)."""


def unwatched(network: str, what: str, done: int, total: int) -> None:
    """Show nothing."""
    del network, what, done, total


@dataclass(frozen=True)
class MeasureRequest:
    """What is measured of each network.

    Attributes
    ----------
    settings
        Of the curves.
    lie, local, controls
        Whether the Lie derivative, the stages by themselves, the controls are measured too.
    kinds
        Kinds of layers that are measured by themselves.
    explain
        Whether it is measured where the error comes from.
    """

    settings: MeasureSettings
    lie: bool = False
    local: bool = False
    kinds: tuple[str, ...] = ()
    controls: bool = False
    explain: bool = False


def machine(device: str, threads: int) -> TrainingSettings:
    """Return the device and the threads to work with, resolved for this machine.

    Norms are summed in float64, which Metal does not have: there the CPU measures.
    """

    if device == "mps":
        raise InputError("--device mps: measuring needs float64, which Metal does not have; use --device cpu")
    asked = validated(TrainingSettings, {"device": device, "threads": threads}, "equivariance")
    where = on_this_machine(asked)
    return where.model_copy(update={"device": "cpu"}) if where.device == "mps" else where


def pictures_for(subject: Subject, path: Path, settings: MeasureSettings, device: str = "cpu") -> Pictures:
    """Open the pictures in the shape that a network takes, and check that it takes them."""
    shape = None
    if subject.foreign:
        channels, height, width = subject.info.options["input"]
        shape = (channels, height, width)
    windows = windows_for(subject, path, settings, device)
    if windows is not None and shape is None:
        shape = (subject.info.options["in_channels"], *windows.size)
    most = settings.images
    if windows is not None:
        rows, columns = windows.needed(windows.enlarged)
        most = min(most, max(FEWEST, PHOTOGRAPH_BYTES // (rows * columns * 3)))
    pictures = open_pictures(path, input_shape=shape, images=most, windows=windows)
    if most < settings.images and len(pictures.images) >= most:
        text = f"photographs of {columns}×{rows} pixels are needed: the first {most} are measured, for their memory"
        pictures = replace(pictures, remarks=(*pictures.remarks, text))
    channels, height, width = pictures.images.shape[1:]
    images = ImageShape(str(path), channels, height, width)
    if not subject.foreign:
        check_images(images, subject.info.name, subject.info.options)
        outputs(images, subject.info.name, cast("nn.Module", subject.model))
    return pictures


def windows_for(
    subject: Subject, path: Path, settings: MeasureSettings, device: str = "cpu", *, probe: bool = True
) -> WindowRequest | None:
    """Return the windows of photographs that a network is measured on; None where pictures are taken whole.

    Without ``probe`` it is not measured how far the network sees, by which windows are enlarged.

    Unless the settings decide, photographs are surrounded by themselves where all of them are large enough, and
    pictures that are black at their edges are not.
    """
    if settings.surround == "black" or settings.margin is not None or not path.is_dir():
        return None
    shape = _input_of(subject)
    if shape is None:
        if settings.surround is None:
            return None
        raise InputError(f"surround photo: {subject.info.name} does not say what size of pictures it takes")
    _, height, width = shape
    fields = fields_of_taps(subject.model, settings.taps)
    factors = factors_of(settings, fields.values())
    windows = WindowRequest((height, width), min(factors, default=1.0))
    if settings.surround is None:
        if not are_large_enough(path, windows, settings.images):
            return None
        few = open_pictures(path, input_shape=shape, images=JUDGED)
        if fades(few):
            return None
    if not probe:
        return windows
    found = enlargement(subject.model, fields, shape, factors, settings.smallest_plane, device)
    return replace(windows, enlarged=found.pixels, step=found.step)


def _input_of(subject: Subject) -> tuple[int, int, int] | None:
    """Return channels, height and width of the pictures that a network takes, where it says them."""
    options = subject.info.options
    if subject.foreign:
        channels, height, width = options["input"]
        return channels, height, width
    channels, side = options.get("in_channels"), options.get("image_size")
    return None if channels is None or side is None else (channels, side, side)


def measure_subject(
    subject: Subject,
    pictures: Pictures,
    request: MeasureRequest,
    where: TrainingSettings,
    watch: Watch = unwatched,
    remark: Callable[[str], None] = lambda text: None,
) -> EquivarianceRecord:
    """Measure one network, and its controls where they are asked for.

    Parameters
    ----------
    subject : Subject
        The network.
    pictures : Pictures
        In the shape that it takes (see :func:`pictures_for`).
    request : MeasureRequest
        What is measured.
    where : TrainingSettings
        Device and threads, as :func:`machine` resolves them.
    watch, remark : callable, optional
        Receive the progress, and what a reader of the numbers must know.
    """
    for text in remarks(subject, pictures):
        remark(text)
    with reproducible(where, strict=False):
        record = _measured(subject, subject.model, subject.info, pictures, request, where, watch, remark)
        if not request.controls:
            return record
        beside = controls(
            subject.model,
            name=subject.info.name,
            options=subject.info.options,
            parameters=subject.info.parameters,
            image_shape=(pictures.images.shape[1], pictures.images.shape[2], pictures.images.shape[3]),
            classes=max(2, len(pictures.classes)),
            seed=subject.seed,
            on_missing=lambda control, reason: remark(f"no control '{control}': {reason}"),
        )
        only_curves = MeasureRequest(
            request.settings.model_copy(update={"taps": None, "factors": _factors(record)})
        )
        records = []
        for control, network, info in beside:
            if control == "untrained" and subject.fresh:  # that is the network itself
                continue
            try:
                records.append(
                    _measured(subject, network, info, pictures, only_curves, where, watch, control=control)
                )
            except SecliError as error:
                remark(f"no control '{control}': {error}")
    return record.model_copy(update={"controls": records})


def _factors(record: EquivarianceRecord) -> tuple[float, ...]:
    """Return the factors of a record: its controls are measured at the same ones."""
    return tuple(dict.fromkeys(row.factor for row in record.rows))


def fades(pictures: Pictures) -> bool:
    """Return whether pictures are black at their edges, as their protocol says or as they show."""
    return pictures.photographs is None and (pictures.on_black or fade_to_black(pictures.images))


def check_black(pictures: Pictures, settings: MeasureSettings, explain: bool) -> None:
    """Refuse photographs where empty pixels are to go around the pictures, before anything is measured."""
    asked = "explain" * explain or "margin" * (settings.margin is not None)
    if asked and not fades(pictures):
        raise InputError(
            f"{asked}: empty pixels go around pictures on black alone, and {pictures.info.path} holds photographs"
        )


def _measured(
    subject: Subject,
    network: Model,
    info: ModelInfo,
    pictures: Pictures,
    request: MeasureRequest,
    where: TrainingSettings,
    watch: Watch,
    remark: Callable[[str], None] = lambda text: None,
    control: str | None = None,
) -> EquivarianceRecord:
    settings, images, device = request.settings, pictures.images, where.device
    title, on_black = control or info.name, fades(pictures)
    curves = measure_curves(
        network,
        images,
        settings,
        labels=pictures.labels,
        classes=len(pictures.classes),
        on_black=on_black,
        device=device,
        on_progress=lambda done, total: watch(title, "curves", done, total),
        photographs=pictures.photographs,
    )
    for text in curves.remarks:
        remark(f"{title}: {text}")
    lie, local = [], []
    if request.lie:
        try:
            lie = lie_derivatives(
                network,
                images,
                settings,
                on_black=on_black,
                device=device,
                on_progress=lambda done, total: watch(title, "Lie derivative", done, total),
            )
        except SecliError as error:
            # what was measured so far is not lost with it
            remark(f"{title}: {error}")
            fields = {row.tap: row.field for row in curves.rows}
            lie = [null_lie_row(tap, note_of(error), field) for tap, field in fields.items()]
    if request.local or request.kinds:
        local = without_stages(network, settings) if request.local else []
        local += local_errors(
            network,
            images,
            settings,
            kinds=request.kinds,
            on_black=on_black,
            device=device,
            on_progress=lambda done, total: watch(title, "parts", done, total),
        )
    explained = []
    if request.explain:
        explained = explain(
            network,
            images,
            settings,
            on_black=on_black,
            device=device,
            on_progress=lambda done, total: watch(title, "where the error comes from", done, total),
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
        weights=origin_of_weights({}, subject.seed) if fresh else subject.weights,
        training=None if fresh else subject.record,
        run=None if fresh or subject.run is None else str(subject.run),
        lie=lie,
        local=local,
        explained=explained,
        control=control,
    )


def remarks(subject: Subject, pictures: Pictures) -> list[str]:
    """Return what a reader of the numbers must know about the images."""
    found = [*pictures.remarks, *weights_taken(subject.info.options)]
    if pictures.scaled:
        found.append(f"the images of {pictures.info.path} are rescaled already; factors count on top of that")
    trained = None if subject.record is None else subject.record.data.realisation
    if trained is not None and trained != pictures.info.realisation:
        found.append(
            f"{subject.run or subject.info.name} was trained on r{trained}, whose training images may be among these"
        )
    return found


def weights_taken(options: Mapping[str, Any]) -> list[str]:
    """Return what of a file of weights was taken, and how its names were changed."""
    file, state, prefix = (options.get(key) for key in ("weights", "weights_state", "weights_prefix"))
    told = [
        f"the state dict '{state}' is taken" * (state is not None),
        f"'{prefix}' is stripped from the front of all names" * (prefix is not None),
        f"{', '.join(options.get('weights_left_out', ()))} left out" * ("weights_left_out" in options),
    ]
    parts = [part for part in told if part]
    return [f"--weights {file}: {'; '.join(parts)}"] if parts else []
