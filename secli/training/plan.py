"""The plan of a run: settings resolved, the folder's name, the checks of model against data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic_core import to_jsonable_python
from torch import Tensor, nn

from secli.catalogue import MODELS
from secli.config import ModelSettings, TrainingSettings, settings_hash
from secli.datasets.store import ScaleDataset
from secli.errors import InputError
from secli.models.building import build, count_parameters, resolve_options, usual_options
from secli.models.contract import StagedModel
from secli.records.identity import MACHINE, OPEN, outdated, settings_of, training_differences
from secli.records.schema import ModelInfo, TrainingRecord
from secli.training.augment import augmentation_of

# Settings that are not in the hash of a run's name: the seed has a part of its own, the machine has none.
UNNAMED = {"seed", *MACHINE}


@dataclass(frozen=True)
class Resolved:
    """A model's registry name, its options (as in JSON) and training settings, with every default filled in."""

    model: str
    options: dict[str, Any]
    training: TrainingSettings


def resolve(model: ModelSettings, training: TrainingSettings) -> Resolved:
    """Fill in the model's options.

    Raises
    ------
    UnknownNameError
        When no model has this name.
    InputError
        When an option is unknown or out of range, or two settings contradict each other.
    """
    options = resolve_options(MODELS[model.name], model.options)
    if training.optimizer == "sgd" and training.nesterov and training.momentum == 0:
        raise InputError("training.nesterov = True: needs training.momentum greater than 0")
    if training.pad != "black" and training.augment != "stl10":
        raise InputError(f"training.pad = {training.pad}: needs training.augment = stl10, which alone pads")
    if training.centre != "pixel" and training.augment != "scale":
        raise InputError(
            f"training.centre = {training.centre}: needs training.augment = scale, which alone rescales"
        )
    _check_steps(training)
    return Resolved(model.name, to_jsonable_python(options), training)


def _check_steps(training: TrainingSettings) -> None:
    """Refuse ways of taking a step that exclude each other."""
    if training.accumulate > training.batch:
        raise InputError(
            f"training.accumulate = {training.accumulate}: a batch of {training.batch} images has no more parts "
            f"than images; give at most {training.batch}"
        )
    if training.compile and training.checkpoint_activations:
        raise InputError(
            "training.compile and training.checkpoint_activations exclude each other: a compiler decides by itself "
            "what to compute again"
        )
    if training.compile and training.devices > 1:
        raise InputError(
            f"training.compile: works on one device, not on {training.devices}; leave out --compile or --devices"
        )


def default_training(model_name: str) -> TrainingSettings:
    """Return a model's training settings in the catalogue."""
    return TrainingSettings(**MODELS[model_name].training)


def run_directory(out: Path, model_name: str, dataset: ScaleDataset, resolved: Resolved) -> Path:
    """Return ``<out>/<model>/<dataset>-r<k>-s<seed>[-<8 hexadecimal digits>]``.

    The digits are a hash of all that differs from the model's catalogue defaults, in its options or in its
    training (without seed and machine), and are left out where nothing does.
    """
    changed = {"options": _changes(resolved.options, usual_options(model_name))}
    usual = default_training(model_name).model_dump(mode="json", exclude=UNNAMED)
    changed["training"] = _changes(resolved.training.model_dump(mode="json", exclude=UNNAMED), usual)
    name = f"{dataset.name}-r{dataset.realisation}-s{resolved.training.seed}"
    suffix = f"-{settings_hash(changed)}" if any(changed.values()) else ""
    return out / model_name / f"{name}{suffix}"


def _changes(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in defaults or defaults[key] != value}


def as_recorded(
    resolved: Resolved, record: TrainingRecord, dataset: ScaleDataset, run: Path
) -> TrainingSettings:
    """Return the recorded settings for a resumption, after checking that the requested ones are the same.

    Settings of the machine (device, devices, threads) that were not given are taken from the record; so are
    ``device: auto`` and ``threads: 0``, which leave the choice open. A setting or an option missing in the record is
    newer than the run, and had its default.

    Raises
    ------
    InputError
        When a setting, an option or the data differ from the recorded ones; the message names it.
    """
    if reason := outdated(record.training):
        raise InputError(f"--resume: {run} was trained with {reason}; give --force to replace the run")
    if dataset.digest != record.data.digest:
        raise InputError(
            f"--resume: the images in {dataset.path} are not those that {run} was started with "
            f"({record.data.path}); give those, or --force to replace the run"
        )
    given = resolved.training.model_fields_set
    open_ = {key for key in MACHINE if key not in given}
    requested = resolved.training.model_dump(mode="json", exclude=open_)
    usual = usual_options(resolved.model)
    for name, now, then in training_differences(resolved.model, resolved.options, requested, record, usual):
        raise InputError(
            f"--resume: {name} = {now}, but {run} was started with {then}; "
            "leave the setting as it was, or give --force to replace the run"
        )
    recorded = settings_of(record.training)
    here = {key: recorded[key] for key in MACHINE if requested.get(key, "auto") in OPEN}
    return TrainingSettings.model_validate({**requested, **here})


class ImageShape(NamedTuple):
    """The shape of a network's images, and their path (``where``)."""

    where: str
    channels: int
    height: int
    width: int


def build_for(dataset: ScaleDataset, resolved: Resolved) -> StagedModel:
    """Build the network and check that it takes this dataset's images and has its classes.

    Raises
    ------
    InputError
        When channels, classes or image size do not fit, or a batch is too small for the batch norm.
    """
    images = ImageShape(str(dataset.path), dataset.channels, *dataset.image_size)
    check_images(images, resolved.model, resolved.options)
    _check_augmentation(images, resolved.training)
    _check_option(images.where, resolved.model, resolved.options, "classes", len(dataset.classes), "class")
    network = build(resolved.model, resolved.options, seed=resolved.training.seed)
    classes = outputs(images, resolved.model, network)
    if classes != len(dataset.classes):
        raise InputError(
            f"{dataset.path}: {len(dataset.classes)} classes, but model {resolved.model} tells {classes} apart"
        )
    _check_batches(dataset, resolved, network)
    return network.train()


def check_images(images: ImageShape, model: str, options: Mapping[str, Any]) -> None:
    """Check that a model's options have the channels and the size of the images; InputError names the option."""
    _check_option(images.where, model, options, "in_channels", images.channels, "channel")
    if images.height == images.width:
        _check_option(images.where, model, options, "image_size", images.height, "pixel")


def outputs(images: ImageShape, model: str, network: nn.Module) -> int | None:
    """Return a network's number of classes, by running it on one empty picture; None if it returns no logits.

    Raises
    ------
    InputError
        When it cannot take such images.
    """
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(1, images.channels, images.height, images.width))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{images.where}: model {model} cannot take its {images.channels}×{images.height}×{images.width} images "
            f"({reason})"
        ) from None
    return logits.shape[1] if isinstance(logits, Tensor) and logits.ndim == 2 else None


def _check_option(
    where: str, model: str, options: Mapping[str, Any], option: str, needed: int, unit: str
) -> None:
    taken = options.get(option)
    if not isinstance(taken, int) or taken == needed:
        return
    what = {
        "channel": f"images of {needed} channel{'s' * (needed != 1)}",
        "class": f"{needed} classes",
        "pixel": f"images of {needed}×{needed} pixels",
    }[unit]
    raise InputError(f"{where}: {what}, but model {model} takes {taken}; add --set model.{option}={needed}")


def _check_augmentation(images: ImageShape, training: TrainingSettings) -> None:
    augmentation = augmentation_of(training)
    needed = augmentation and augmentation.unfit(images.channels, images.height, images.width)
    if needed:
        raise InputError(
            f"{images.where}: training.augment = {training.augment} {needed}, not {images.channels}×{images.height}×"
            f"{images.width}; give --augment none"
        )


def _check_batches(dataset: ScaleDataset, resolved: Resolved, network: nn.Module) -> None:
    training = resolved.training
    least = smallest_batch(network, training.devices)
    images = dataset.manifest.sizes["train"]
    if images < least:
        raise InputError(f"{dataset.path}: {images} training images; at least {least} are needed")
    if training.batch < least:
        why = "one per device" if least == training.devices else "two per device for the batch norm"
        raise InputError(f"training.batch = {training.batch}: at least {least} images are needed ({why})")
    if training.batch < least * training.accumulate:
        why = "two for the batch norm" if least > training.devices else "one"
        if training.devices > 1:
            why += f" on each of {training.devices} devices"
        raise InputError(
            f"training.accumulate = {training.accumulate}: each part of a batch of {training.batch} needs {least} "
            f"images ({why}); give at most {training.batch // least}"
        )


def smallest_batch(network: nn.Module, devices: int) -> int:
    """Return the fewest images of one step: a batch norm needs two on each device, for their variance."""
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    return devices * (2 if normed else 1)


def batch_bounds(images: int, batch: int, least: int) -> list[tuple[int, int]]:
    """Cut an epoch into batches; a remainder of fewer than ``least`` images joins the batch before it.

    Examples
    --------
    >>> batch_bounds(10, 4, 1)
    [(0, 4), (4, 8), (8, 10)]
    >>> batch_bounds(9, 4, 2)
    [(0, 4), (4, 9)]
    """
    starts = list(range(0, images, batch))
    if len(starts) > 1 and images - starts[-1] < least:
        starts.pop()
    return list(zip(starts, [*starts[1:], images], strict=True))


def parts_of(images: int, batch: int, accumulate: int, least: int) -> int:
    """Return the number of parts of a batch of so many images.

    A full batch has ``accumulate`` of them, a shorter one fewer of about the same size; none has fewer than ``least``
    images (over all devices).

    Examples
    --------
    >>> parts_of(128, 128, 4, 2), parts_of(16, 128, 4, 2), parts_of(129, 128, 4, 2), parts_of(3, 4, 2, 2)
    (4, 1, 5, 1)
    >>> parts_of(129, 128, 1, 2)
    1
    """
    if accumulate == 1:  # a last batch with a remainder is not split, either
        return 1
    return max(1, min(-(-images * accumulate // batch), images // least))


def model_info(resolved: Resolved, network: nn.Module) -> ModelInfo:
    """Return what the record says about the network."""
    usual = usual_options(resolved.model)
    return ModelInfo(
        name=resolved.model,
        options=resolved.options,
        parameters=count_parameters(network),
        changed={key: usual[key] for key in _changes(resolved.options, usual)},
    )
