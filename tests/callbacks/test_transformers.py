"""A true run of Hugging Face's Trainer reports what ``secli.measure`` reads."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secli
from tests.equivariance.test_scale_metric import digits

pytestmark = pytest.mark.filterwarnings("ignore")
pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

    from secli.callbacks.transformers import ScaleEquivarianceTrainerCallback


class Centred(nn.Module):
    """What an image processor does after it has made pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.5


class Pairs(torch.utils.data.Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": Centred()(digits()[index]), "labels": index % 3}


def test_a_run_adds_the_measure_to_its_evaluations(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ResNetConfig(
        num_channels=1,
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
    )
    config.num_labels = 3
    model = ResNetForImageClassification(config)
    taps = ["resnet.embedder.embedder"]
    callback = ScaleEquivarianceTrainerCallback(digits(), factors=[0.8, 0.5], taps=taps, normalise=Centred())
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=5,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=Pairs(), eval_dataset=Pairs(), callbacks=[callback])
    trainer.train()
    metrics = trainer.evaluate()
    expected = secli.measure(model, digits(), factors=[0.8, 0.5], taps=taps, normalise=Centred())[
        "mean"
    ].tolist()
    names = [f"scale_equivariance/{taps[0]}@{factor}" for factor in ("0.8", "0.5")]
    assert [metrics[name] for name in names] == pytest.approx(expected, rel=1e-6)
    (logged,) = [entry for entry in trainer.state.log_history if names[0] in entry]
    assert logged[names[1]] == metrics[names[1]]
