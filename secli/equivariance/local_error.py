"""One part of a network measured alone: its input is features that are rescaled exactly, its output is compared.

With B the part, F the features before it and F₀ those of the empty picture, the cumulative error's own formula
for the part alone compares::

    L_out(B(F) − B(F₀))      with      B(L_in(F − F₀) + F₀) − B(F₀)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from secli.action.fields import Acted, Canvas, Field, ScaleSpace, both, small_levels, without_levels
from secli.config import MeasureSettings
from secli.equivariance.cell_error import TapError
from secli.equivariance.features import minus, tensors
from secli.models.contract import Features
from secli.records.notes import Note
from secli.records.schema import LocalRow

Masks = list[Bool[Tensor, "..."] | None]

# Unknown features are perturbed by this many times the largest known one, so that no maximum and no ReLU hides them.
_SHAKE = 8.0
# Which levels are reached does not depend on the picture: a few suffice.
_SHAKEN_IMAGES = 2


class Fed(NamedTuple):
    """The input of a part instead of the features of the rescaled picture.

    Attributes
    ----------
    features
        L_in(F − F₀) + F₀, with unknown cells filled in.
    unknown
        For each tensor, the filled cells, broadcast to it; None without any.
    """

    features: Features
    unknown: Masks


class Beyond(Field):
    """The field of a part's output, without the cells that unknown features reach."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.reached: Masks = []

    def act(self, features: Features, factor: float, canvas: Canvas, steps: int = 1) -> Acted:
        """Apply L_s of the field, and mask the reached cells, too."""
        return self._unreached(self.field.act(features, factor, canvas, steps))

    def compared(
        self, acted: Acted, raw: Features, answer: Features | None, factor: float, canvas: Canvas
    ) -> Acted:
        """Mask the cells that the field masks, and the reached ones, too."""
        return self._unreached(self.field.compared(acted, raw, answer, factor, canvas))

    def _unreached(self, acted: Acted) -> Acted:
        if not self.reached:
            return acted
        pairs = zip(acted.masks, self.reached, strict=True)
        return acted._replace(
            masks=[both(known, None if reached is None else ~reached) for known, reached in pairs]
        )

    def smallest_plane(self, features: Features) -> int | None:
        """Return the smaller side of the feature plane in cells."""
        return self.field.smallest_plane(features)

    def reads_as(self) -> str:
        """Describe the field in a few words."""
        return self.field.reads_as()


class NetworkPart:
    """The error that one part of a network adds alone, at several factors.

    Parameters
    ----------
    name : str
        The stage's tap, or the layer's name.
    kind : str
        As in the record.
    run : callable
        B, from input to output features.
    before, after : Field or None
        How L_s acts there; None where it was not declared.
    reason : Note, optional
        Why this part cannot be measured at all.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        run: Callable[[Features], Features],
        before: Field | None,
        after: Field | None,
        settings: MeasureSettings,
        factors: Sequence[float],
        reason: Note | None = None,
    ) -> None:
        self.name, self.kind, self.run = name, kind, run
        self.before, self.after, self.settings = before, after, settings
        self.reason = reason
        self.cells: dict[float, TapError] = {}
        self._beyond: dict[float, Beyond] = {}
        self._images = 0
        self._factors = tuple(factors)
        if after is not None:
            self._beyond = {factor: Beyond(after) for factor in factors}
            self.cells = {
                factor: TapError(
                    self._beyond[factor], factor, settings.metric, (), settings.smallest_plane, floor=False
                )
                for factor in factors
            }

    def add(
        self, features: Features, empty: Features, output: Features, empty_output: Features, canvas: Canvas
    ) -> None:
        """Add one batch at every factor: F, F₀ with a batch axis of one, B(F) and B(F₀).

        The canvas has the border of the part's output.
        """
        self._images += len(tensors(features)[0])
        if self.reason is not None or self.before is None or self.after is None:
            return
        background = self.settings.background == "empty"
        base = minus(output, empty_output) if background else output
        for factor, cell in self.cells.items():
            if cell.reason is None:
                cell.reason = too_small(self.before, features, factor, self.settings.smallest_plane)
            if cell.reason is not None:
                continue
            # the input is whole: a border is left out of the output
            fed = feed(
                self.before,
                features,
                empty if background else None,
                factor,
                canvas._replace(border=0.0),
                self.settings.smallest_plane,
            )
            if fed is None:
                cell.reason = Note.of("no-level-before")
                continue
            if self._reaches_all(factor, fed):
                cell.reason = Note.of("unknown-reaches-all")
                continue
            actual = self.run(fed.features)
            cell.add(output, actual, base, minus(actual, empty_output) if background else actual, canvas)

    def _reaches_all(self, factor: float, fed: Fed) -> bool:
        """Mask the output cells that unknown features reach; return whether whole unknown levels reach everything."""
        if all(unknown is None for unknown in fed.unknown):
            return False
        beyond = self._beyond[factor]
        whole = all(unknown is None or unknown.shape[0] == 1 for unknown in fed.unknown)
        # whole levels reach the same cells in all images: they are found once
        if not whole or not beyond.reached:
            assert self.after is not None
            beyond.reached = reach(self.run, fed, self.after, _SHAKEN_IMAGES if whole else None)
        return whole and all(gone is not None and bool(gone.all()) for gone in beyond.reached)

    def rows(self) -> list[LocalRow]:
        """Return the rows of the record, one per factor: a mean with its interval, or null with the reason."""
        if self.reason is not None or not self.cells:
            reason = self.reason or Note.of("output-undeclared")
            nothing: dict[str, Any] = {"mean": None, "low": None, "high": None, "n": 0, "reason": reason}
            return [
                LocalRow(part=self.name, kind=self.kind, factor=factor, **nothing) for factor in self._factors
            ]
        rows = {factor: cell.row(self.name, self._images) for factor, cell in self.cells.items()}
        shared = {"mean", "low", "high", "n", "compared", "reason"}
        return [
            LocalRow(
                part=self.name, kind=self.kind, factor=factor, **{name: getattr(row, name) for name in shared}
            )
            for factor, row in rows.items()
        ]


def feed(
    field: Field,
    features: Features,
    empty: Features | None,
    factor: float,
    canvas: Canvas,
    smallest_plane: float = 0.0,
) -> Fed | None:
    """Return L_s(F − F₀) + F₀ (without F₀, L_s F), unknown scale levels repeated from the nearest known one.

    s = 1 returns F to the bit. Levels of a pyramid on which the picture covers fewer than ``smallest_plane`` cells
    count as unknown. None when no level is known.
    """
    acted = field.act(features if empty is None else minus(features, empty), factor, canvas)
    acted = field.compared(acted, features, None, factor, canvas)
    acted = without_levels(acted, small_levels(acted, factor, smallest_plane))
    if acted.levels_used == 0:
        return None
    unknown: Masks = [None if mask is None or bool(mask.all()) else ~mask for mask in acted.masks]
    if factor == 1:
        return Fed(features, unknown)
    moved = [_filled(tensor, mask) for tensor, mask in zip(acted.features, unknown, strict=True)]
    if empty is not None:
        moved = [tensor + zero for tensor, zero in zip(moved, tensors(empty), strict=True)]
    return Fed(moved if isinstance(features, list) else moved[0], unknown)


def _filled(moved: Tensor, unknown: Bool[Tensor, "..."] | None) -> Tensor:
    """Repeat the nearest known level where whole levels of one tensor are unknown."""
    if unknown is None or unknown.ndim < 3 or unknown.numel() != unknown.shape[2] or unknown.numel() == 1:
        return moved
    missing = unknown.flatten().tolist()
    known = [k for k, gone in enumerate(missing) if not gone]
    nearest = [min(known, key=lambda j: abs(j - k)) for k in range(len(missing))]
    return moved[:, :, nearest]


def reach(run: Callable[[Features], Features], fed: Fed, after: Field, images: int | None = None) -> Masks:
    """Return the output cells that unknown features reach: those that change when these are perturbed, up and down.

    Per output tensor of B, broadcast to it; None for none. With ``images`` only so many are tried, and a change in any
    channel, cell or image counts for all of them, but levels of a scale space ``after`` are distinguished.
    """
    first = [tensor[:images] for tensor in tensors(fed.features)]
    as_list = isinstance(fed.features, list)
    generator = torch.Generator().manual_seed(0)
    shaken: list[list[Tensor]] = [[], []]
    for tensor, unknown in zip(first, fed.unknown, strict=True):
        noise = torch.randn(tensor.shape, generator=generator).to(tensor) * (_SHAKE * peak(tensor))
        shift = noise if unknown is not None else torch.zeros_like(tensor)
        if unknown is not None:
            shift = torch.where(unknown, noise, noise.new_zeros(()))
        shaken[0].append(tensor + shift)
        shaken[1].append(tensor - shift)
    # each run gets tensors of its own: a layer may work in place
    still = tensors(run([tensor.clone() for tensor in first] if as_list else first[0].clone()))
    moved: list[Bool[Tensor, "..."]] = [torch.zeros_like(tensor, dtype=torch.bool) for tensor in still]
    for attempt in shaken:
        output = tensors(run(attempt if as_list else attempt[0]))
        for k, (tensor, other) in enumerate(zip(still, output, strict=True)):
            rounding = 8 * torch.finfo(tensor.dtype).eps * peak(other)
            # written so that values that are not finite count as moved
            moved[k] = moved[k] | ~((other - tensor).abs() <= rounding)
    if images is not None:
        moved = [_everywhere(cells, isinstance(after, ScaleSpace)) for cells in moved]
    return [cells if bool(cells.any()) else None for cells in moved]


def _everywhere(moved: Bool[Tensor, "..."], levels: bool) -> Bool[Tensor, "..."]:
    """Spread changes over images, channels and cells, not over the levels of a scale space."""
    axes = [axis for axis in range(moved.ndim) if not (levels and axis == 2)]
    return moved.any(dim=axes, keepdim=True)


def too_small(field: Field, features: Features, factor: float, smallest_plane: float) -> Note | None:
    """Return why features before a part have too few cells to be rescaled; None when they have enough."""
    plane = field.smallest_plane(features)
    if plane is None or plane * min(1.0, factor) >= smallest_plane - 1e-9:
        return None
    return Note.of("too-few-cells-before", cells=plane * min(1.0, factor), least=smallest_plane)


def peak(tensor: Tensor) -> float:
    """Return the largest absolute value; 1 for zeros."""
    return float(tensor.abs().max()) or 1.0
