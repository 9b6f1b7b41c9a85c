"""Networks as users write them, and pictures for them: what the matrix network × option is run on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

SIDE = 32


class Custom(nn.Module):
    """A hand-written forward, operators by functions and in place among the modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.n = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.fc = nn.Linear(8, 3)

    def trunk(self, x: Tensor) -> Tensor:
        return functional.relu(self.b(functional.relu(self.n(self.a(x)), inplace=True)))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.trunk(x).mean((2, 3)))


class FunctionalHead(Custom):
    def forward(self, x: Tensor) -> Any:
        return functional.linear(functional.adaptive_avg_pool2d(self.trunk(x), 1).flatten(1), self.fc.weight)


class Twice(nn.Module):
    """Calls one convolution and one activation several times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.act, self.fc = nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.act(self.stem(x))
        for _ in range(2):
            x = self.act(self.block(x))
        return self.fc(x.mean((2, 3)))


class DictOutput(Custom):
    def forward(self, x: Tensor) -> Any:
        maps = self.trunk(x)
        return {"maps": maps, "logits": self.fc(maps.mean((2, 3)))}


class TupleOutput(Custom):
    def forward(self, x: Tensor) -> Any:
        maps = self.trunk(x)
        return self.fc(maps.mean((2, 3))), maps


@dataclasses.dataclass
class Scores:
    logits: Tensor
    maps: Tensor


class DataOutput(Custom):
    def forward(self, x: Tensor) -> Any:
        maps = self.trunk(x)
        return Scores(self.fc(maps.mean((2, 3))), maps)


class OwnHooks(Custom):
    """Keeps features by a hook of its own and goes on from these, as feature extractors do."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Tensor] = {}
        self.a.register_forward_hook(self.keep)

    def keep(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.kept["a"] = output

    def forward(self, x: Tensor) -> Any:
        self.a(x)
        return self.fc(functional.relu(self.b(self.kept["a"])).mean((2, 3)))


class Autocast(Custom):
    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x)


class InPlaceInput(Custom):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.sub_(0.5).div_(0.5))


class InferenceInside(Custom):
    """What no gradient passes."""

    def forward(self, x: Tensor) -> Any:
        with torch.inference_mode():
            return super().forward(x)


class LostBatch(Custom):
    """Scores of one picture lose their batch axis."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x).squeeze()


def sequential() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


class Entry(NamedTuple):
    """A network of the matrix: how it is made, and the side, taps and fields that it is measured with."""

    make: Callable[[], nn.Module] | str
    side: int = SIDE
    taps: Sequence[str] | None = None
    fields: Sequence[str] = ()


OWN = {
    "class": Entry(Custom),
    "sequential": Entry(sequential),
    "functional head": Entry(FunctionalHead),
    "module called twice": Entry(Twice),
    "dict": Entry(DictOutput),
    "tuple": Entry(TupleOutput),
    "dataclass": Entry(DataOutput),
    "own hooks": Entry(OwnHooks),
    "autocast": Entry(Autocast),
    "input in place": Entry(InPlaceInput),
    "inference inside": Entry(InferenceInside),
    "lost batch": Entry(LostBatch),
}
TORCHVISION = {
    f"torchvision:{name}": Entry(f"torchvision:{name}", side, taps)
    for name, side, taps in (
        ("resnet18", 64, ("conv1", "layer1", "logits")),
        ("squeezenet1_1", 64, ("features.0", "features.3", "logits")),
        ("convnext_tiny", 64, ("features.0", "features.1", "features.2")),
        ("vit_b_16", 224, ("conv_proj", "encoder.layers.encoder_layer_0", "logits")),
        ("lraspp_mobilenet_v3_large", 64, None),
        ("fcn_resnet50", 64, ("backbone.layer1", "classifier")),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 64, ("backbone.body.0", "backbone.body.3")),
    )
}
TORCHVISION["torchvision:vit_b_16"] = TORCHVISION["torchvision:vit_b_16"]._replace(
    fields=("encoder.layers.*=tokens:14x14+1",)
)
TIMM = {
    "timm:resnet18": Entry("timm:resnet18", 64, ("layer1", "layer2", "logits")),
    "timm:vit_tiny_patch16_224": Entry(
        "timm:vit_tiny_patch16_224", 96, ("patch_embed.proj", "blocks.1"), ("blocks.*=tokens:6x6+1",)
    ),
    "timm:swin_tiny_patch4_window7_224": Entry(
        "timm:swin_tiny_patch4_window7_224", 112, ("layers.0", "layers.1"), ("layers.*=channels-last",)
    ),
}
EVERY = {**OWN, **TORCHVISION, **TIMM}


def blobs(count: int, side: int, seed: int = 0, black: bool = True) -> UInt8[Tensor, "n 3 h w"]:
    """Smooth coloured spots: on black, or on grey to the edges as a photograph."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.linspace(-1, 1, side)
    pictures: Float[Tensor, "n 3 h w"] = torch.zeros(count, 3, side, side)
    for picture in pictures:
        for _ in range(6):
            y, x, width = (torch.rand(3, generator=generator) * torch.tensor([1.0, 1.0, 0.3])).tolist()
            spot = torch.exp(
                -((axis[:, None] - y + 0.5) ** 2 + (axis - x + 0.5) ** 2) / 2 / (0.05 + width) ** 2
            )
            picture += spot * torch.rand(3, 1, 1, generator=generator)
    if black:
        distance = (axis[:, None] ** 2 + axis**2).sqrt()
        pictures *= ((0.9 - distance) * 5).clamp(0, 1)
    return (pictures.add(0.0 if black else 0.4).div(2.5).clamp(0, 1) * 255).to(torch.uint8)
