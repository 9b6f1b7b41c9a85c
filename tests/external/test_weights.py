from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from secli.errors import InputError
from secli.external.checkpoints import read_content, state_dicts
from secli.external.weights import load_foreign_weights
from secli.provenance import names_a_file


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def drawn(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return small()


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda state: state, ""),
        (lambda state: {"state_dict": state, "epoch": 3}, ""),
        (lambda state: {"model": state, "optimizer": {"lr": 0.1}}, ""),
        (lambda state: {"model_ema": state, "rng": torch.get_rng_state(), "step": torch.tensor(7)}, ""),
        (lambda state: {"ema": {"module": state, "decay": 0.999}}, ""),
        (lambda state: {"state_dict": prefixed(state, "module.")}, "module."),
        (lambda state: prefixed(state, "_orig_mod.module."), "_orig_mod.module."),
        (lambda state: {"state_dict": prefixed(state, "model.net."), "loops": {}}, "model.net."),
        (lambda state: {"n_averaged": torch.tensor(4), **prefixed(state, "module.")}, "module."),
        (lambda state: {**state, "n_steps": 3, "note": "best"}, ""),
        (
            lambda state: {
                "model": state,
                "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
                "args": argparse.Namespace(lr=0.1, output=Path("out")),
                "best": np.float64(0.93),
            },
            "",
        ),
    ],
)
def test_checkpoints_however_they_are_wrapped(wrap: Any, prefix: str, tmp_path: Path) -> None:
    source, network = drawn(0), drawn(1)
    origin = load_foreign_weights(network, saved(wrap(dict(source.state_dict())), tmp_path / "net.pth"))
    assert equal(network.state_dict(), source.state_dict())
    assert origin.prefix == prefix
    assert origin.state is None


def test_a_network_whose_own_names_share_a_prefix(tmp_path: Path) -> None:
    network, other = nn.Sequential(drawn(0)), nn.Sequential(drawn(1))
    origin = load_foreign_weights(other, saved(network.state_dict(), tmp_path / "net.pth"))
    assert origin.prefix == ""
    assert equal(network.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "net.bin", "net"])
def test_formats_are_told_by_content_not_by_suffix(name: str, tmp_path: Path) -> None:
    source = drawn(0)
    state = dict(source.state_dict())
    file = tmp_path / name
    for write in (
        lambda: save_file(state, file),
        lambda: torch.save(state, file),
        lambda: torch.save(state, file, _use_new_zipfile_serialization=False),
    ):
        write()
        network = drawn(1)
        load_foreign_weights(network, file)
        assert equal(network.state_dict(), state)


def test_the_counter_that_old_checkpoints_lack(tmp_path: Path) -> None:
    source, network = drawn(0), drawn(1)
    state = dict(source.state_dict())
    del state["1.num_batches_tracked"]
    load_foreign_weights(network, saved(state, tmp_path / "old.pt"))
    assert torch.equal(network[0].weight, source[0].weight)  # type: ignore[arg-type]


def test_of_several_state_dicts_one_is_chosen(tmp_path: Path) -> None:
    plain, average = drawn(0), drawn(1)
    content = {
        "epoch": 3,
        "model": plain.state_dict(),
        "ema": {"module": prefixed(average.state_dict(), "module.")},
    }
    path = saved(content, tmp_path / "net.pth")
    network = drawn(2)
    with pytest.raises(
        InputError, match=r"holds 2 state dicts that fit \(model, ema.module\); choose with --state"
    ):
        load_foreign_weights(network, path)
    for state, source, name in (("model", plain, "model"), ("module", average, "ema.module")):
        origin = load_foreign_weights(network, path, state)
        assert origin.state == name
        assert equal(network.state_dict(), source.state_dict())
    with pytest.raises(InputError, match="holds no such state dict; did you mean 'model'"):
        load_foreign_weights(network, path, "modle")


def test_the_state_dict_that_alone_fits_is_taken(tmp_path: Path) -> None:
    student, teacher = drawn(0), nn.Linear(3, 4)
    path = saved({"teacher": teacher.state_dict(), "student": student.state_dict()}, tmp_path / "net.pth")
    network = drawn(1)
    assert load_foreign_weights(network, path).state == "student"
    assert equal(network.state_dict(), student.state_dict())


def test_two_networks_in_one_state_dict(tmp_path: Path) -> None:
    online, average = drawn(0), drawn(1)
    state = prefixed(online.state_dict(), "online_model.") | prefixed(average.state_dict(), "ema_model.")
    path = saved({"state_dict": {**state, "step": torch.tensor([5])}}, tmp_path / "net.pth")
    network = drawn(2)
    with pytest.raises(InputError, match="only its tensors under online_model, ema_model fit"):
        load_foreign_weights(network, path)
    assert load_foreign_weights(network, path, "ema_model").state == "state_dict.ema_model"
    assert equal(network.state_dict(), average.state_dict())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight


def test_tied_tensors(tmp_path: Path) -> None:
    source, network = Tied(), Tied()
    save_model(source, str(tmp_path / "tied.safetensors"))
    load_foreign_weights(network, tmp_path / "tied.safetensors")
    assert torch.equal(network.b.weight, source.a.weight)
    with torch.device("meta"):
        empty = Tied()
    load_foreign_weights(empty, tmp_path / "tied.safetensors")
    assert torch.equal(empty.b.weight, source.a.weight)
    differing = {"a.weight": torch.zeros(4, 4), "b.weight": torch.ones(4, 4)}
    with pytest.raises(InputError, match=r"[ab].weight and [ab].weight are one tensor in the network"):
        load_foreign_weights(network, saved(differing, tmp_path / "two.pth"))


class Expanding(nn.Module):
    """Expands its filter in eval mode, as steerable convolutions do, and drops it in training."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3))
        self.register_buffer("basis", torch.rand(3, 5))

    def train(self, mode: bool = True) -> Expanding:
        if mode and hasattr(self, "filter"):
            del self.filter
        if not mode:
            self.register_buffer("filter", (self.w @ self.basis).detach())  # type: ignore[operator]
        return super().train(mode)


@pytest.mark.parametrize("saved_in_training", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_buffers_of_eval_mode_only(saved_in_training: bool, training: bool, tmp_path: Path) -> None:
    source = Expanding().train(saved_in_training)
    network = Expanding().train(training)
    load_foreign_weights(network, saved(source.state_dict(), tmp_path / "net.pth"))
    assert network.training is training
    torch.testing.assert_close(network.train(False).filter, source.train(False).filter)


def changed(key: str, value: Tensor) -> dict[str, Tensor]:
    return {**small().state_dict(), key: value}


LOSSY = {
    "codes": (changed("0.weight", torch.ones(2, 1, 3, 3, dtype=torch.int8)), "0.weight is int8 in the file"),
    "complex": (changed("0.bias", torch.ones(2) * 1j), "the imaginary parts would be lost"),
    "nan": (
        changed("0.bias", torch.tensor([1.0, float("nan")])),
        r"1 tensors hold NaN or infinity \(0.bias\)",
    ),
    "infinity": (changed("1.running_var", torch.tensor([1.0, float("inf")])), "hold NaN or infinity"),
    "too large": (
        changed("0.bias", torch.tensor([1.0, 1e300], dtype=torch.float64)),
        "which its values exceed",
    ),
    "fractions": (changed("1.num_batches_tracked", torch.tensor(2.5)), "its values would change"),
}


@pytest.mark.parametrize("case", LOSSY)
def test_lossy_conversions_are_refused(case: str, tmp_path: Path) -> None:
    state, message = LOSSY[case]
    network = small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(InputError, match=message) as caught:
        load_foreign_weights(network, saved(state, tmp_path / "net.pth"))
    assert "\n" not in str(caught.value)
    assert equal(dict(network.state_dict()), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_floats_are_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    source, network = drawn(0), drawn(1)
    state = {
        key: value.to(dtype) for key, value in source.state_dict().items()
    }  # averages count in float, too
    load_foreign_weights(network, saved(state, tmp_path / "net.pth"))
    found, expected = network.state_dict(), source.state_dict()
    assert torch.equal(found["0.weight"], expected["0.weight"].to(dtype).float())
    assert found["1.num_batches_tracked"].dtype == torch.int64


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))


def test_a_mask_may_be_infinite(tmp_path: Path) -> None:
    load_foreign_weights(Masked(), saved(Masked().state_dict(), tmp_path / "net.pth"))


class Versioned(nn.Module):
    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        if metadata.get("version") != 2:
            raise ValueError(f"version {metadata.get('version')}")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_modules_are_told_the_version_of_their_weights(name: str, tmp_path: Path) -> None:
    wrapped = nn.DataParallel(Versioned())
    if name == "net.pth":
        torch.save(wrapped.state_dict(), tmp_path / name)
    else:
        save_file(wrapped.state_dict(), tmp_path / name)
    assert load_foreign_weights(Versioned(), tmp_path / name).prefix == "module."


def test_weights_give_a_network_on_the_meta_device_its_values(tmp_path: Path) -> None:
    source = drawn(0)
    with torch.device("meta"):
        network = small()
    load_foreign_weights(network, saved(source.state_dict(), tmp_path / "net.pth"))
    assert equal(network.state_dict(), source.state_dict())
    assert isinstance(network[0].weight, nn.Parameter)


def read_state_dict(path: Path) -> dict[str, Any]:
    return dict(state_dicts(path, read_content(path)))


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
    np.savez(folder / "numbers.npz", a=np.zeros(3))
    torch.save([1, 2], folder / "list.pth")
    torch.save({"epoch": 3, "lr": 0.1}, folder / "numbers.pth")
    return {
        "missing": (folder / "nothing.pth", "no such file"),
        "directory": (folder, "is a directory"),
        "cut": (folder / "cut.pth", "damaged"),
        "zip": (folder / "numbers.npz", "a zip archive, but damaged or no PyTorch checkpoint"),
        "cut safetensors": (folder / "cut.safetensors", "not a whole safetensors file"),
        "text": (folder / "text.pth", "damaged, or neither"),
        "empty": (folder / "empty.pth", "damaged, or neither"),
        "list": (folder / "list.pth", "holds no state dict, but list"),
        "numbers": (folder / "numbers.pth", r"holds no state dict \(found epoch, lr\)"),
    }


@pytest.mark.parametrize(
    "case", ["missing", "directory", "cut", "zip", "cut safetensors", "text", "empty", "list", "numbers"]
)
def test_bad_files_are_one_line(case: str, tmp_path: Path) -> None:
    path, message = bad_files(tmp_path)[case]
    with pytest.raises(InputError, match=message) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    network = small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = {f"x{k}": torch.zeros(1) for k in range(12)}
    state |= {"0.weight": torch.zeros(2, 1, 5, 5), "0.bias": torch.zeros(2)}
    path = saved(state, tmp_path / "net.pth")
    with pytest.raises(InputError) as caught:
        load_foreign_weights(network, path)
    assert str(caught.value) == (
        f"--weights {path}: does not fit the network: 4 missing (1.weight, 1.bias, 1.running_mean, 1.running_var); "
        "12 unexpected (x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, …); "
        "1 of another shape (0.weight 2×1×5×5 instead of 2×1×3×3)"
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
