"""Scale equivariance in a Lightning run (``pip install 'secli[lightning]'``)."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from secli.callbacks.measured_pictures import MeasuredPictures

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:  # its other package, of the same contents
    from pytorch_lightning import Callback, LightningModule, Trainer  # type: ignore[assignment, no-redef, unused-ignore]


class ScaleEquivarianceCallback(Callback):
    """Log the equivariance error after each validation epoch, as ``scale_equivariance/TAP@FACTOR``.

    The parameters are those of :class:`secli.callbacks.measured_pictures.MeasuredPictures`; ``every`` counts
    validation epochs.

    Examples
    --------
    >>> from secli.callbacks.lightning import ScaleEquivarianceCallback
    >>> import torch
    >>> callback = ScaleEquivarianceCallback(torch.rand(8, 1, 28, 28), factors=[0.8], taps=["encoder"])
    """

    def __init__(
        self, images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"], every: int = 1, **options: Any
    ) -> None:
        self._measured = MeasuredPictures(images, every, **options)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the network, but for the trial that Lightning makes before the first epoch."""
        if not trainer.sanity_checking and self._measured.due():
            values = self._measured.values(pl_module, trainer.global_rank, trainer.world_size)
            pl_module.log_dict(dict(values))
