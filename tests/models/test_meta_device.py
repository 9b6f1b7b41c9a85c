"""Networks without numbers: the shapes of the whole registry, nothing drawn, nothing fitted, nothing left behind."""

from __future__ import annotations

import pytest
import torch

from secli.catalogue import MODELS
from secli.layers import disco
from secli.models.building import build, count_parameters
from secli.models.meta_device import outline


@pytest.mark.parametrize("name", list(MODELS))
def test_every_registered_network_has_an_outline_with_no_real_tensor(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: object) -> None:
        raise AssertionError("a basis is fitted")

    monkeypatch.setattr(disco, "fit_proxies", fit)
    disco.proxies.cache_clear()
    before = torch.get_rng_state()
    network = outline(name)
    assert torch.equal(torch.get_rng_state(), before)
    tensors = [*network.parameters(), *network.buffers()]
    assert tensors
    assert all(tensor.is_meta for tensor in tensors)
    expected = MODELS[name].parameters
    assert expected is None or count_parameters(network) == expected
    assert torch.get_default_device().type == "cpu"


@pytest.mark.parametrize("name", ["mnist_xu_28", "mnist_ses_scalar_28", "dss_v1", "deform_dss"])
def test_an_outline_has_the_shapes_of_the_network_and_leaves_it_as_it_is(name: str) -> None:
    network = build(name)
    other = outline(name)
    assert {key: value.shape for key, value in network.state_dict().items()} == {
        key: value.shape for key, value in other.state_dict().items()
    }
    buffers = {key: value.shape for key, value in network.named_buffers()}
    assert buffers == {key: value.shape for key, value in other.named_buffers()}
    images = torch.rand(1, 1, 28, 28)
    other.eval()(images.to("meta"))
    again = build(name).eval()(images)
    assert again.device.type == "cpu"
    assert torch.equal(again, network.eval()(images))


def test_a_fitted_basis_is_zeros_of_its_shapes_under_the_meta_device() -> None:
    real = disco.disco_basis(5, (1.0, 1.41, 2.0), 3, sigma=0.9)
    with torch.device("meta"):
        empty = disco.disco_basis(5, (1.0, 1.41, 2.0), 3, sigma=0.9)
    assert [each.shape for each in empty.functions] == [each.shape for each in real.functions]
    # what was fitted before or is fitted afterwards is not touched by it
    once_more = disco.disco_basis(5, (1.0, 1.41, 2.0), 3, sigma=0.9)
    assert all((a == b).all() for a, b in zip(real.functions, once_more.functions, strict=True))
