"""The digests that a published dataset must have, carried in this package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources

import numpy as np

from secli.datasets.manifest import SPLITS, SplitName
from secli.datasets.protocols import DatasetSpec
from secli.datasets.store import ScaleDataset, Split


def published_digests(spec: DatasetSpec, realisation: int) -> dict[SplitName, str] | None:
    """Return the published sha256 of each split of a standard realisation; None where none is published."""
    if spec.digests is None:
        return None
    content = json.loads(resources.files("secli.datasets").joinpath(spec.digests).read_text(encoding="utf-8"))
    entry = content["realisations"].get(str(realisation))
    return None if entry is None else {name: entry["sha256"][name] for name in SPLITS}


def split_digest(split: Split) -> str:
    """Return the sha256 of a split's images (uint8, in order) followed by its labels (uint8)."""
    digest = hashlib.sha256(split.images.tobytes())
    digest.update(split.labels.astype(np.uint8).tobytes())
    return digest.hexdigest()


def first_difference(
    expected: Mapping[SplitName, str], splits: Mapping[SplitName, Split]
) -> SplitName | None:
    """Return the first split that is not the published one; None when all are."""
    return next((name for name in SPLITS if split_digest(splits[name]) != expected[name]), None)


def is_standard(spec: DatasetSpec, dataset: ScaleDataset) -> bool:
    """Return whether a dataset on disk was made with the protocol's standard parameters."""
    return dataset.name == spec.name and spec.standard.written_as(dataset.manifest.parameters)
