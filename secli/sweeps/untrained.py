"""How far untrained networks are from equivariant: what an architecture promises before it has learned anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from secli.action.fields import Invariant, Plane
from secli.config import MeasureSettings
from secli.equivariance.curves import measure_curves
from secli.equivariance.evaluation_mode import measuring
from secli.layers.deform_dss import DeformableDSSConv
from secli.layers.deformable import DeformConv
from secli.models.building import build
from secli.models.contract import Stage, StagedModel

FACTORS = (1 / 1.26, 3**-0.5, 0.5)
"""Near 0.8 (a resizing of vector fields), a step of the narrow stacks, and a step of the wide ones."""
SHIFT = 1.0
"""Root mean square by which random offsets move the taps of a convolution, in cells of its plane."""


@dataclass(frozen=True)
class Untrained:
    """One line of the table: a network of the registry, freshly drawn.

    Attributes
    ----------
    model
        Registry name.
    options
        Options that differ from its own.
    moved
        Whether its offset branches, which start at zero, are drawn at random.
    as_plane
        Whether its scale axis is read as channels of a plane.
    """

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    moved: bool = False
    as_plane: bool = False

    @property
    def said(self) -> str:
        """What differs from the registry's network, in words; empty for that network itself."""
        said = [
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in self.options.items()
        ]
        said += ["random offsets"] * self.moved + ["read as a plane"] * self.as_plane
        return ", ".join(said)


def _variants() -> tuple[Untrained, ...]:
    exact: dict[str, Any] = {"base": 1.5, "dilation": "exact"}
    scaled = [{"offsets": "absolute"}, {"offsets": "scaled"}]
    return (
        *(Untrained("dss_v1", {"base": 1.5, "dilation": how}) for how in ("floor", "round", "exact")),
        *(Untrained("deform_dss", each, moved=True) for each in scaled),
        *(Untrained("deform_dss", exact | each, moved=True) for each in scaled),
        Untrained("dcn", moved=True),
        Untrained("dcn_v2", moved=True),
        *(Untrained(f"mnist_sevf_vector_{size}", {"turn": "along"}) for size in (28, 56)),
        *(Untrained(f"mnist_xu_{size}", as_plane=True) for size in (28, 56)),
    )


VARIANTS = _variants()
"""What is expected of options, to be held against figures."""


@dataclass(frozen=True)
class UntrainedRow:
    """Δ of one tap at one factor, over seeds.

    Attributes
    ----------
    model, variant, tap, field, factor
        Where; the variant is empty for the registry's own network.
    mean, low, high
        The mean over seeds of the means over images, the smallest and the largest of them; None with a reason.
    compared
        Share of the tap's cells that are compared, the mean over seeds.
    seeds, images
        How many of each.
    reason
        Why there is no value.
    """

    model: str
    variant: str
    tap: str
    field: str
    factor: float
    mean: float | None
    low: float | None
    high: float | None
    compared: float | None
    seeds: int
    images: int
    reason: str | None


def measure_untrained(
    wanted: Sequence[Untrained],
    images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    factors: Sequence[float] = FACTORS,
    border: float | None = None,
    on_black: bool | None = None,
    device: str = "cpu",
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[UntrainedRow]:
    """Measure Δ of freshly drawn networks at every tap that has a plane.

    Parameters
    ----------
    wanted : sequence of Untrained
        Which networks.
    images : tensor (N, C, H, W)
        Pixels at their own scale; all are taken.
    seeds : sequence of int
        Of the weights.
    factors : sequence of float
        Scale factors s.
    border : float, optional
        Pixels left out along the edges; None: 0 for pictures on black, else each tap's receptive-field radius.
    on_black : bool, optional
        Whether the pictures lie on black; None looks at them.
    device : str
        Where to compute.
    on_progress : callable, optional
        Called with (name, networks done, networks in all).
    """
    rows: list[UntrainedRow] = []
    for done, each in enumerate(wanted):
        if on_progress:
            on_progress(f"{each.model} {each.said}".strip(), done, len(wanted))
        settings = MeasureSettings(
            factors=tuple(factors), border=border, images=len(images), batch=min(len(images), 25)
        )
        rows += _over_seeds(each, images, seeds, settings, on_black, device)
    return rows


def _over_seeds(
    each: Untrained,
    images: Tensor,
    seeds: Sequence[int],
    settings: MeasureSettings,
    on_black: bool | None,
    device: str,
) -> list[UntrainedRow]:
    found = []
    for seed in seeds:
        model = build(each.model, each.options, seed).eval()
        if each.moved:
            draw_offsets(model, images, seed)
        if each.as_plane:
            model = read_as_plane(model)
        taps = tuple(tap for tap, kind in model.taps.items() if not isinstance(kind, Invariant))
        with_taps = settings.model_copy(update={"taps": taps})
        found.append(measure_curves(model, images, with_taps, on_black=on_black, device=device).rows)
    rows = []
    for group in zip(*found, strict=True):
        first, means = group[0], [row.mean for row in group if row.mean is not None]
        shares = [row.compared for row in group if row.compared is not None]
        whole = len(means) == len(group)
        rows.append(
            UntrainedRow(
                model=each.model,
                variant=each.said,
                tap=first.tap,
                field=first.field,
                factor=first.factor,
                mean=sum(means) / len(means) if whole else None,
                low=min(means) if whole else None,
                high=max(means) if whole else None,
                compared=sum(shares) / len(shares) if shares else None,
                seeds=len(group),
                images=len(images),
                reason=next((row.reason for row in group if row.reason is not None), None),
            )
        )
    return rows


def draw_offsets(model: StagedModel, images: Tensor, seed: int) -> None:
    """Draw the weights of every offset branch normally, scaled so that taps move by one cell on these pictures.

    One cell: the root mean square of all offsets of a layer, over taps, places and levels. Biases stay zero, as do
    the logits of masks.

    Parameters
    ----------
    model : StagedModel
        A network with ``DeformConv`` or ``DeformableDSSConv``; others are left as they are.
    images : tensor (N, C, H, W)
        Pictures, uint8 or float in [0, 1].
    seed : int
        Of the weights.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, DeformConv | DeformableDSSConv)
        x, weight = args[0], layer.offset.weight
        assert isinstance(weight, Tensor)
        shifts = layer.shifts if isinstance(layer, DeformConv) else len(weight)
        noise = torch.randn(weight[:shifts].shape, generator=generator).to(weight)
        weight[:shifts] = noise
        if isinstance(layer, DeformConv):
            offsets = layer.offset(x)[:, :shifts]
        else:
            offsets = layer.offset(x[:, :, : layer.out_levels])
            if layer.offsets == "scaled":
                steps = torch.tensor(layer.dilations[: layer.out_levels]).to(offsets)
                offsets = offsets * steps.view(-1, 1, 1)
        weight[:shifts] *= SHIFT / offsets.square().mean().sqrt()

    handles = [
        module.register_forward_pre_hook(draw)
        for module in model.modules()
        if isinstance(module, DeformConv | DeformableDSSConv)
    ]
    try:
        with measuring(model, "cpu") as dtype:
            pictures = images.to(dtype)
            model.features(pictures if images.is_floating_point() else pictures / 255)
    finally:
        for handle in handles:
            handle.remove()


def read_as_plane(model: StagedModel) -> StagedModel:
    """Return the same network with every tap that lies on a grid declared as a plane on that grid."""
    stages = []
    for (tap, module), kind in zip(model.stages, model.taps.values(), strict=True):
        stride, origin = getattr(kind, "stride", None), getattr(kind, "origin", None)
        stages.append(Stage(tap, module, kind if stride is None else Plane(stride, origin)))
    return StagedModel(stages).eval()
