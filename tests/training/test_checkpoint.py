"""Weights and state: equal bytes for equal weights, checked when read, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from secli.errors import InputError
from secli.models.building import build
from secli.records.schema import ModelInfo
from secli.training.checkpoint import load_state, load_weights, save_state, save_weights, weights_of

INFO = ModelInfo(name="cnn", options={"in_channels": 1, "classes": 10}, parameters=34_670)


def test_weights_come_back_and_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    network = build("cnn", seed=3)
    save_weights(tmp_path / "a", weights_of(network), INFO)
    save_weights(tmp_path / "b", weights_of(build("cnn", seed=3)), INFO)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    other = build("cnn", seed=4)
    load_weights(tmp_path / "a", other, INFO)
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_weights(file, weights_of(build("dss_v1")), INFO.model_copy(update={"name": "dss_v1"}))
    with pytest.raises(InputError, match="weights of model 'dss_v1', but the record says 'cnn'"):
        load_weights(file, build("cnn"), INFO)
    save_weights(file, weights_of(build("dss_v1")), INFO)
    with pytest.raises(InputError, match=r"weights of another model: 'cnn' (has no|needs a) tensor"):
        load_weights(file, build("cnn"), INFO)
    save_weights(file, weights_of(build("cnn", {"classes": 7})), INFO)
    with pytest.raises(InputError, match=r"weights of another model than 'cnn': .* is \(7.*not \(10"):
        load_weights(file, build("cnn"), INFO)


@pytest.mark.parametrize("damage", [b"", b"no weights", None])
def test_damaged_weights_are_refused_by_name(tmp_path: Path, damage: bytes | None) -> None:
    file = tmp_path / "model.safetensors"
    save_weights(file, weights_of(build("cnn")), INFO)
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    with pytest.raises(InputError, match=r"model.safetensors: damaged weights"):
        load_weights(file, build("cnn"), INFO)
    with pytest.raises(InputError, match="no weights yet"):
        load_weights(tmp_path / "missing", build("cnn"), INFO)


@pytest.mark.parametrize("said", ["[]", '"cnn"', "{", "[" * 100_000, "null"])
def test_damaged_descriptions_of_weights_are_refused_by_name(tmp_path: Path, said: str) -> None:
    file = tmp_path / "model.safetensors"
    save_file(weights_of(build("cnn")), file, metadata={"secli": said})
    with pytest.raises(InputError, match=r"model.safetensors: damaged weights"):
        load_weights(file, build("cnn"), INFO)


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (str(self.target),)


def test_a_state_that_cannot_be_used_is_none_and_never_executed(tmp_path: Path) -> None:
    file = tmp_path / "state" / "last.pt"
    assert load_state(file) is None
    save_state(file, {"epoch": 3, "losses": torch.ones(2)})
    state = load_state(file)
    assert state is not None
    assert state["epoch"] == 3
    whole = file.read_bytes()
    for damaged in (whole[:-30], whole[: len(whole) // 2], b"", b"junk"):
        file.write_bytes(damaged)
        assert load_state(file) is None
    torch.save({"version": 1, "trap": Trap(tmp_path / "sprung")}, file)
    assert load_state(file) is None
    assert not (tmp_path / "sprung").exists()
    torch.save({"version": 99}, file)
    assert load_state(file) is None
