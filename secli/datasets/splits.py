"""Which image goes into which split, and by which factor it is rescaled: the random part of a protocol."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from secli.datasets.manifest import SPLITS, SplitName
from secli.datasets.protocols import DatasetSpec, Parameters, Sizes
from secli.datasets.transforms import TRANSFORMS
from secli.errors import InputError
from secli.sources.contract import RawImages

# The published code walks the splits in this order when it draws the factors.
DRAWING_ORDER: tuple[SplitName, ...] = ("train", "test", "val")
# of a source without parts, where no sizes are given
SHARES: dict[SplitName, float] = {"train": 0.6, "val": 0.1, "test": 0.3}
DRAWN: tuple[SplitName, ...] = ("val", "test")
"""The splits that are drawn from the training part where a source has none."""


@dataclass(frozen=True, eq=False)
class SplitPlan:
    """One split before it is made: which pictures of the source, in order, and the scale factor of each."""

    indices: Int64[np.ndarray, "n"]
    factors: Float64[np.ndarray, "n"]


def plan(
    spec: DatasetSpec, parameters: Parameters, raw: RawImages, realisation: int
) -> dict[SplitName, SplitPlan]:
    """Draw the splits and the factors of one realisation.

    The draws are those of the published code, which seeds NumPy's global generator and Python's ``random``
    with the realisation's number: two stratified splits of scikit-learn take from the first (train and
    validation against test, then train against validation); per image two numbers are taken from the second,
    an angle U[0, 0] and the factor U[low, high]. The caller's generators are left alone.

    Raises
    ------
    InputError
        When the sizes do not fit the source.
    """
    generator = np.random.RandomState(realisation)
    sizes = parameters.sizes if parameters.sizes is not None else default_sizes(raw)
    draw = _official if spec.official and raw.part("train") is not None else _pooled
    indices = draw(raw, sizes, generator)
    counts = {name: len(indices[name]) for name in DRAWING_ORDER}
    factors = draw_factors(spec, parameters, counts, realisation)
    return {name: SplitPlan(indices[name].astype(np.int64), factors[name]) for name in DRAWING_ORDER}


def draw_factors(
    spec: DatasetSpec, parameters: Parameters, counts: Mapping[SplitName, int], realisation: int
) -> dict[SplitName, Float64[np.ndarray, "_"]]:
    """Draw the number of every image, split by split in the published order; 1 where nothing is changed."""
    if parameters.factors is None:
        return {name: np.ones(counts[name]) for name in DRAWING_ORDER}
    generator = random.Random(realisation)
    draw = TRANSFORMS[spec.transform].draw
    return {
        name: np.array([draw(generator, parameters.factors) for _ in range(counts[name])])
        for name in DRAWING_ORDER
    }


def default_sizes(raw: RawImages) -> Sizes:
    """Return the sizes of a source of no standard size: its own parts, else 60, 10 and 30 % of it.

    A part that is missing is drawn from the training part, in the same proportions: a seventh of it for validation
    alone, a third for test alone.
    """
    classes, whole = len(raw.classes), raw.part("train") or raw.part("all") or ()
    drawn = [name for name in DRAWN if raw.part(name) is None]
    parts = SHARES["train"] + sum(SHARES[name] for name in drawn)
    sizes = {name: len(raw.part(name) or ()) for name in SPLITS}
    for name in drawn:
        sizes[name] = max(round(SHARES[name] / parts * len(whole)), classes)
    sizes["train"] = len(whole) - sum(sizes[name] for name in drawn)
    return sizes["train"], sizes["val"], sizes["test"]


def drawn_remarks(spec: DatasetSpec, parameters: Parameters, raw: RawImages) -> list[str]:
    """Report which splits a source lacks, and how many images are drawn from its training part for them."""
    if not spec.official or raw.part("train") is None:
        return []
    sizes = dict(zip(SPLITS, parameters.sizes or default_sizes(raw), strict=True))
    return [
        f"no {name} split in the source: {sizes[name]} images are drawn from train, stratified by class"
        for name in DRAWN
        if raw.part(name) is None and sizes[name]
    ]


def _pooled(raw: RawImages, sizes: Sizes, generator: np.random.RandomState) -> dict[SplitName, np.ndarray]:
    """Split all pictures anew, as the published code does."""
    return _split_anew(raw, np.arange(len(raw.labels)), sizes, generator)


def _split_anew(
    raw: RawImages, pool: np.ndarray, sizes: Sizes, generator: np.random.RandomState
) -> dict[SplitName, np.ndarray]:
    train, val, test = sizes
    both, test_indices = _stratified(raw, pool, train + val, test, generator, "train and val", "test")
    train_indices, val_indices = _stratified(raw, both, train, val, generator, "train", "val")
    return {"train": train_indices, "val": val_indices, "test": test_indices}


def _official(raw: RawImages, sizes: Sizes, generator: np.random.RandomState) -> dict[SplitName, np.ndarray]:
    """Take each split from the source's part of that name; what has none is drawn from the training part."""
    parts = {name: np.array(raw.part(name) or (), dtype=np.int64) for name in SPLITS}
    lacking = [name for name in DRAWN if not len(parts[name])]
    if lacking == list(DRAWN):
        return _split_anew(raw, parts["train"], sizes, generator)
    requested = dict(zip(SPLITS, sizes, strict=True))
    found = {name: parts[name][:0] for name in SPLITS}
    for name in ("test", "val"):
        if len(parts[name]) and requested[name]:
            found[name], _ = _stratified(raw, parts[name], requested[name], 0, generator, name, "")
    # at most one split is drawn together with the training images
    drawn, count = (lacking[0], requested[lacking[0]]) if lacking else ("", 0)
    found["train"], rest = _stratified(
        raw, parts["train"], requested["train"], count, generator, "train", drawn if count else ""
    )
    return {**found, **dict.fromkeys(lacking, rest)}


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
        # scikit-learn needs one image of each class in what is left out, too
        raise InputError(
            f"--sizes: {first} of {len(pool)} images for {names}: leave none out, or one of each class"
        )
    chosen, other = train_test_split(
        pool, train_size=first, test_size=second or rest, random_state=generator, stratify=labels
    )
    return chosen, other if second else empty
