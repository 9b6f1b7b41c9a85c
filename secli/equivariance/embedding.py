"""The embedding of pictures: what the last linear layer takes, or the deepest tap, pooled over its plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.equivariance.features import tensors
from secli.external.hooks import LOGITS, first_tensor
from secli.models.contract import Features, Model


class _Call(NamedTuple):
    name: str
    into: Tensor
    out_of: Tensor


class EmbeddingReader:
    """Reads the embedding of each pass of a network, while it is listened to.

    It is the input (N, D) of the last ``nn.Linear`` that is called, where its output has the shape of the logits;
    else the deepest tap but the logits, of which each channel (and level) is averaged over its plane.

    Attributes
    ----------
    place
        Where it was read first, in words; None before, and where there is neither.
    """

    def __init__(self, model: Model) -> None:
        self.place: str | None = None
        self._layers: dict[str, nn.Module] = {}
        if isinstance(model, nn.Module):
            found = model.named_modules()
            self._layers = {name: layer for name, layer in found if isinstance(layer, nn.Linear)}
        self._last: _Call | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note what goes into linear layers inside."""
        handles = [layer.register_forward_hook(self._hook(name)) for name, layer in self._layers.items()]
        try:
            yield
        finally:
            self._last = None
            for handle in handles:
                handle.remove()

    def read(self, features: Mapping[str, Features]) -> Float[Tensor, "n d"] | None:
        """Return the embedding of the last pass, which gave these features; None where it has none."""
        call, self._last = self._last, None  # nothing of a pass is held longer than needed
        logits = features.get(LOGITS)
        if call is not None and isinstance(logits, Tensor) and call.out_of.shape == logits.shape:
            place, found = f"input of {call.name}", call.into
        else:
            tap = next((tap for tap in reversed(list(features)) if tap != LOGITS), None)
            if tap is None:
                return None
            place, found = f"mean over the plane of {tap}", pooled(features[tap])
        self.place = self.place or place
        return found if place == self.place else None

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        # a foreign network is the one child of its wrapper, whose name says nothing to its owner
        known = name.removeprefix("network.")

        def hook(_module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            into, out_of = first_tensor(inputs), first_tensor(output)
            self._last = None
            if into is not None and out_of is not None and into.ndim == 2:
                self._last = _Call(known, into, out_of)

        return hook


def pooled(features: Features) -> Float[Tensor, "n d"]:
    """Return the mean of each channel, and of each scale level, over its plane; what has no plane as it is.

    ``e_c = 1/(HW) Σ_x F_c(x)``

    Parameters
    ----------
    features : tensor (N, …, H, W), or list of them
        Of one tap; with fewer than four axes there is no plane.

    Returns
    -------
    tensor (N, D)
    """
    parts = [each.mean((-2, -1)) if each.ndim > 3 else each for each in tensors(features)]
    return torch.cat([part.flatten(1) for part in parts], dim=1)
