"""Which image goes into which split, and by which factor it is rescaled: the random part of a protocol."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from secli.datasets.manifest import SPLITS, SplitName
from secli.datasets.protocols import DatasetSpec, Parameters, Sizes
from secli.errors import InputError
from secli.sources.contract import RawImages

# The published code walks the splits in this order when it draws the factors.
DRAWING_ORDER: tuple[SplitName, ...] = ("train", "test", "val")
SHARES = (0.6, 0.1, 0.3)  # of a source without parts, where no sizes are given


@dataclass(frozen=True, eq=False)
class Plan:
    """One split before it is rendered.

    Attributes
    ----------
    indices
        Which pictures of the source, in the order of the split.
    factors
        The scale factor s of each.
    """

    indices: Int64[np.ndarray, "n"]
    factors: Float64[np.ndarray, "n"]


def plan(
    spec: DatasetSpec, parameters: Parameters, raw: RawImages, realisation: int
) -> dict[SplitName, Plan]:
    """Draw the splits and the factors of one realisation.

    The draws are those of the published code, which seeds NumPy's global generator and Python's ``random``
    with the realisation's number: two stratified splits of scikit-learn take from the first (train and
    validation against test, then train against validation); per image two numbers are taken from the second,
    an angle U[0, 0] and the factor U[low, high]. The caller's generators are left alone.

    Parameters
    ----------
    spec, parameters
        The protocol.
    raw : RawImages
        The source.
    realisation : int
        Realisation r, the seed of both generators.

    Raises
    ------
    InputError
        When the sizes do not fit the source.
    """
    generator = np.random.RandomState(realisation)
    sizes = parameters.sizes if parameters.sizes is not None else default_sizes(raw)
    draw = _official if spec.official and raw.part("test") is not None else _pooled
    indices = draw(raw, sizes, generator)
    factors = draw_factors(parameters, {name: len(indices[name]) for name in DRAWING_ORDER}, realisation)
    return {name: Plan(indices[name].astype(np.int64), factors[name]) for name in DRAWING_ORDER}


def draw_factors(
    parameters: Parameters, counts: Mapping[SplitName, int], realisation: int
) -> dict[SplitName, Float64[np.ndarray, "_"]]:
    """Draw the scale factor of every image, split by split in the published order; 1 where nothing is rescaled."""
    if parameters.factors is None:
        return {name: np.ones(counts[name]) for name in DRAWING_ORDER}
    generator = random.Random(realisation)
    low, high = parameters.factors
    factors = {}
    for name in DRAWING_ORDER:
        drawn = np.empty(counts[name])
        for index in range(counts[name]):
            generator.uniform(0, 0)  # the angle, which the published recipe draws and leaves at zero
            drawn[index] = generator.uniform(low, high)
        factors[name] = drawn
    return factors


def default_sizes(raw: RawImages) -> Sizes:
    """Return the sizes of a source of no standard size: its own parts, else 60, 10 and 30 % of it.

    Without a validation part, a seventh of the training part is taken for it.
    """
    classes = len(raw.classes)
    test_part, val_part, train_part = raw.part("test"), raw.part("val"), raw.part("train")
    if test_part is None or train_part is None:
        count = len(raw.labels)
        val = max(round(SHARES[1] * count), classes)
        test = max(round(SHARES[2] * count), classes)
        return count - val - test, val, test
    if val_part is not None:
        return len(train_part), len(val_part), len(test_part)
    val = max(round(len(train_part) / 7), classes)
    return len(train_part) - val, val, len(test_part)


def _pooled(raw: RawImages, sizes: Sizes, generator: np.random.RandomState) -> dict[SplitName, np.ndarray]:
    """Split all pictures anew, as the published code does."""
    train, val, test = sizes
    everything = np.arange(len(raw.labels))
    both, test_indices = _stratified(raw, everything, train + val, test, generator, "train and val", "test")
    train_indices, val_indices = _stratified(raw, both, train, val, generator, "train", "val")
    return {"train": train_indices, "val": val_indices, "test": test_indices}


def _official(raw: RawImages, sizes: Sizes, generator: np.random.RandomState) -> dict[SplitName, np.ndarray]:
    """Take test images from the source's test part, the others from its training (and validation) part."""
    train, val, test = sizes
    parts = {name: np.array(raw.part(name) or (), dtype=np.int64) for name in SPLITS}
    test_indices, _ = _stratified(raw, parts["test"], test, 0, generator, "test", "")
    if len(parts["val"]) and val:
        val_indices, _ = _stratified(raw, parts["val"], val, 0, generator, "val", "")
        train_indices, _ = _stratified(raw, parts["train"], train, 0, generator, "train", "")
    else:
        train_indices, val_indices = _stratified(raw, parts["train"], train, val, generator, "train", "val")
    return {"train": train_indices, "val": val_indices, "test": test_indices}


def _stratified(
    raw: RawImages,
    pool: np.ndarray,
    first: int,
    second: int,
    generator: np.random.RandomState,
    first_name: str,
    second_name: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw two disjoint sets with the classes in the pool's proportions; a whole pool keeps its order."""
    names = " and ".join(name for name in (first_name, second_name) if name)
    if first + second > len(pool):
        raise InputError(
            f"--sizes: {first + second} images wanted for {names}, but source '{raw.info.name}' has {len(pool)}"
        )
    empty = pool[:0]
    if second == 0 and first == len(pool):
        return pool, empty
    labels = raw.labels[pool]
    present, counts = np.unique(labels, return_counts=True)
    for name, size in ((first_name, first), (second_name, second)):
        if 0 < size < len(present) or first < 1:
            raise InputError(
                f"--sizes: {size} images for {name} are too few for {len(present)} classes, one of each"
            )
    if counts.min() < 2:
        rare = raw.classes[int(present[counts.argmin()])]
        raise InputError(
            f"source '{raw.info.name}': class '{rare}' has a single image, which cannot be split"
        )
    from sklearn.model_selection import train_test_split

    rest = len(pool) - first
    if second == 0 and rest < len(present):
        # scikit-learn wants one image of each class in what is left out, too
        raise InputError(
            f"--sizes: {first} of {len(pool)} images for {names}: leave none out, or one of each class"
        )
    chosen, other = train_test_split(
        pool, train_size=first, test_size=second or rest, random_state=generator, stratify=labels
    )
    return chosen, other if second else empty
