from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from secli.action.fields import ScaleSpace
from secli.layers import SESConv, SESLift, basis_b
from secli.layers.learned_scales import LearnedScaleConv, LearnedScales, functions_b, sampled_basis
from secli.models.building import build
from secli.models.contract import StagedModel

DTYPES = {torch.float32: 1e-4, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", list(DTYPES))
@given(
    smallest=st.floats(0.5, 2.5),
    span=st.sampled_from([1.3, 2.0, 2.7]),
    levels=st.integers(2, 4),
    mult=st.sampled_from([1.3, 2.0]),
)
def test_the_basis_is_basis_b(
    dtype: torch.dtype, smallest: float, span: float, levels: int, mult: float
) -> None:
    scales = LearnedScales(smallest, span, levels, dtype=dtype)()
    ours = sampled_basis(scales, 9, functions_b(4, mult, 3)).detach().double().numpy()
    expected = [smallest * span ** (k / (levels - 1)) for k in range(levels)]
    assert scales.tolist() == pytest.approx(expected, rel=1e-5)
    theirs = basis_b(9, expected, 4, mult, 3).padded()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=DTYPES[dtype] * np.abs(theirs).max())


def test_a_function_that_vanishes_on_one_cell_stays_nothing() -> None:
    scales = LearnedScales(1.0, 6.0, 2)
    basis = sampled_basis(scales(), 7, ((0, 0, 1.0), (1, 0, 1.0)))
    assert not basis[1, 0].any()
    basis.square().sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(torch.as_tensor(scales.log_span.grad))


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("interaction", [0, 1, 2])
def test_at_its_start_it_is_the_steerable_convolution(dtype: torch.dtype, interaction: int) -> None:
    """Interaction 0 stands for the lift."""
    scales = LearnedScales(1.0, 2.0, 3, dtype=dtype)
    ours = LearnedScaleConv(2, 3, 7, scales, interaction=max(interaction, 1), effective_size=4, dtype=dtype)
    torch.nn.init.normal_(ours.bias)
    basis = basis_b(7, (1.0, 2**0.5, 2.0), 4, 1.5)
    theirs: SESLift | SESConv
    weight: Tensor = ours.weight
    if interaction:
        theirs = SESConv(2, 3, basis, interaction, padding=3, dtype=dtype)
    else:
        theirs, weight = SESLift(2, 3, basis, padding=3, dtype=dtype), weight[:, :, 0]
    theirs.load_state_dict({"weight": weight, "bias": ours.bias})
    x = torch.randn(2, 2, 9, 8, dtype=dtype) if not interaction else torch.randn(2, 2, 3, 9, 8, dtype=dtype)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=DTYPES[dtype])


def test_the_whole_network_starts_as_sesn() -> None:
    ours, theirs = build("mnist_lses_28").eval(), build("mnist_ses_vector_28", {"size": 13}).eval()
    weights = {
        key: value.squeeze(2) if key == "conv1.conv.weight" else value
        for key, value in ours.state_dict().items()
        if "scales" not in key
    }
    theirs.load_state_dict(weights)
    images = torch.rand(2, 1, 28, 28)
    with torch.no_grad():  # its published scales are rounded to two digits
        torch.testing.assert_close(ours(images), theirs(images), rtol=0.02, atol=5e-3)


def test_the_gradient_of_the_scales_is_that_of_the_formula() -> None:
    layer = LearnedScaleConv(1, 2, 5, LearnedScales(0.9, 2.0, 3), effective_size=3).double()
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    scales = layer.scales
    loss = layer(x).square().sum()
    loss.backward()
    for parameter in (scales.log_smallest, scales.log_span):
        assert parameter.grad is not None
        sides = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(step)
                sides.append(float(layer(x).square().sum()))
                parameter.sub_(step)
        assert float(parameter.grad) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)


def test_scales_can_be_learned() -> None:
    """Filters of one scale are to become those of a scale 1.3 times as large, and only the scales may move."""
    target = sampled_basis(torch.tensor([1.3, 1.3 * 2.4]), 13, ((0, 0, 1.0),))
    scales = LearnedScales(1.0, 2.0, 2)
    optimiser = torch.optim.Adam(scales.parameters(), 0.02)
    for _ in range(150):
        optimiser.zero_grad()
        loss = functional.mse_loss(sampled_basis(scales(), 13, ((0, 0, 1.0),)), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert scales.values() == pytest.approx((1.3, 3.12), rel=0.03)


def fields_of(model: StagedModel) -> list[ScaleSpace]:
    return [field for field in model.taps.values() if isinstance(field, ScaleSpace)]


def test_the_fields_follow_what_is_learned() -> None:
    model = build("mnist_lses_28")
    before = fields_of(model)
    assert len(before) == 3
    assert all(field.scales == pytest.approx((1.5, 1.5 * 3**0.5, 4.5)) for field in before)
    names = [name for name, _ in model.named_parameters() if "log_" in name]
    assert names == ["conv1.conv.scales.log_smallest", "conv1.conv.scales.log_span"]
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).add_(0.1)
    changed = fields_of(model)
    span = 1 + 2 * float(torch.tensor(0.1).exp())
    smallest = 1.5 * float(torch.tensor(0.1).exp())
    for field in changed:
        assert field.scales == pytest.approx([smallest * span ** (k / 2) for k in range(3)], rel=1e-5)


def test_every_layer_feels_the_shared_scales() -> None:
    model = build("mnist_lses_28").eval()
    layers = [module for module in model.modules() if isinstance(module, LearnedScaleConv)]
    assert len(layers) == 3

    def kernels() -> list[Tensor]:
        with torch.no_grad():
            return [layer.kernels() for layer in layers]

    before = kernels()
    with torch.no_grad():
        layers[0].scales.log_smallest.add_(0.2)
    assert all(not torch.allclose(a, b) for a, b in zip(kernels(), before, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 2.0, 3), "not 0, 2 and 3"),
        ((1.0, 1.0, 3), "not 1, 1 and 3"),
        ((1.0, 2.0, 1), "not 1, 2 and 1"),
    ],
)
def test_bad_scales_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearnedScales(*arguments)


def test_bad_layers_are_refused() -> None:
    scales = LearnedScales(1.0, 2.0, 3)
    with pytest.raises(ValueError, match="odd and at least 3, not 4"):
        LearnedScaleConv(1, 1, 4, scales)
    with pytest.raises(ValueError, match="interaction must be 1 to 3"):
        LearnedScaleConv(1, 1, 5, scales, interaction=4)
    with pytest.raises(ValueError, match="the layer has 3 levels, its input 2"):
        LearnedScaleConv(1, 1, 5, scales)(torch.rand(1, 1, 2, 8, 8))
