"""Scale equivariance in a run of Hugging Face's ``Trainer`` (``pip install 'secli[transformers]'``)."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from secli.callbacks.measured_pictures import MeasuredPictures


class ScaleEquivarianceTrainerCallback(TrainerCallback):
    """Add the equivariance error to each evaluation's metrics, as ``scale_equivariance/TAP@FACTOR``.

    ``Trainer.evaluate`` returns them and ``state.log_history`` (``trainer_state.json``) keeps them; what reports to
    trackers has been told of the evaluation before.

    The parameters are those of :class:`secli.callbacks.measured_pictures.MeasuredPictures`; ``every`` counts
    evaluations. The pictures are pixels in [0, 1]: what an image processor does after that (mean, deviation) goes into
    ``normalise``.
    """

    def __init__(
        self, images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"], every: int = 1, **options: Any
    ) -> None:
        self._measured = MeasuredPictures(images, every, **options)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Measure the network that was evaluated."""
        if model is None or not self._measured.due():
            return
        values = self._measured.values(model, args.process_index, args.world_size)
        if metrics is not None:
            metrics.update(values)
        state.log_history.append({"epoch": state.epoch, "step": state.global_step, **values})
