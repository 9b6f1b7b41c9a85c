"""Dropout that several replicas of a network, run at once, can each draw as they would alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Streams:
    """The random numbers of several replicas, each drawn from a seed of its own.

    The default generator of the features' device, the CPU or a CUDA device, is set to each replica's state in turn
    and left at the last one's, so that a replica draws the very numbers of ``torch.nn.Dropout`` after ``manual_seed``.
    """

    def __init__(self) -> None:
        self._seeds: Sequence[int] = ()
        self._states: dict[int, Tensor] = {}

    def seed(self, seeds: Sequence[int]) -> None:
        """Begin the stream of each replica anew."""
        self._seeds, self._states = tuple(seeds), {}

    def masks(self, like: Float[Tensor, "r *shape"], p: float) -> Float[Tensor, "r *shape"]:
        """Draw the next mask of every replica: 0 with probability p, otherwise 1/(1 − p)."""
        if like.shape[0] != len(self._seeds):
            raise ValueError(f"{like.shape[0]} replicas, but {len(self._seeds)} seeds")
        generator = _default_generator(like.device)
        kept = torch.ones(like.shape[1:], dtype=like.dtype, device=like.device)
        masks = []
        for replica, seed in enumerate(self._seeds):
            if replica in self._states:
                generator.set_state(self._states[replica])
            else:
                generator.manual_seed(seed)
            masks.append(functional.dropout(kept, p))
            self._states[replica] = generator.get_state()
        return torch.stack(masks)


def _default_generator(device: torch.device) -> torch.Generator:
    if device.type != "cuda":
        return torch.default_generator
    generator: torch.Generator = torch.cuda.default_generators[device.index]
    return generator


class Dropout(nn.Dropout):
    """Zero each value with probability p and divide the others by 1 − p: ``torch.nn.Dropout``, with streams.

    Parameters
    ----------
    p : float
        Probability that a value is dropped, 0 to 1.
    inplace : bool
        Whether the input is overwritten (not with streams).

    Attributes
    ----------
    streams : Streams or None
        Source of the masks when ``torch.vmap`` runs the module for several replicas; None: one network, which draws
        from torch's default generator.

    Raises
    ------
    ValueError
        When p is not within 0 to 1.
    RuntimeError
        On use with streams outside ``torch.vmap``.

    Examples
    --------
    >>> import torch
    >>> from secli.layers.dropout import Dropout
    >>> Dropout(0.5)(torch.rand(2, 8)).shape
    torch.Size([2, 8])
    """

    streams: Streams | None = None

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the values that are kept, enlarged; in evaluation all, unchanged."""
        if self.streams is None or not self.training or self.p == 0:
            return super().forward(x)
        dropped: Tensor = _DroppedApart.apply(x, self.p, self.streams)
        return dropped


class _DroppedApart(torch.autograd.Function):
    """Dropout that only ``torch.vmap`` can run: its rule sees all replicas and draws outside the transform."""

    @staticmethod
    def forward(x: Tensor, p: float, streams: Streams) -> Tensor:
        raise RuntimeError("dropout with streams needs torch.vmap over the replicas")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep nothing: the rule below is made of operations that torch differentiates."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, p: float, streams: Streams
    ) -> tuple[Tensor, int]:
        batched = in_dims[0]
        assert batched is not None  # nothing else here is a tensor
        replicas = x.movedim(batched, 0)
        return replicas * streams.masks(replicas, p), 0
