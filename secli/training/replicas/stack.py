"""Several networks of one architecture as one module, with stacked parameters and one forward pass."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from secli.layers.dropout import Dropout, Streams
from secli.training.checkpoint import Weights


class Stack(nn.Module):
    """R networks of one architecture, on the CPU and copied, run at once by ``torch.vmap``.

    ``network.parameters()`` are in the order of a single network's, so that an element-wise optimiser (Adam, SGD) on
    the stack equals R optimisers.

    Attributes
    ----------
    network
        The first one's structure; each of its parameters has a first axis of length R, and so has each buffer
        that a network changes or in which they differ. Used only through this module.
    streams
        The random numbers of each replica's dropout.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network = copy.deepcopy(networks[0])
        self.streams = Streams()
        for module in self.network.modules():
            if isinstance(module, Dropout):
                module.streams = self.streams
        parameters = [dict(network.named_parameters()) for network in networks]
        for name, parameter in self.network.named_parameters():
            parameter.data = torch.stack([own[name].detach() for own in parameters])
        kept = self.network.state_dict().keys()
        buffers = [dict(network.named_buffers()) for network in networks]
        self.own_buffers: list[str] = []
        for name, buffer in self.network.named_buffers():
            values = [own[name] for own in buffers]
            if name in kept or not all(torch.equal(buffer, value) for value in values):
                buffer.data = torch.stack(values)
                self.own_buffers.append(name)

    @property
    def drops(self) -> bool:
        """Whether anything is dropped in training."""
        return any(isinstance(module, Dropout) and module.p > 0 for module in self.network.modules())

    def forward(self, images: Float[Tensor, "r n *image"]) -> Float[Tensor, "r n classes"]:
        """Return each replica's logits of its own images; in evaluation without gradients."""
        buffers = dict(self.network.named_buffers())
        own = {name: buffers[name] for name in self.own_buffers}
        parameters = {
            name: parameter if self.training else parameter.detach()
            for name, parameter in self.network.named_parameters()
        }
        # no gradient is needed in evaluation, yet its mode stays on: where it is off, layers cache their expanded
        # kernels, and the tensors of a transform cannot be cached
        with torch.enable_grad():
            logits: Tensor = torch.vmap(self._one)(parameters, own, images)
        return logits

    def _one(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.network, {**parameters, **buffers}, (images,))
        return logits

    # ---- replica by replica

    def weights_of(self, replica: int) -> Weights:
        """Return a copy of one replica's parameters and persistent buffers, on the CPU."""
        return {
            name: value[replica].detach().to("cpu", copy=True).contiguous()
            for name, value in self.network.state_dict().items()
        }

    @torch.no_grad()
    def load(self, replica: int, weights: Weights) -> None:
        """Set one replica's parameters and persistent buffers to those of a single network."""
        for name, value in self.network.state_dict().items():
            value[replica].copy_(weights[name])

    @torch.no_grad()
    def keep(self, replicas: Sequence[int]) -> None:
        """Drop all replicas but these, in this order."""
        buffers = dict(self.network.named_buffers())
        for stacked in (*self.network.parameters(), *(buffers[name] for name in self.own_buffers)):
            stacked.data = stacked.data[list(replicas)]
            stacked.grad = None


@contextlib.contextmanager
def without_advice() -> Iterator[None]:
    """Silence torch's advice on the speed of its transforms, which the user cannot follow."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
        yield
