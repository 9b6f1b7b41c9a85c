"""Whether one of torch's function transforms is active: ``torch.vmap``, ``torch.func.grad``, ``jvp`` and the like.

They cannot transform an operation with a forward and a backward pass of its own; its layer then uses torch's operators.
"""

from __future__ import annotations

import torch


def transformed() -> bool:
    """Whether a transform is active in this thread; forward mode with dual tensors is none."""
    # the check of torch.autograd.Function; there is no public one
    return bool(torch._C._are_functorch_transforms_active())
