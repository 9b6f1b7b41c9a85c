"""Weights under the names of a first study, made up here, go into the registry's networks and give what theirs give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from secli.config import parse_assignments
from secli.external.weights import load_foreign_weights
from secli.models.building import build
from tools.study_weights import OPTIONS, renamed

TOOL = Path(__file__).parents[1] / "tools" / "study_weights.py"
WIDTHS = (1, 8, 20, 40, 64)
State = dict[str, Tensor]


def made_up(model: str) -> State:
    """Return random weights under the names, and in the shapes, of the study."""
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (10, 256), "fc.bias": (10,)}
    for i in range(1, 5):
        for kind in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"bn{i}.{kind}"] = (WIDTHS[i],)
    shapes |= {"conv1.weight": (8, 1, 3, 3), "conv2.weight": (20, 8, 3, 3), "conv2.bias": (20,)}
    if model == "cnn":
        shapes |= {"conv3.weight": (40, 20, 3, 3), "conv4.weight": (64, 40, 3, 3), "conv4.bias": (64,)}
    for i, (inputs, outputs) in enumerate(((20, 40), (40, 64)) if model != "cnn" else (), start=1):
        shapes[f"dconv_{i}.weight"] = (outputs, inputs, 3, 3)
        if model == "dcn":
            shapes[f"conv_{i + 2}.weight"] = (180, inputs, 3, 3)
        else:
            shapes[f"dconv_{i}.bias"] = (outputs,)
            shapes[f"dconv_{i}.conv_offset_mask.weight"] = (270, inputs, 3, 3)
            shapes[f"dconv_{i}.conv_offset_mask.bias"] = (270,)
    if model == "dcn":
        shapes["conv_4.bias"] = (180,)
    generator = torch.Generator().manual_seed(3)
    state = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {key: value.abs() + 0.5 if "running_var" in key else value for key, value in state.items()}


def theirs(model: str, w: State, x: Tensor) -> Tensor:
    """Return the logits of the study's network, written out."""
    from torchvision.ops import deform_conv2d

    for i in range(1, 5):
        if i < 3 or model == "cnn":
            x = functional.conv2d(x, w[f"conv{i}.weight"], w.get(f"conv{i}.bias"), padding=1)
        else:
            name, mask = f"dconv_{i - 2}", None
            if model == "dcn":
                moves = functional.conv2d(x, w[f"conv_{i}.weight"], w.get(f"conv_{i}.bias"), padding=1)
            else:
                branch = f"{name}.conv_offset_mask"
                predicted = functional.conv2d(x, w[f"{branch}.weight"], w[f"{branch}.bias"], padding=1)
                first, second, masks = predicted.chunk(3, dim=1)
                moves, mask = torch.cat([first, second], dim=1), masks.sigmoid()
            weight, bias = w[f"{name}.weight"], w.get(f"{name}.bias")
            x = deform_conv2d(x, moves, weight, bias, padding=1, mask=mask)
        mean, var, scale, shift = (
            w[f"bn{i}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        x = functional.batch_norm(x.relu(), mean, var, scale, shift)
    return functional.linear(functional.adaptive_avg_pool2d(x, 2).flatten(1), w["fc.weight"], w["fc.bias"])


def options_of(model: str) -> dict[str, Any]:
    given = [f"model.{key}={value}" for key, value in OPTIONS[model].items()]
    return parse_assignments(given, ["model"])["model"]


@pytest.mark.parametrize("model", ["cnn", "dcn", "dcn_v2"])
def test_the_registrys_network_gives_what_the_studys_gives(model: str, tmp_path: Path) -> None:
    state = made_up(model)
    save_file(renamed(state, model), tmp_path / "ours.safetensors")
    network = build(model, options_of(model)).eval()
    load_foreign_weights(network, tmp_path / "ours.safetensors")
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(4))
    double = {key: value.double() for key, value in state.items()}
    with torch.no_grad():
        torch.testing.assert_close(network.double()(images.double()), theirs(model, double, images.double()))


def test_a_name_of_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'dconv_1\.weight' is not a tensor of the study's cnn"):
        renamed({"dconv_1.weight": torch.zeros(1)}, "cnn")


def test_the_tool_writes_a_file_and_says_how_to_measure_it(tmp_path: Path) -> None:
    save_file(made_up("dcn_v2"), tmp_path / "a")
    command = [sys.executable, str(TOOL), "dcn_v2", str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:5] == ["secli", "equivariance", "dcn_v2", "--weights", str(tmp_path / "b")]
    assert "--set model.deformable_groups=10 --set model.third_bias=true" in done.stdout
    assert "block4.conv.offset.bias" in load_file(tmp_path / "b")
    command[2] = "cnn"
    failed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1
    assert len(failed.stderr.strip().splitlines()) == 1
