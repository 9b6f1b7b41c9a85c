"""A foreign network as a model: its taps are read by hooks, normalisation precedes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secli.action.fields import Field
from secli.errors import InputError, SecliError, one_line
from secli.external.batch_independence import Mixing
from secli.external.cell_grid import Geometry
from secli.external.field_text import Layout
from secli.external.foreign_code import ForeignCode, error_line, source_line
from secli.external.hooks import LOGITS, capture, find_logits
from secli.external.missing_taps import at_least_float32
from secli.models.building import count_parameters
from secli.models.contract import Features
from secli.records.notes import Note

if TYPE_CHECKING:
    from typing_extensions import Self

Code = ForeignCode | Callable[[], AbstractContextManager[None]]


class ExternalModel(nn.Module):
    """A network from outside the registry, with taps by module name.

    It takes pixels in [0, 1]; normalisation is inside. The taps are in the order of the forward pass. ``features``
    returns every tap, and under ``"logits"``, last, the class scores where the network has such an output; one pass.

    Attributes
    ----------
    taps
        Fields by tap; ``"logits"`` is among them when taps were not chosen by name, or it was chosen.
    stages
        Always empty: a foreign network is not a chain of blocks, so no block can be run alone.
    logits_reason
        Why there are no class scores; None when there are.
    geometry
        The probed geometry by tap.
    probed
        The image shape of the probe, and the fingerprint of the weights (``secli.external.restoring``); None before.
    missing
        Taps that cannot be measured, with the reasons.
    remarks
        Remarks on the numbers of some taps.
    order
        All taps, the missing ones too, in the order of the forward pass.
    mixes
        How a picture's features depend on the other pictures of its batch; None when they do not.
    description
        Its entry in a record: target, weights, sha256 of their file, input shape, normalisation.
    code
        The context of every run of the network's code; for a module that its caller built, none.
    """

    def __init__(
        self,
        network: nn.Module,
        normalise: nn.Module,
        fields: Mapping[str, Field],
        layouts: Mapping[str, Layout],
        logits_reason: Note | None = None,
        code: Code = nullcontext,
    ) -> None:
        super().__init__()
        self.code = code
        self.network = network
        self.normalise = normalise
        self.logits_reason = logits_reason
        self.geometry: dict[str, Geometry] = {}
        self.probed: tuple[tuple[int, int, int], tuple[float, ...]] | None = None
        self.missing: dict[str, Note] = {}
        self.remarks: dict[str, Note] = {}
        self.order: tuple[str, ...] = tuple(fields)
        self.mixes: Mixing | None = None
        self.description: dict[str, Any] = {}
        self._fields = dict(fields)
        self._layouts = dict(layouts)

    @property
    def taps(self) -> dict[str, Field]:
        """The field of every tap, from input to output."""
        return dict(self._fields)

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """Empty: the modules between a foreign network's taps are not known."""
        return []

    @property
    def layouts(self) -> dict[str, Layout]:
        """The order of the axes at every tap inside the network."""
        return dict(self._layouts)

    def set_field(self, tap: str, field: Field) -> None:
        """Set how scale acts at a tap."""
        self._fields[tap] = field

    def drop_tap(self, tap: str, reason: Note) -> None:
        """Stop reading a tap; its null rows carry the reason."""
        self._fields.pop(tap, None)
        self._layouts.pop(tap, None)
        self.missing[tap] = reason
        if tap == LOGITS:
            self.logits_reason = reason

    @property
    def parameters_learned(self) -> int:
        """Number of learned parameters."""
        return count_parameters(self.network)

    def features(self, images: Float[Tensor, "n c h w"]) -> dict[str, Features]:
        """Return the features at every tap, channels first, and the logits where there are any, in one pass."""
        inner = [tap for tap in self._fields if tap != LOGITS]
        found, output = self.raw(images)
        features: dict[str, Features] = {}
        for tap in inner:
            if tap not in found:
                raise SecliError(f"tap '{tap}': this forward pass did not call it")
            features[tap] = self._layouts[tap].to_planes(at_least_float32(found[tap]))
        logits, _ = find_logits(output, len(images))
        if logits is not None and LOGITS not in self.missing:
            features[LOGITS] = at_least_float32(logits)
        return features

    def features_reached(
        self, images: Float[Tensor, "n c h w"], taps: Collection[str]
    ) -> dict[str, Features]:
        """Return the features at those of some taps that the network calls before it fails on the images, if so."""

        def run() -> None:
            try:
                self.network(self._pixels(images))
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception:  # foreign code, on images that it was not made for
                return

        inner = [tap for tap in self._fields if tap in taps and tap != LOGITS]
        with self.code():
            called, _ = capture(self.network, inner, run)
        found: dict[str, Features] = {}
        for tap in inner:
            if tap in called:
                with suppress(ValueError):  # tokens of another grid than was declared
                    found[tap] = self._layouts[tap].to_planes(at_least_float32(called[tap]))
        return found

    def raw(self, images: Float[Tensor, "n c h w"]) -> tuple[dict[str, Tensor], Any]:
        """Return the taps as the network's modules return them, and its output."""
        inner = [tap for tap in self._fields if tap != LOGITS]
        with self.code():
            return capture(self.network, inner, lambda: self.network(self._pixels(images)))

    def _pixels(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return the normalised images, never the caller's own tensor: a network may work on its input in place."""
        normalised: Tensor = self.normalise(images)
        return normalised.clone() if normalised is images else normalised

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Return the logits; SecliError when the network has no such output."""
        with self.code():
            output = self.network(self._pixels(images))
        logits, reason = find_logits(output, len(images))
        if logits is None:
            raise SecliError(f"no logits: {reason}")
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set the mode inside the network's code, which may override it."""
        with self.code():
            return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert the tensors inside the network's code, which may override it."""
        with self.code():
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def code_of(model: object) -> AbstractContextManager[None]:
    """Return the context for a run of single modules of a network; for our own networks, none."""
    return model.code() if isinstance(model, ExternalModel) else nullcontext()


class DeclaredModel(ExternalModel):
    """A foreign network that declares its own taps (``taps`` and ``features`` of secli's contract)."""

    def __init__(
        self,
        network: nn.Module,
        normalise: nn.Module,
        fields: Mapping[str, Field],
        reason: Note | None,
        code: Code = nullcontext,
    ) -> None:
        super().__init__(network, normalise, fields, {}, reason, code)

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        """Its own stages where it has any and no normalisation precedes them."""
        if not isinstance(self.normalise, nn.Identity):
            return []
        return list(getattr(self.network, "stages", []))

    def features(self, images: Float[Tensor, "n c h w"]) -> dict[str, Features]:
        """Return the network's own features at the chosen taps, and its logits where it returns them."""
        with self.code():
            own: dict[str, Features] = self.network.features(self._pixels(images))  # type: ignore[operator]
        return {
            tap: [at_least_float32(level) for level in value]
            if isinstance(value, list)
            else at_least_float32(value)
            for tap, value in own.items()
            if tap in self._fields or tap == LOGITS
        }


def declares_taps(network: nn.Module) -> bool:
    """Return whether a network has taps and features of secli's contract itself."""
    taps = getattr(network, "taps", None)
    if not isinstance(taps, Mapping) or not callable(getattr(network, "features", None)):
        return False
    return bool(taps) and all(isinstance(field, Field) for field in taps.values())


def tried(name: str, images: Tensor, run: Callable[[], Any]) -> Any:
    """Run foreign code; its failure becomes one line with file, line and image size."""
    try:
        return run()
    except SecliError:
        raise
    except SystemExit as error:
        raise InputError(f"{name}: {error_line(error)}") from None
    except Exception as error:
        size = "×".join(map(str, images.shape[1:]))
        raise InputError(
            f"{name}: fails on images of {size} ({source_line(error)}: {one_line(error)}); give another --input?"
        ) from None
