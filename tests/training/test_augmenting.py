"""Augmentations in training: drawn by epoch and place, whatever the step or the device; never in evaluation."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from secli.config import Augmentation, ModelSettings, TrainingSettings
from secli.datasets import stl10
from secli.datasets.manifest import SPLITS, SplitName
from secli.datasets.store import ScaleDataset, Split, open_dataset, write_dataset
from secli.errors import InputError, InterruptedRunError
from secli.training.augment import (
    AUGMENTATIONS,
    CropFlipCutout,
    augmentation_of,
    draw_scale_factors,
    rescale_bicubic,
)
from secli.training.determinism import Draw, generator_of
from secli.training.events import Event, Stepped
from secli.training.plan import build_for, resolve, run_directory
from secli.training.run import train

Quick = Callable[..., TrainingSettings]
Digest = Callable[[Path], str]
SIDE = 36
COLOUR = ModelSettings(name="cnn", options={"in_channels": 3})


@pytest.fixture
def pictures(tmp_path: Path, tiny: ScaleDataset) -> ScaleDataset:
    """The tiny dataset in three different colours, 36×36."""
    splits: dict[SplitName, Split] = {}
    for split in SPLITS:
        read = tiny.split(split)
        images = np.pad(read.images, ((0, 0), (4, 4), (4, 4)))
        colours = np.stack([images, images // 2, 255 - images], axis=-1)
        splits[split] = Split(colours, read.labels, read.factors)
    path = tmp_path / "pictures" / "r0"
    description = tiny.manifest.model_dump(exclude={"sizes", "files"})
    write_dataset(
        path, splits, {**description, "name": "pictures", "channels": 3, "image_size": (SIDE, SIDE)}
    )
    return open_dataset(path)


def seen_in_training(
    monkeypatch: pytest.MonkeyPatch, dataset: ScaleDataset, settings: TrainingSettings, out: Path
) -> tuple[list[Tensor], list[Tensor]]:
    """Train, and return what the network was given in training and in evaluation."""
    taught: list[Tensor] = []
    judged: list[Tensor] = []

    def watched(*arguments: Any, **options: Any) -> Any:
        network = build(*arguments, **options)

        def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            (taught if module.training else judged).append(inputs[0].clone())

        network.register_forward_pre_hook(keep)
        return network

    from secli.models.building import build

    monkeypatch.setattr("secli.training.fit.build", watched)
    train(COLOUR, dataset, settings, out)
    # the first pass of all tries the network on two images
    return taught[1:], judged


def test_every_name_in_the_settings_has_its_augmentation() -> None:
    assert set(AUGMENTATIONS) == set(get_args(Augmentation))
    for name in AUGMENTATIONS:
        assert (augmentation_of(TrainingSettings(augment=name)) is None) == (name == "none")


@pytest.mark.parametrize("fill", ["black", "mean"])
def test_training_sees_the_published_steps_in_their_order(
    pictures: ScaleDataset, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: stl10.Pad
) -> None:
    settings = quick(augment="stl10", pad=fill, epochs=2)
    taught, judged = seen_in_training(monkeypatch, pictures, settings, tmp_path)
    split = pictures.split("train")
    plain = torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255
    expected = []
    for epoch in (1, 2):
        order = torch.randperm(len(plain), generator=generator_of(Draw.ORDER, 0, epoch))
        draws = stl10.draw(len(plain), (SIDE, SIDE), generator_of(Draw.AUGMENT, 0, epoch))
        padded = stl10.pad(plain[order], fill)
        mirrored = stl10.flip(stl10.crop(padded, draws.offsets), draws.flips)
        expected.append(stl10.cutout(mirrored, draws.centres))
    assert len(taught) == 8
    torch.testing.assert_close(torch.cat(taught), torch.cat(expected))
    # what is judged is the pictures themselves: validation after each epoch, the test once
    validation, test = (
        torch.from_numpy(pictures.split(s).images).permute(0, 3, 1, 2) / 255 for s in ("val", "test")
    )
    torch.testing.assert_close(torch.cat(judged), torch.cat([validation, validation, test]))


def test_each_epoch_is_augmented_anew_and_no_two_pictures_alike() -> None:
    augmentation = CropFlipCutout("black")
    one, two = (augmentation.draw(50, (SIDE, SIDE), generator_of(Draw.AUGMENT, 0, epoch)) for epoch in (1, 2))
    assert all(not torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert len({tuple(row.tolist()) for row in torch.cat([one[0], one[2]], dim=1)}) > 45


@pytest.mark.parametrize("name", ["scale", "stl10"])
@pytest.mark.parametrize("devices", [2, 3])
def test_devices_that_share_a_batch_see_what_one_alone_would(name: str, devices: int) -> None:
    augmentation = augmentation_of(TrainingSettings(augment=name))
    assert augmentation is not None
    images = torch.rand(10, 3, 40, 33)
    draws = augmentation.draw(10, (40, 33), generator_of(Draw.AUGMENT, 0, 1))
    whole = augmentation.apply(images, draws)
    assert whole.shape == images.shape
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1
    for rank in range(devices):
        mine = slice(rank, None, devices)
        share = augmentation.apply(images[mine], tuple(numbers[mine] for numbers in draws))
        torch.testing.assert_close(share, whole[mine])


def test_random_scaling_draws_as_before() -> None:
    """The factors of a run with ``augment: scale`` are those that a seed has always given."""
    augmentation = augmentation_of(TrainingSettings(augment="scale"))
    assert augmentation is not None
    images = torch.rand(6, 1, 28, 28)
    draws = augmentation.draw(6, (28, 28), generator_of(Draw.AUGMENT, 3, 2))
    factors = draw_scale_factors(6, generator_of(Draw.AUGMENT, 3, 2))
    assert torch.equal(augmentation.apply(images, draws), rescale_bicubic(images, factors))


@pytest.mark.parametrize("moment", [(1, 2), (2, 3)])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    pictures: ScaleDataset,
    quick: Quick,
    digest: Digest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: tuple[int, int],
) -> None:
    monkeypatch.setattr("secli.training.loop.SECONDS_BETWEEN_REPORTS", 0.0)
    settings = quick(augment="stl10")
    undisturbed, _ = train(COLOUR, pictures, settings, tmp_path / "undisturbed")
    sent = False

    def interrupt(event: Event) -> None:
        nonlocal sent
        if isinstance(event, Stepped) and (event.epoch, event.step) == moment and not sent:
            sent = True
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        train(COLOUR, pictures, settings, tmp_path / "cut", on_event=interrupt)
    run, _ = train(COLOUR, pictures, settings, tmp_path / "cut", resume=True)
    assert digest(run) == digest(undisturbed)
    plain, _ = train(COLOUR, pictures, quick(), tmp_path / "plain")
    assert digest(plain) != digest(run)


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 28)])
def test_images_that_it_cannot_take_are_refused_in_one_line(
    tiny: ScaleDataset,
    variant: Callable[..., ScaleDataset],
    quick: Quick,
    channels: int,
    side: int,
    tmp_path: Path,
) -> None:
    dataset = tiny if channels == 1 else variant("colour", colour=True)
    model = ModelSettings(name="cnn", options={"in_channels": channels})
    with pytest.raises(InputError) as caught:
        train(model, dataset, quick(augment="stl10"), tmp_path / "runs")
    assert str(caught.value) == (
        f"{dataset.path}: training.augment = stl10 needs colour images of at least 32×32 pixels, "
        f"not {channels}×{side}×{side}; give --augment none"
    )
    assert not (tmp_path / "runs").exists()
    build_for(dataset, resolve(model, quick(augment="scale")))


def test_a_cutout_just_fits() -> None:
    augmentation = CropFlipCutout("black")
    assert augmentation.unfit(3, 32, 40) is None
    assert augmentation.unfit(3, 40, 31) is not None
    assert augmentation.unfit(1, 96, 96) is not None
    assert augmentation.unfit(4, 96, 96) is not None


def test_a_filling_without_padding_is_refused(quick: Quick) -> None:
    with pytest.raises(InputError, match=r"training.pad = mean: needs training.augment = stl10"):
        resolve(ModelSettings(name="cnn"), quick(pad="mean", augment="scale"))


def test_a_centre_without_rescaling_is_refused(quick: Quick) -> None:
    with pytest.raises(InputError, match=r"training.centre = corner: needs training.augment = scale"):
        resolve(ModelSettings(name="cnn"), quick(centre="corner"))


def test_the_centre_that_is_asked_for_is_what_images_are_rescaled_about(quick: Quick) -> None:
    images, factors = torch.rand(3, 1, 28, 28), torch.tensor([0.6, 1.2, 1.9])
    for centre in ("pixel", "corner"):
        augmentation = augmentation_of(quick(augment="scale", centre=centre))
        assert augmentation is not None
        assert torch.equal(augmentation.apply(images, (factors,)), rescale_bicubic(images, factors, centre))


def test_a_run_from_before_the_centre_could_be_chosen_is_not_gone_on_with_where_it_rescaled(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    for augment in ("none", "scale"):
        settings = quick(epochs=1, augment=augment)
        run, record = train(ModelSettings(name="cnn"), tiny, settings, tmp_path)
        old = json.loads((run / "record.json").read_text())
        assert old["training"].pop("centre") == "pixel"
        (run / "record.json").write_text(json.dumps(old))
        if augment == "none":
            _, again = train(ModelSettings(name="cnn"), tiny, settings, tmp_path, resume=True)
            assert again.results == record.results
        else:
            with pytest.raises(InputError, match=r"scale augmentation of an older secli.*--force"):
                train(ModelSettings(name="cnn"), tiny, settings, tmp_path, resume=True)


def test_the_filling_names_a_run_only_where_it_is_not_the_usual_one(tiny: ScaleDataset) -> None:
    name = "wrn_16_8"
    model = ModelSettings(name=name)

    def directory(**changes: Any) -> str:
        from secli.training.plan import default_training

        settings = default_training(name).model_copy(update=changes)
        return run_directory(Path("runs"), name, tiny, resolve(model, settings)).name

    assert directory() == directory(pad="black") == f"{tiny.name}-r0-s0"
    assert directory(pad="mean") != directory()


def test_a_run_from_before_the_filling_could_be_chosen_goes_on(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path
) -> None:
    model = ModelSettings(name="cnn")
    run, record = train(model, tiny, quick(epochs=1), tmp_path)
    path = run / "record.json"
    old = json.loads(path.read_text())
    assert old["training"].pop("pad") == "black"
    path.write_text(json.dumps(old))
    again, finished = train(model, tiny, quick(epochs=1), tmp_path, resume=True)
    assert (again, finished.results) == (run, record.results)
    old["training"]["pad"] = "mean"
    path.write_text(json.dumps(old))
    with pytest.raises(InputError, match=r"--resume: training.pad = black, but .* was started with mean"):
        train(model, tiny, quick(epochs=1), tmp_path, resume=True)
