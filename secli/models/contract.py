"""The interface of a network that secli can train, measure and run block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from secli.action.fields import Field

Features = Tensor | list[Tensor]


class Stage(NamedTuple):
    """One step of a network: the name of the tap after it, its module, and the field of the features there.

    The module maps the previous tap's features (the images, for the first stage) to this tap's.
    """

    tap: str
    module: nn.Module
    field: Field


@runtime_checkable
class Model(Protocol):
    """A network Φ with named taps. Φ takes pixels in [0, 1], shape (N, C, H, W); normalisation is inside.

    Training needs ``forward``; measuring needs ``taps`` and ``features``; attribution runs ``stages`` alone.
    """

    @property
    def taps(self) -> dict[str, Field]:
        """The field of every tap, from input to output."""
        ...

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """The blocks between taps: stage i maps the features at tap i − 1 to those at tap i."""
        ...

    def features(self, images: Float[Tensor, "n c h w"]) -> dict[str, Features]:
        """Return the features at every tap, in one forward pass."""
        ...

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Return the logits."""
        ...


class StagedModel(nn.Module):
    """A network that is a chain of stages, from input to output; it meets the contract by running them in order.

    The last stage returns the logits. Each stage's module is registered under its tap's name, so that parameter names
    read ``conv1.weight``.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self._fields = {stage.tap: stage.field for stage in stages}
        if len(self._fields) != len(stages):
            raise ValueError("two stages share a tap's name")
        for stage in stages:
            self.add_module(stage.tap, stage.module)

    @property
    def taps(self) -> dict[str, Field]:
        """The field of every tap, from input to output."""
        return dict(self._fields)

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """The blocks between taps, from input to output."""
        return [(tap, self.get_submodule(tap)) for tap in self._fields]

    def features(self, images: Float[Tensor, "n c h w"]) -> dict[str, Features]:
        """Return the features at every tap, in one forward pass."""
        features: dict[str, Features] = {}
        current: Features = images
        for tap, module in self.stages:
            current = module(current)
            features[tap] = current
        return features

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Return the logits."""
        current = images
        for _, module in self.stages:
            current = module(current)
        return current
