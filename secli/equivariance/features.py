"""Features of one tap, as one tensor or one per resolution."""

from __future__ import annotations

from torch import Tensor

from secli.models.contract import Features


def tensors(features: Features) -> list[Tensor]:
    """Return the tensors of a tap: one, or one per resolution."""
    return features if isinstance(features, list) else [features]


def minus(features: Features, empty: Features | None) -> Features:
    """Return F − F₀, tensor by tensor; F itself without a background F₀."""
    if empty is None:
        return features
    differences = [one - zero for one, zero in zip(tensors(features), tensors(empty), strict=True)]
    return differences if isinstance(features, list) else differences[0]


def taken(features: Features, images: slice) -> Features:
    """Return the features of some images of a batch."""
    return [tensor[images] for tensor in features] if isinstance(features, list) else features[images]
