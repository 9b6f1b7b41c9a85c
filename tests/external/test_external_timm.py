"""Networks of timm: tokens of a ViT, channels-last maps of a Swin; needs the extra ``timm``."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from secli.errors import InputError, SecliError
from secli.external.load import load_external, suggested_input

pytest.importorskip("timm")


def planes(model: Any, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return {name: value for name, value in model.features(images).items() if isinstance(value, Tensor)}


def test_tokens_of_a_vit() -> None:
    model = load_external(
        "timm:test_vit.r160_in1k",
        taps=["blocks.*"],
        fields=["blocks.*=tokens:6x6+1"],
        input_shape=(3, 96, 96),
    )
    assert list(model.taps) == [f"blocks.{k}" for k in range(len(model.network.blocks))]  # type: ignore[arg-type]
    for tap, field in model.taps.items():
        assert field.reads_as() == "tokens 6×6+1, stride 16", tap
    images = torch.rand(2, 3, 96, 96)
    seen: list[Tensor] = []
    block: Any = model.network.blocks[0]  # type: ignore[index]
    handle = block.register_forward_hook(lambda _m, _i, output: seen.append(output))
    found = planes(model, images)
    handle.remove()
    # token 1 + 6·row + column stands at (row, column)
    assert tuple(found["blocks.0"].shape[2:]) == (6, 6)
    torch.testing.assert_close(found["blocks.0"][:, :, 2, 3], seen[0][:, 1 + 6 * 2 + 3])
    with pytest.raises(InputError, match=r"--field 'blocks.0=tokens:6x6\+1'"):
        load_external("timm:test_vit", taps=["blocks.0"], input_shape=(3, 96, 96))
    with pytest.raises(InputError, match=r"tokens 5×6\+1 are \(N, 31, C\)"):
        load_external("timm:test_vit", taps=["blocks.0"], fields=["tokens:5x6+1"], input_shape=(3, 96, 96))


def test_channels_last_maps_of_a_swin() -> None:
    options: dict[str, Any] = {"taps": ["layers.0", "layers.1"], "input_shape": (3, 112, 112)}
    name = "timm:swin_tiny_patch4_window7_224"
    model = load_external(name, fields=["layers.*=channels-last"], **options)
    assert [field.reads_as() for field in model.taps.values()] == [
        "channels-last plane, stride 4",
        "channels-last plane, stride 8",
    ]
    found = planes(model, torch.rand(1, 3, 112, 112))
    assert [tuple(found[tap].shape) for tap in model.taps] == [(1, 96, 28, 28), (1, 192, 14, 14)]
    # undeclared, the channels are read as columns, which do not move over the image: the probe says so
    undeclared = load_external(name, **options)
    assert undeclared.taps == {}
    assert list(undeclared.missing) == ["layers.0", "layers.1"]
    for tap, reason in undeclared.missing.items():
        assert "its cells cannot be placed in the image" in str(reason)
        assert f"--field '{tap}=channels-last'" in str(reason)


def test_what_timm_says_of_its_images() -> None:
    assert suggested_input("timm:vit_tiny_patch16_224") == (3, 224, 224)
    assert suggested_input("timm:resnet10t") == (3, 176, 176)
    assert suggested_input("timm:resnet10t", "DEFAULT") == (3, 176, 176)
    grey = load_external("timm:test_resnet", taps=None, input_shape=(1, 64, 64))
    assert grey.description["mean"] == [0.0]
    assert grey(torch.rand(2, 1, 64, 64)).shape == (2, 1000)


@pytest.mark.parametrize(
    ("target", "weights", "message"),
    [
        ("timm:test_vitt", None, "unknown timm model 'test_vitt'; did you mean 'test_vit"),
        (
            "timm:test_vit",
            "r160_in2k",
            "unknown weights of timm:test_vit 'r160_in2k'; did you mean 'r160_in1k'",
        ),
        ("timm:test_vit.nope", None, "unknown weights of timm:test_vit 'nope'"),
    ],
)
def test_wrong_names(target: str, weights: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_external(target, taps=None, weights=weights, input_shape=(3, 96, 96))


def test_weights_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import timm
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"not in the cache of timm .*leave --offline out"):
        load_external("timm:test_vit", taps=None, weights="DEFAULT", offline=True, input_shape=(3, 96, 96))
    assert constants.HF_HUB_OFFLINE is False

    def unreachable(*_args: Any, **_options: Any) -> None:
        logging.getLogger("timm").error("retrying")
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(SecliError) as caught:
        load_external("timm:test_vit", taps=None, weights="DEFAULT", input_shape=(3, 96, 96))
    assert caught.value.exit_code == 1
    assert "cannot get test_vit from timm/test_vit.r160_in1k (no route to host)" in str(caught.value)
    assert "timm:test_vit --weights FILE" in str(caught.value)
    assert not caplog.records


def test_without_timm_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        InputError, match=r"timm: is not installed; install it with 'pip install secli\[timm\]'"
    ):
        load_external("timm:test_vit", taps=None, input_shape=(3, 96, 96))
