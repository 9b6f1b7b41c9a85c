"""Features that do not change with scale."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from secli.action.fields.contract import Acted, Canvas, Field


@dataclass(frozen=True)
class Invariant(Field):
    """Features that do not change with scale, of any shape: logits, pooled vectors."""

    def act(self, features: Tensor | list[Tensor], factor: float, canvas: Canvas, steps: int = 1) -> Acted:
        """Return the features as they are."""
        tensors = features if isinstance(features, list) else [features]
        return Acted(list(tensors), [None] * len(tensors))

    def smallest_plane(self, features: Tensor | list[Tensor]) -> int | None:
        """Return None: there is no plane to be too small."""
        return None
