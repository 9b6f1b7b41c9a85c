"""A steerable convolution and the pooling over its scales, whose levels are never joined."""

from __future__ import annotations

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from secli.layers.fast.running_max import largest, runs_here
from secli.layers.pooling import ScalePool
from secli.layers.ses import SESConv, SESLift


class ScaleProjection(nn.Sequential):
    """Respond at every scale and keep the largest response: y = max_k y_k, or the mean.

    The maximum is taken level by level as they are computed, so that no scale space is built.

    Parameters
    ----------
    ses : SESLift or SESConv
        The convolution.
    pool : ScalePool
        The pooling; both keep their names in a checkpoint.

    Examples
    --------
    >>> import torch
    >>> from secli.layers import ScalePool, SESLift, basis_b
    >>> lift = SESLift(1, 8, basis_b(13, (1.5, 2.6, 4.5), 7), padding=6)
    >>> ScaleProjection(lift, ScalePool("max"))(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 8, 28, 28])
    """

    def __init__(self, ses: SESLift | SESConv, pool: ScalePool) -> None:
        super().__init__(OrderedDict(ses=ses, pool=pool))

    def forward(self, x: Float[Tensor, "n c *s h w"]) -> Float[Tensor, "n o y x"]:
        """Return the projected responses."""
        ses, pool = self
        joined = pool.how != "max" or _is_watched(ses) or _is_watched(pool)
        if isinstance(ses, (SESLift, SESConv)) and not joined and runs_here(x):
            return largest(ses.levels(x))
        projected: Tensor = pool(ses(x))
        return projected


def _is_watched(module: nn.Module) -> bool:
    """Whether the module has hooks, which run only when it is called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
