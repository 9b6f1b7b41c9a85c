"""A training step never waits for its device: it reads no value back and copies none over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from secli.catalogue import MODELS
from secli.config import ModelSettings, TrainingSettings
from secli.datasets.store import ScaleDataset
from secli.models.building import build
from secli.records.schema import ModelInfo
from secli.training.augment import augmentation_of
from secli.training.determinism import Draw, generator_of
from secli.training.devices import make_fabric
from secli.training.fit import Fit, Job
from secli.training.optim import make_optimizer
from secli.training.plan import default_training, resolve

Quick = Callable[..., TrainingSettings]

WAITING = {
    # their result, or the size of it, is needed on the host
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    # values of the host become a tensor: on an accelerator a copy that is waited for
    "lift_fresh",
}


class Waited(AssertionError):
    """An operation that waits for the device."""


class NothingWaits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raise at every operation that would wait for an accelerator (copies to the host cannot be told on a CPU)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITING or by_mask:
            raise Waited(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def fit(
    tiny: ScaleDataset, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Fit]:
    """A loop with the optimiser that CUDA has: one kernel, its count of steps on the device."""

    def make(name: str = "cnn", **changes: Any) -> Fit:
        settings = quick(**changes)
        on_cuda = settings.model_copy(update={"device": "cuda"})
        monkeypatch.setattr(
            "secli.training.fit.make_optimizer", lambda parameters, _: make_optimizer(parameters, on_cuda)
        )
        options = resolve(ModelSettings(name=name), settings).options
        job = Job(tmp_path, ModelInfo(name=name, options=options, parameters=0), tiny, settings, resume=False)
        made = Fit(make_fabric(settings), job, lambda event: None, lambda: False)
        made.network.train()
        return made

    return make


def take_steps(fit: Fit, steps: int = 2) -> None:
    """Take steps of an epoch whose order and draws are there; the first one may set the optimiser up."""
    fit._draw()
    fit._take_step()
    with NothingWaits():
        for _ in range(steps):
            fit._take_step()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "changes", [{}, {"augment": "scale"}, {"accumulate": 3}, {"precision": "bf16"}], ids=str
)
def test_a_step_does_not_wait(fit: Callable[..., Fit], changes: dict[str, Any], optimizer: str) -> None:
    take_steps(fit(**changes, optimizer=optimizer, weight_decay=0.01))


@pytest.mark.parametrize("name", ["mnist_ses_vector_28", "mnist_ses_scalar_28", "mnist_dss_vector_28"])
def test_a_step_of_a_network_with_a_scale_axis_does_not_wait(fit: Callable[..., Fit], name: str) -> None:
    take_steps(fit(name, batch=8, augment="scale"), steps=1)


def test_the_augmentation_of_colour_pictures_does_not_wait() -> None:
    for pad in ("black", "mean"):
        settings = default_training("wrn_16_8").model_copy(update={"augment": "stl10", "pad": pad})
        augmentation = augmentation_of(settings)
        assert augmentation is not None
        draws = augmentation.draw(4, (48, 48), generator_of(Draw.AUGMENT, 0, 1))
        images = torch.rand(4, 3, 48, 48)
        with NothingWaits():
            augmentation.apply(images, draws)


@contextmanager
def spoilt(fit: Fit, what: Callable[[Tensor], object]) -> Iterator[None]:
    """Let the first stage do something with what it returns."""

    def after(module: nn.Module, args: Any, output: Tensor) -> None:
        what(output)

    hook = fit.network.stages[0][1].register_forward_hook(after)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize(
    "what",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.tensor([1.0, 2.0]),
    ],
    ids=["item", "bool", "nonzero", "mask", "constant"],
)
def test_a_step_that_waits_is_found(fit: Callable[..., Fit], what: Callable[[Tensor], object]) -> None:
    made = fit()
    with spoilt(made, what), pytest.raises(Waited):
        take_steps(made)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_no_network_waits(name: str) -> None:
    options = resolve(ModelSettings(name=name), default_training(name)).options
    network = build(name, options).train()
    side = options.get("image_size", 28)
    images, labels = torch.rand(2, options["in_channels"], side, side), torch.tensor([0, 1])
    network(images)  # fixed matrices of this size are made once
    with NothingWaits():
        torch.autograd.backward(nn.functional.cross_entropy(network(images), labels))
