"""The schedule is that of torch's MultiStepLR, and the optimisers are what the settings say."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import MultiStepLR

from secli.config import TrainingSettings
from secli.training.optim import learning_rate, make_optimizer, set_learning_rate


@pytest.mark.parametrize("milestones", [(20, 40), (1,), (), (1, 2, 3)])
def test_the_rate_falls_where_that_of_torch_falls(milestones: tuple[int, ...]) -> None:
    training = TrainingSettings(lr=0.3, milestones=milestones, gamma=0.1)
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], training)
    schedule = MultiStepLR(optimizer, list(milestones), gamma=0.1)
    for epoch in range(1, 61):
        assert learning_rate(training, epoch) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_the_optimiser_is_the_one_asked_for() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    adam = make_optimizer([weight], TrainingSettings(optimizer="adam", lr=0.02, weight_decay=0.1))
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.defaults["lr"], adam.defaults["weight_decay"]) == (0.02, 0.1)
    sgd = make_optimizer([weight], TrainingSettings(optimizer="sgd", momentum=0.8, nesterov=True))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, True)
    set_learning_rate(sgd, 0.5)
    assert [group["lr"] for group in sgd.param_groups] == [0.5]


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_one_kernel_updates_all_parameters_on_cuda_only(kind: str) -> None:
    """Elsewhere the sums stay those of the runs that were made before."""
    for device, fused in (("cuda", True), ("cpu", None)):
        training = TrainingSettings.model_validate({"optimizer": kind, "device": device})
        optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], training)
        assert optimizer.defaults["fused"] is fused
