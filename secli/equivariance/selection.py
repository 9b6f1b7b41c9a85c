"""The part of a feature map that is compared: all of it, one scale level, or one channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from jaxtyping import Bool
from torch import Tensor

from secli.action.fields import Acted
from secli.models.contract import Features

Per = Literal["level", "channel"]


class Selection(NamedTuple):
    """A part of a feature map: the index on the scale axis, or into a pyramid, and of the channel; None takes all."""

    level: int | None = None
    channel: int | None = None

    def of(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return this part of features: (N, C, …) becomes (N, 1, …), one level of a stack (N, C, 1, …)."""
        return [_narrow(tensor, self) for tensor in features[self._resolutions(len(features))]]

    def of_masks(self, masks: Sequence[Bool[Tensor, "..."] | None]) -> list[Bool[Tensor, "..."] | None]:
        """Return the masks of this part."""
        return [
            None if mask is None else _narrow(mask, self) for mask in masks[self._resolutions(len(masks))]
        ]

    def acted(self, acted: Acted) -> Acted:
        """Return this part of L_s of features."""
        if self == ALL:
            return acted
        return acted._replace(features=self.of(acted.features), masks=self.of_masks(acted.masks))

    def _resolutions(self, count: int) -> slice:
        """Return the tensors of a pyramid that are selected; a stack is one tensor."""
        return slice(None) if count == 1 or self.level is None else slice(self.level, self.level + 1)


ALL = Selection()


def selections(features: Features, acted: Acted, per: Sequence[Per]) -> list[Selection]:
    """Return all of a feature map, and each of its levels or channels as in ``per``."""
    tensor = features[0] if isinstance(features, list) else features
    found = [ALL]
    if "level" in per and acted.levels_total is not None:
        found += [Selection(level=k) for k in range(acted.levels_total)]
    if "channel" in per and tensor.ndim > 2:
        found += [Selection(channel=c) for c in range(tensor.shape[1])]
    return found


def _narrow(tensor: Tensor, selection: Selection) -> Tensor:
    """Keep one index of an axis; an axis of one (a mask for all) stays."""
    if selection.channel is not None and tensor.shape[1] > 1:
        tensor = tensor.narrow(1, selection.channel, 1)
    if selection.level is not None and tensor.ndim > 4 and tensor.shape[2] > 1:
        tensor = tensor.narrow(2, selection.level, 1)
    return tensor
