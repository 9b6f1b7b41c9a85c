"""The published recipe, against a literal transcription of it and against digests that must never change."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from secli.datasets.build import make_dataset
from secli.datasets.protocols import DATASETS, Parameters
from secli.datasets.published_digests import first_difference, published_digests, split_digest
from secli.datasets.published_rescaling import rescale_as_published
from secli.datasets.splits import default_sizes, plan
from secli.datasets.store import Split
from secli.errors import InputError
from secli.sources.contract import RawImages, SourceInfo

RawMaker = Callable[..., RawImages]
SMALL = Parameters(factors=(0.3, 1.0), sizes=(100, 40, 200), image_size=None)


def literal(
    raw: RawImages, sizes: tuple[int, int, int], realisation: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Follow the published recipe word by word, with the global generators."""
    from sklearn.model_selection import train_test_split

    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(realisation)
    np.random.seed(realisation)  # noqa: NPY002
    files, labels = list(range(len(raw.labels))), raw.labels.tolist()
    both, test, both_labels, _ = train_test_split(
        files, labels, train_size=sizes[0] + sizes[1], test_size=sizes[2], random_state=None, stratify=labels
    )
    train, val = train_test_split(
        both, train_size=sizes[0], test_size=sizes[1], random_state=None, stratify=both_labels
    )
    result = {}
    for name, indices in (("train", train), ("test", test), ("val", val)):
        images = []
        for index in indices:
            random.uniform(0, 0)
            s = random.uniform(0.3, 1.0)
            c = 14.5
            offset = (1 / s) * (-c) + (1 / s * 0) * (-c) + c
            picture = Image.fromarray(raw.images[index]).transform(
                (28, 28),
                Image.Transform.AFFINE,
                (1 / s, 0, offset, 0, 1 / s, offset),
                Image.Resampling.BICUBIC,
            )
            images.append(np.asarray(picture))
        result[name] = (np.stack(images), raw.labels[indices])
    random.setstate(state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    return result


@pytest.mark.parametrize("realisation", [0, 3])
def test_equals_the_literal_transcription(raw_images: RawMaker, realisation: int) -> None:
    import sklearn.model_selection  # noqa: F401  importing it draws from Python's generator

    raw = raw_images()
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    plans = plan(DATASETS["mnist-scale"], SMALL, raw, realisation)
    after = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    assert before == after, "the caller's generators were touched"
    for name, (images, labels) in literal(raw, (100, 40, 200), realisation).items():
        part = plans[name]  # type: ignore[index]
        np.testing.assert_array_equal(rescale_as_published(raw.images[part.indices], part.factors), images)
        np.testing.assert_array_equal(raw.labels[part.indices], labels)


@pytest.mark.parametrize(
    ("realisation", "expected"),
    [
        (0, "1ffecf1309c1468388aed84fc08678c8ae24462e96705b62eb84bebb162c7e15"),
        (5, "85fe22dcd608fd8ec5a4a296175bbdf4bd6e207ebd57d2cd1e17d05d56d5b524"),
    ],
)
def test_never_changes(raw_images: RawMaker, realisation: int, expected: str) -> None:
    # the digests were computed when the real MNIST gave all eighteen published ones
    raw = raw_images()
    plans = plan(DATASETS["mnist-scale"], SMALL, raw, realisation)
    digest = hashlib.sha256()
    for part in plans.values():
        digest.update(rescale_as_published(raw.images[part.indices], part.factors).tobytes())
        digest.update(raw.labels[part.indices].astype(np.uint8).tobytes())
    assert digest.hexdigest() == expected


@pytest.mark.slow
@pytest.mark.parametrize("realisation", range(6))
def test_the_real_thing(realisation: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """All digests are the published ones; needs MNIST in the cache."""
    out = tmp_path_factory.mktemp("data")
    try:
        made = make_dataset("mnist-scale", out, [realisation], offline=True)
    except InputError as error:
        pytest.skip(str(error))
    assert made[0].made


def test_digests_are_carried() -> None:
    spec = DATASETS["mnist-scale"]
    all_digests = [published_digests(spec, realisation) for realisation in range(6)]
    flat = {digest for digests in all_digests if digests is not None for digest in digests.values()}
    assert len(flat) == 18
    assert published_digests(spec, 6) is None
    assert published_digests(DATASETS["digits-scale"], 0) is None


def test_a_single_pixel_is_noticed() -> None:
    images, labels = np.zeros((3, 4, 4), np.uint8), np.arange(3)
    splits = {name: Split(images, labels, np.ones(3, np.float32)) for name in ("train", "val", "test")}
    digests = {name: split_digest(split) for name, split in splits.items()}
    assert first_difference(digests, splits) is None  # type: ignore[arg-type]
    other = images.copy()
    other[1, 2, 3] = 1
    splits["val"] = Split(other, labels, np.ones(3, np.float32))
    assert first_difference(digests, splits) == "val"  # type: ignore[arg-type]


@given(factor=st.floats(0.2, 2.0), height=st.integers(9, 24), width=st.integers(9, 24), colour=st.booleans())
def test_rescaling_follows_the_formula(factor: float, height: int, width: int, colour: bool) -> None:
    """On a linear picture, output (x, y) reads input at x/s + c − c/s.

    Pillow's cubic kernel (a = −1) is off by at most 0.0962 of a linear picture's slope (here 4 + 3), and it cuts
    off fractions; 1.75 grey values are a quarter of a pixel.
    """
    ramp = (4 * np.arange(width)[None, :] + 3 * np.arange(height)[:, None]).astype(np.uint8)
    images = np.stack([ramp] * 3, axis=-1)[None] if colour else ramp[None]
    rescaled = rescale_as_published(images, np.array([factor]))[0].astype(float)
    cx, cy = width / 2 + 0.5, height / 2 + 0.5
    x = (np.arange(width) + 0.5) / factor + cx - cx / factor - 0.5
    y = (np.arange(height) + 0.5) / factor + cy - cy / factor - 0.5
    inside = ((x > 2) & (x < width - 3))[None, :] & ((y > 2) & (y < height - 3))[:, None]
    expected = 4 * x[None, :] + 3 * y[:, None]
    shown = rescaled[..., 0] if colour else rescaled
    assert np.abs(shown - expected)[inside].max(initial=0) <= 1.75
    far = ((x < -1) | (x > width + 1))[None, :] | ((y < -1) | (y > height + 1))[:, None]
    assert shown[far].max(initial=0) == 0


@pytest.mark.parametrize("colour", [False, True])
def test_factor_one_changes_nothing(raw_images: RawMaker, colour: bool) -> None:
    images = raw_images(5, colour).images
    np.testing.assert_array_equal(rescale_as_published(images, np.ones(5)), images)


@given(
    train=st.integers(10, 60),
    val=st.sampled_from([0, 10, 17]),
    test=st.integers(10, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_splits_are_disjoint_stratified_and_repeatable(train: int, val: int, test: int, seed: int) -> None:
    count = 150
    raw = RawImages(
        np.zeros((count, 2, 2), np.uint8),
        np.arange(count, dtype=np.int64) % 10,
        tuple("0123456789"),
        (("all", count),),
        False,
        SourceInfo(name="mnist", digests={}, verified=True),
    )
    parameters = Parameters((0.5, 2.0), (train, val, test), None)
    plans = plan(DATASETS["mnist-scale"], parameters, raw, seed)
    assert [len(plans[name].indices) for name in ("train", "val", "test")] == [train, val, test]
    everything = np.concatenate([part.indices for part in plans.values()])
    assert len(np.unique(everything)) == train + val + test
    for part in plans.values():
        counts = np.bincount(raw.labels[part.indices], minlength=10)
        assert len(part.indices) == 0 or counts.max() - counts.min() <= 2
        assert ((part.factors >= 0.5) & (part.factors <= 2.0)).all()
    again = plan(DATASETS["mnist-scale"], parameters, raw, seed)
    assert all((again[name].factors == plans[name].factors).all() for name in plans)


def test_official_parts_are_kept(raw_images: RawMaker) -> None:
    raw = raw_images(100, parts=(("train", 60), ("test", 40)))
    whole = plan(DATASETS["stl10"], Parameters(None, (60, 0, 40), None), raw, 0)
    assert whole["train"].indices.tolist() == list(range(60))
    assert whole["test"].indices.tolist() == list(range(60, 100))
    assert len(whole["val"].indices) == 0
    some = plan(DATASETS["folder"], Parameters(None, (30, 20, 20), None), raw, 1)
    assert max(some["train"].indices.max(), some["val"].indices.max()) < 60 <= some["test"].indices.min()
    with_val = raw_images(100, parts=(("train", 40), ("val", 20), ("test", 40)))
    assert default_sizes(with_val) == (40, 20, 40)
    assert plan(DATASETS["folder"], Parameters(None, None, None), with_val, 0)[
        "val"
    ].indices.tolist() == list(range(40, 60))


def test_default_sizes(raw_images: RawMaker) -> None:
    assert default_sizes(raw_images(200)) == (120, 20, 60)
    assert default_sizes(raw_images(200, parts=(("train", 140), ("test", 60)))) == (120, 20, 60)
    assert default_sizes(raw_images(40)) == (18, 10, 12)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((300, 100, 100), "500 images wanted for train and val and test, but source 'mnist' has 400"),
        ((100, 5, 100), "5 images for val are too few for 10 classes"),
        ((100, 50, 3), "3 images for test are too few for 10 classes"),
    ],
)
def test_impossible_sizes(raw_images: RawMaker, sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(DATASETS["mnist-scale"], Parameters(None, sizes, None), raw_images(), 0)


def test_a_single_image_of_a_class_is_named(raw_images: RawMaker) -> None:
    raw = raw_images(91)
    raw.labels[:] = np.arange(91) % 9
    raw.labels[0] = 9
    with pytest.raises(InputError, match="class '9' has a single image"):
        plan(DATASETS["mnist-scale"], Parameters(None, (20, 10, 20), None), raw, 0)


@pytest.mark.parametrize("factors", [(0.0, 1.0), (-0.3, 1.0), (math.nan, 1.0), (0.3, math.inf), (1.0, 0.3)])
def test_bad_factors(factors: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="--factors"):
        DATASETS["mnist-scale"].parameters(factors=factors)


def test_parameters_name_the_folder() -> None:
    spec = DATASETS["mnist-scale"]
    assert spec.folder(spec.parameters(factors=(0.3, 1.0), sizes=(10_000, 2_000, 50_000))) == "mnist-scale"
    other = spec.folder(spec.parameters(factors=(0.5, 1.0)))
    assert other.startswith("mnist-scale-")
    assert len(other) == len("mnist-scale-") + 8
    assert other != spec.folder(spec.parameters(sizes=(100, 20, 100)))
    with pytest.raises(InputError, match="mnist does not rescale its images"):
        DATASETS["mnist"].parameters(factors=(0.3, 1.0))
    with pytest.raises(InputError, match="--image-size 0"):
        spec.parameters(image_size=0)
    with pytest.raises(InputError, match="--sizes 0 0 5"):
        spec.parameters(sizes=(0, 0, 5))


def test_every_protocol_has_a_source_and_a_preview() -> None:
    import importlib

    from secli.sources.registry import SOURCES

    for spec in DATASETS.values():
        assert spec.source in SOURCES
        module, _, function = spec.preview.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
        assert spec.name.endswith("-scale") == (spec.factors is not None)
