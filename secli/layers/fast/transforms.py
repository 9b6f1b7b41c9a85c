"""Whether one of torch's function transforms looks on: ``torch.vmap``, ``torch.func.grad``, ``jvp`` and the like.

They cannot look into an operation that is written as a forward and a backward pass of its own; a layer that has one
asks here, and takes torch's operators instead.
"""

from __future__ import annotations

import torch


def transformed() -> bool:
    """Whether a transform is under way in this thread; forward mode with dual tensors is none."""
    # what torch.autograd.Function asks before it refuses; there is no public question
    return bool(torch._C._are_functorch_transforms_active())
