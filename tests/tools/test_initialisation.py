"""How weights start: every tensor of every network against its row of the table, and the controls."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from secli.catalogue import MODELS
from secli.models.building import build
from secli.models.meta_device import outline
from tools.initialisation import INITIALISATIONS, Initialisation, initialisation_of, parameters_of, size_of

Array = NDArray[np.float64]

SURE = 1e-9
"""How unlikely a finding must be by chance: some 5000 are looked at, so that hardly any seed fails."""
DEVIATIONS = 6.5
"""The same for a spread, in standard deviations of its estimate."""

every_model = pytest.mark.parametrize("name", list(MODELS.own))


def smaller(name: str) -> dict[str, Any]:
    """Networks for photographs with fewer channels: the formulas hold at any width."""
    if name.startswith("wrn_"):
        return {"image_size": 24, "widths": (16, 32, 60, 128)}
    return {"channels": 16} if "resnet50" in name else {}


@cache
def drawn(name: str) -> nn.Module:
    """A network as it starts, from a fixed seed, which no test may change."""
    return build(name, smaller(name), seed=0)


def passed_on(weight: Tensor) -> Tensor:
    """Which (output, input) a delta passes on: ⌊a·g/in⌋ = ⌊b·g/out⌋, written out."""
    outputs, inputs = weight.shape[:2]
    g = math.gcd(inputs, outputs)
    return torch.tensor(
        [[a * g // inputs == b * g // outputs for a in range(inputs)] for b in range(outputs)]
    )


def not_drawn_so(values: Array, kind: str) -> str | None:
    """Say what values, divided by their size, show that a start of this kind and of size 1 does not.

    Nothing beyond the bounds of a uniform draw; the mean square within DEVIATIONS of its own deviation (E x⁴ less
    (E x²)² over n, under the root); Kolmogorov's and Smirnov's distance no less likely than SURE.
    """
    if kind == "uniform" and np.abs(values).max() > 1 + 1e-6:
        return "values beyond its bounds"
    square, fourth = (1 / 3, 1 / 5) if kind == "uniform" else (1.0, 3.0)
    allowed = DEVIATIONS * math.sqrt((fourth - square**2) / len(values))
    # of few normal values, squares are far from normal themselves: the distance below judges them
    if len(values) >= 200 and abs(np.mean(values**2) - square) > allowed:
        return f"mean square {np.mean(values**2):.4f}, not {square:.4f} ± {allowed:.4f}"
    law = stats.uniform(-1, 2) if kind == "uniform" else stats.norm()
    likely = stats.kstest(values, law.cdf).pvalue
    return f"another distribution, p = {likely:.1g}" if likely < SURE else None


def standardised(parameter: Tensor, start: Initialisation, size: float) -> tuple[Array, str | None]:
    """Return what is random in a tensor, divided by its size, and what is wrong with the rest."""
    values = parameter.detach().double()
    if start.kind == "constant":
        return np.empty(0), None if bool((values == size).all()) else f"not {size:g} throughout"
    if start.kind != "delta":
        return values.flatten().numpy() / size, None
    centre = values.shape[-1] // 2
    passing = torch.zeros_like(values, dtype=torch.bool)
    passing[..., centre, centre] = passed_on(values).reshape(*values.shape[:2], *[1] * (values.ndim - 4))
    share = math.gcd(values.shape[0], values.shape[1]) / values.shape[0]
    whole = bool(((values[passing] - share).abs() < 1e-6).all())
    return values[~passing].numpy() / size, None if whole else f"a central tap is not {share:g}"


def wrong(name: str, network: nn.Module) -> list[str]:
    """Say which tensors do not start as the table says: each by itself, then all of a row together.

    A tensor of ten numbers shows little by itself; those of one row, each divided by its size, show more.
    """
    problems: list[str] = []
    pooled: dict[str, list[Array]] = {}
    at = parameters_of(name, network)
    for key, parameter in network.named_parameters():
        start = initialisation_of(at[key])
        values, problem = standardised(parameter, start, size_of(at[key], parameter))
        kind = "uniform" if start.kind == "delta" else start.kind
        if problem is None and len(values):
            problem = not_drawn_so(values, kind)
            pooled.setdefault(start.what, []).append(values)
        problems += [f"{key}: {problem}"] if problem else []
    for start in INITIALISATIONS:
        if start.what in pooled:
            kind = "uniform" if start.kind == "delta" else start.kind
            together = not_drawn_so(np.concatenate(pooled[start.what]), kind)
            problems += [f"{start.what}: {together}"] if together else []
    return problems


@every_model
def test_every_tensor_starts_as_the_table_says(name: str) -> None:
    assert wrong(name, drawn(name)) == []


def test_every_row_of_the_table_speaks_of_some_parameter() -> None:
    used = set()
    for name in MODELS.own:
        used |= {
            initialisation_of(each).what
            for each in parameters_of(name, outline(name, smaller(name))).values()
        }
    assert used == {start.what for start in INITIALISATIONS}


# the controls: an initialisation that changes is found


CHANGED = {
    "mnist_ss_28": "coefficients of scale-steerable",
    "mnist_cnn_28": "every other convolution, its weight",
    "mnist_ses_vector_28": "coefficients of SESN",
    "mnist_dss_vector_28": "scale convolutions",
    "mnist_disco_56": "coefficients of SESN",
    "mnist_sevf_vector_28": "every other convolution, its weight",
    "mnist_kanazawa_28": "every other convolution, its weight",
    "mnist_xu_28": "every other convolution, its weight",
    "so2_cnn": "coefficients of rotation",
    "wrn_16_8": "convolutions and shortcuts",
    "wrn_16_8_ses_b": "convolutions and shortcuts",
    "wrn_16_8_ss": "coefficients of `wrn",
    "wrn_16_8_dss": "convolutions and shortcuts of `wrn_16_8_dss",
    "dss_v1": "weight of a linear layer",
}


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("change", ["half as wide", "twice as wide", "another distribution", "moved"])
def test_a_changed_start_is_found(name: str, change: str) -> None:
    """Every tensor of a row is changed, as a changed line of code would change them."""
    network = build(name, smaller(name), seed=0)
    at = parameters_of(name, network)
    generator = torch.Generator().manual_seed(1)
    what = CHANGED[name]
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            start = initialisation_of(at[key])
            if not start.what.startswith(what):
                continue
            size = size_of(at[key], parameter)
            if change == "half as wide":
                parameter.mul_(0.5)
            elif change == "twice as wide":
                parameter.mul_(2)
            elif change == "moved":
                parameter.add_(size)
            elif start.kind == "normal":  # of the same spread
                parameter.uniform_(-math.sqrt(3) * size, math.sqrt(3) * size, generator=generator)
            else:
                parameter.normal_(0, size / math.sqrt(3), generator=generator)
    found = wrong(name, network)
    assert any(problem.startswith(what) for problem in found) or len(found) > 1, found


CONSTANT = {
    "wrn_16_8": "bias of the classifier",
    "dcn_v2": "branch of offsets",
    "deform_dss": "branch of offsets",
    "stn_cnn": "last layer of a localiser",
    "mnist_ses_scalar_28": "bias of SESN",
    "mnist_cnn_28": "weight of a batch norm",
}


@pytest.mark.parametrize("name", CONSTANT)
def test_a_constant_that_is_drawn_is_found(name: str) -> None:
    network = build(name, smaller(name), seed=0)
    at = parameters_of(name, network)
    for key, parameter in network.named_parameters():
        if initialisation_of(at[key]).what.startswith(CONSTANT[name]):
            with torch.no_grad():
                parameter[-1] += 1e-3
            assert [problem.split(":")[0] for problem in wrong(name, network)] == [key]
            return
    raise AssertionError(f"{name} has no {CONSTANT[name]}")


def test_a_delta_in_the_first_slice_alone_is_found() -> None:
    network = build("wrn_16_8_dss", smaller("wrn_16_8_dss"), seed=0)
    key = "group1.block1.conv1.weight"
    weight = network.get_parameter(key)
    assert weight.shape[2] == 2
    with torch.no_grad():
        weight[:, :, 1].uniform_(-0.01, 0.01, generator=torch.Generator().manual_seed(0))
    assert [problem.split(":")[0] for problem in wrong("wrn_16_8_dss", network)] == [key]


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("name", ["mnist_cnn_28", "mnist_ss_28", "so2_cnn", "wrn_16_8_dss"])
def test_the_check_does_not_depend_on_luck(name: str, seed: int) -> None:
    assert wrong(name, build(name, smaller(name), seed)) == []
