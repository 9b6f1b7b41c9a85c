"""A true Lightning run logs what ``secli.measure`` reads."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import secli
from tests.equivariance.test_scale_metric import Net, digits

pytestmark = pytest.mark.filterwarnings("ignore")
pytest.importorskip("lightning")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning

    from secli.callbacks.lightning import ScaleEquivarianceCallback


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.scale = secli.ScaleEquivariance([0.8], taps=["net.encoder"])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.scale.update(self, batch[0])

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"own/{name}": value for name, value in self.scale.compute().items()})
        self.scale.reset()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_run_logs_the_measure_after_each_validation_epoch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = Classifier(), digits()
    labels = torch.arange(10) % 3
    loader: DataLoader[Any] = DataLoader(TensorDataset(images, labels), batch_size=4)
    callback = ScaleEquivarianceCallback(images, every=2, factors=[0.8, 0.5], taps=["net.encoder"])
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        default_root_dir=tmp_path,
    )
    trainer.fit(model, loader, loader)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    expected = secli.measure(model, images, factors=[0.8, 0.5], taps=["net.encoder"])["mean"].tolist()
    names = ["scale_equivariance/net.encoder@0.8", "scale_equivariance/net.encoder@0.5"]
    assert [logged[name] for name in names] == pytest.approx(expected, rel=1e-6)
    assert logged["own/net.encoder@0.8"] == pytest.approx(expected[0], rel=1e-6)
    assert callback._measured.evaluations == 2  # the sanity check is none
