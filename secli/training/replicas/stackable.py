"""Whether networks of one model give the same results at once as alone: tested in float64."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.config import TrainingSettings
from secli.errors import one_line
from secli.training.replicas.stack import Stack

IMAGES = 3
"""Of the trial, per network: few, and enough for the variance of a batch norm."""
TOLERANCE = 1e-6
"""Relative, of float64: rounding stays orders of magnitude below it, a wrong formula above."""


def not_at_once(training: TrainingSettings) -> str | None:
    """Return the setting that excludes networks at once; None without one."""
    if training.device == "mps":
        return "on mps it has not been tried"
    if training.precision == "16":
        return "the loss scale of --precision 16 belongs to one network"
    one_by_one = {
        "--accumulate": training.accumulate > 1,
        "--checkpoint-activations": training.checkpoint_activations,
        "--compile": training.compile,
    }
    flags = [flag for flag, given in one_by_one.items() if given]
    return f"{flags[0]} works on one network at a time" if flags else None


def cannot_stack(
    networks: Sequence[nn.Module], shape: tuple[int, int, int], device: torch.device
) -> str | None:
    """Compare logits, gradients and buffers of two networks at once with those of each alone.

    Returns the difference or failure, in one line; None when they give the same at once. The first two networks, of one
    model and on the CPU, are copied; ``shape`` is that of an image.
    """
    pair = [copy.deepcopy(network).to(device, torch.float64).train() for network in networks[:2]]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(len(pair), IMAGES, *shape, dtype=torch.float64, generator=generator).to(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            stack = Stack(pair).train()
            stack.streams.seed(range(len(pair)))
            together = _results(stack, stack.network, stack(images))
        except RuntimeError as error:
            return one_line(error).split(". ")[0].rstrip(".")
        for replica, network in enumerate(pair):
            torch.manual_seed(replica)
            alone = _results(network, network, network(images[replica]))
            for name, value in alone.items():
                of_stack = together[name]
                mine = of_stack[replica] if of_stack.dim() > value.dim() else of_stack
                if _differ(mine, value, alone["logits"]):
                    return f"at once it gives another {name}"
    return None


def _results(module: nn.Module, holder: nn.Module, logits: Float[Tensor, "..."]) -> dict[str, Tensor]:
    """Return logits, the gradients of a function of them, and the buffers after the pass."""
    module.zero_grad()
    weights = torch.linspace(-1, 1, logits.shape[-1], dtype=logits.dtype, device=logits.device)
    torch.autograd.backward((logits * weights).square().sum())
    parameters = dict(holder.named_parameters())
    gradients = {f"gradient of {name}": p.grad for name, p in parameters.items() if p.grad is not None}
    return {"logits": logits.detach(), **gradients, **dict(holder.named_buffers())}


def _differ(mine: Tensor, alone: Tensor, logits: Tensor) -> bool:
    """Whether two results differ beyond rounding; a gradient that is zero up to rounding is zero."""
    size = (
        max(float(alone.double().abs().max()), TOLERANCE * float(logits.abs().max())) if alone.numel() else 0
    )
    return bool((mine.double() - alone.double()).abs().gt(TOLERANCE * size).any())
