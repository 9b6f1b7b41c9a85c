"""The modules before the first convolution: normalisation, enlargement."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from secli.layers.fast.chain import Chain
from secli.models.options import PerChannel


class Normalise(nn.Module):
    """Map pixels in [0, 1] to (x − mean)/std, with one value each, or one per channel.

    Raises
    ------
    ValueError
        When there are neither one nor ``channels`` values, or a deviation is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: PerChannel, std: PerChannel) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            values = value if isinstance(value, tuple) else (value,) * channels
            if len(values) != channels:
                raise ValueError(
                    f"{name} has {len(values)} values for {channels} channels; give one per channel"
                )
            if name == "std" and min(values) <= 0:
                raise ValueError("std must be positive")
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return the normalised images."""
        return (images - self.mean) / self.std


class Enlarge(nn.Module):
    """Enlarge images by an integer factor, each pixel becoming equal cells about its own centre."""

    def __init__(self, factor: int, how: str) -> None:
        super().__init__()
        self.factor, self.how = factor, how

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c y x"]:
        """Return the enlarged images."""
        return functional.interpolate(
            images,
            scale_factor=self.factor,
            mode=self.how,
            align_corners=False if self.how == "bilinear" else None,
        )

    def extra_repr(self) -> str:
        """Show factor and mode."""
        return f"{self.factor}, {self.how}"


def entrance(
    channels: int, mean: PerChannel, std: PerChannel, upsampling: int = 1, upsample: str = "nearest"
) -> dict[str, nn.Module]:
    """Return the named modules before the first convolution or lift."""
    modules: dict[str, nn.Module] = {"normalise": Normalise(channels, mean, std)}
    if upsampling > 1:
        modules["enlarge"] = Enlarge(upsampling, upsample)
    return modules


def chain(**modules: nn.Module) -> Chain:
    """Return the modules in sequence, each under its name."""
    return Chain(**modules)
