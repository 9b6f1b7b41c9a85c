"""The taps that a network reaches on images of another size: its classifier may take no other than its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.action.fields import Field
from secli.external.hooked_model import DeclaredModel, ExternalModel
from secli.models.contract import Features, Model, StagedModel


class PartialModel(nn.Module):
    """A network that is run as far as some of its taps: its ``features`` are those that it reaches.

    Attributes
    ----------
    taps
        The fields of these taps.
    """

    def __init__(self, model: Model, taps: Mapping[str, Field]) -> None:
        super().__init__()
        self.model, self.taps = model, dict(taps)
        self.mixes = getattr(model, "mixes", None)

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """Empty: only the taps are known."""
        return []

    def features(self, images: Float[Tensor, "n c h w"]) -> dict[str, Features]:
        """Return the features at the taps that are reached, in one pass."""
        return features_reached(self.model, images, self.taps)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """Return what the whole network does."""
        return self.model(images)


def features_reached(
    model: Model, images: Float[Tensor, "n c h w"], taps: Collection[str]
) -> dict[str, Features]:
    """Return the features at those of some taps that a network reaches before it fails on the images, if it does.

    Its stages are run one by one as far as the last of the taps; of a network that is not a chain of stages the calls
    before its failure count.
    """
    if isinstance(model, StagedModel):
        return _of_stages(model, images, taps)
    if isinstance(model, ExternalModel) and not isinstance(model, DeclaredModel):
        return model.features_reached(images, taps)
    try:
        features = model.features(images)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception:  # anybody's code, on images that it was not made for
        return {}
    return {tap: features[tap] for tap in taps if tap in features}


def _of_stages(
    model: StagedModel, images: Float[Tensor, "n c h w"], taps: Collection[str]
) -> dict[str, Features]:
    found: dict[str, Features] = {}
    current: Features = images
    for tap, module in model.stages:
        try:
            current = module(current)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError):  # a layer whose size is fixed
            break
        if tap in taps:
            found[tap] = current
            if len(found) == len(taps):
                break
    return found
