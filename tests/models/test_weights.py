from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from secli.errors import InputError
from secli.models.weights import load_weights, names_a_file, read_state_dict


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
    ],
)
def test_checkpoints_however_they_are_wrapped(wrap: Any, tmp_path: Path) -> None:
    state = dict(small().state_dict())
    torch.save(wrap(state), tmp_path / "net.pth")
    assert equal(read_state_dict(tmp_path / "net.pth"), state)


def test_safetensors_and_old_checkpoints(tmp_path: Path) -> None:
    network = small()
    state = dict(network.state_dict())
    save_file(state, tmp_path / "net.safetensors")
    assert set(read_state_dict(tmp_path / "net.safetensors")) == set(state)
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert equal(read_state_dict(tmp_path / "old.pt"), state)
    other = small()
    del state["1.num_batches_tracked"]  # as checkpoints of old lack it
    load_weights(other, state, "--weights x")
    assert torch.equal(other[0].weight, network[0].weight)  # type: ignore[arg-type]


class Evil:
    """A pickle that leaves a trace when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("protocol", [None, 2, 5])
def test_a_pickle_that_wants_to_execute_is_refused(protocol: int | None, tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    content = {"state_dict": Evil(trace)}
    if protocol is None:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    message = "may execute code" if protocol == 5 else "would execute '.*mkdir'"
    with pytest.raises(InputError, match=f"refused: opening it {message}") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"refused: opening it would execute .*Sequential"):
        read_state_dict(tmp_path / "net.pth")


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    whole = folder / "whole.pth"
    torch.save(small().state_dict(), whole)
    save_file(dict(small().state_dict()), folder / "whole.safetensors")
    (folder / "cut.pth").write_bytes(whole.read_bytes()[:700])
    (folder / "cut.safetensors").write_bytes((folder / "whole.safetensors").read_bytes()[:60])
    (folder / "text.pth").write_text("these are no weights")
    (folder / "empty.pth").write_bytes(b"")
    torch.save([1, 2], folder / "list.pth")
    torch.save({"epoch": 3, "lr": 0.1}, folder / "numbers.pth")
    return {
        "missing": (folder / "nothing.pth", "no such file"),
        "directory": (folder, "is a directory"),
        "cut": (folder / "cut.pth", "damaged"),
        "cut safetensors": (folder / "cut.safetensors", "not a whole safetensors file"),
        "text": (folder / "text.pth", "damaged, or neither"),
        "empty": (folder / "empty.pth", "damaged, or neither"),
        "list": (folder / "list.pth", "holds no state dict, but list"),
        "numbers": (folder / "numbers.pth", r"holds no state dict \(found epoch, lr\)"),
    }


@pytest.mark.parametrize(
    "case", ["missing", "directory", "cut", "cut safetensors", "text", "empty", "list", "numbers"]
)
def test_bad_files_are_one_line(case: str, tmp_path: Path) -> None:
    path, message = bad_files(tmp_path)[case]
    with pytest.raises(InputError, match=message) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_named_and_nothing_is_changed() -> None:
    network = small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = {f"x{k}": torch.zeros(1) for k in range(5)}
    state |= {"0.weight": torch.zeros(2, 1, 5, 5), "0.bias": torch.zeros(2)}
    with pytest.raises(InputError) as caught:
        load_weights(network, state, "--weights net.pth")
    assert str(caught.value) == (
        "--weights net.pth: does not fit the network: 4 missing (1.weight, 1.bias, 1.running_mean, …); "
        "5 unexpected (x0, x1, x2, …); 1 of another shape (0.weight 2×1×5×5 instead of 2×1×3×3)"
    )
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_files_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [names_a_file(text) for text in ("net.pth", "runs/net", "DEFAULT", "IMAGENET1K_V1")] == [
        True,
        True,
        False,
        False,
    ]
    (tmp_path / "DEFAULT").touch()
    assert names_a_file("DEFAULT")
