"""Scale channels: one network on every level of a scale axis, whose answers are joined at the end.

Sources: Jansson, Lindeberg, "Scale-invariant scale-channel networks", JMIV 2022; Lindeberg, "Scale-covariant and
scale-invariant Gaussian derivative networks", JMIV 2022. With z_k the logits of level k::

    z = max_k z_k,      z = mean_k z_k,      z = log Σ_k exp(z_k)
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.layers.pyramid import Level, Mixed

Aggregate = Literal["max", "mean", "logsumexp"]


def aggregate(z: Float[Tensor, "n s k"], how: Aggregate) -> Float[Tensor, "n k"]:
    """Join the answers of S scale channels, class by class.

    Examples
    --------
    >>> z = torch.tensor([[[0.0, 2.0], [1.0, 0.0]]])
    >>> aggregate(z, "max").tolist(), aggregate(z, "mean").tolist()
    ([[1.0, 2.0]], [[0.5, 1.0]])
    """
    if how == "max":
        return z.max(dim=1).values
    return z.mean(dim=1) if how == "mean" else z.logsumexp(dim=1)


class EachLevel(nn.Module):
    """Apply one module, with the same weights, to every level of a pyramid or of a scale space, one after the other.

    Parameters
    ----------
    module : Module
        Maps a plane (N, C, H, W). A batch norm normalises every level by itself in training, and its running statistics
        take them in sequence: see :class:`secli.layers.PyramidBatchNorm` for one that does not tell levels apart.

    Examples
    --------
    >>> [tuple(y.shape) for y in EachLevel(nn.MaxPool2d(2))([torch.rand(1, 3, 8, 8), torch.rand(1, 3, 4, 4)])]
    [(1, 3, 4, 4), (1, 3, 2, 2)]
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: list[Level] | Tensor) -> list[Mixed] | Tensor:
        """Return the module's output on every level, as a list or a stack like the input."""
        if isinstance(x, Tensor):
            return torch.stack([self.module(level) for level in x.unbind(2)], dim=2)
        return [self.module(level) for level in x]


class ScaleChannelHead(nn.Module):
    """Classify every level by one head and join the answers: z = max, mean or log Σ exp over k of head(x_k).

    Parameters
    ----------
    head : Module
        Maps features (M, C, H, W) to logits (M, K). It sees all levels as one batch, M = N · S, so that a batch norm
        in it does not tell them apart.
    how : "max", "mean" or "logsumexp"
        How the answers are joined.

    Raises
    ------
    ValueError
        On use, when the levels of a list differ in shape.

    Notes
    -----
    Maps a scale space (N, C, S, H, W), or a list of S planes (N, C, H, W), to (N, K).

    Examples
    --------
    >>> head = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    >>> ScaleChannelHead(head, "max")(torch.rand(5, 3, 4, 2, 2)).shape
    torch.Size([5, 10])
    """

    def __init__(self, head: nn.Module, how: Aggregate = "max") -> None:
        super().__init__()
        self.head, self.how = head, how

    def forward(self, x: Float[Tensor, "n c s h w"] | list[Level]) -> Float[Tensor, "n k"]:
        """Return the logits."""
        if isinstance(x, Tensor):
            levels = x.movedim(2, 1)
        else:
            shapes = sorted({tuple(level.shape) for level in x})
            if len(shapes) > 1:
                raise ValueError(f"one head needs levels of one shape, not {shapes}")
            levels = torch.stack(x, dim=1)
        z = self.head(levels.flatten(0, 1))
        return aggregate(z.unflatten(0, levels.shape[:2]), self.how)

    def extra_repr(self) -> str:
        """Show how answers are joined."""
        return self.how
