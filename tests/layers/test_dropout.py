"""Dropout is torch's own; with streams, each replica drops what it would drop alone."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import Tensor, nn

import secli.layers.dropout
from secli.layers.dropout import Dropout, Streams

SEEDS = (5, 6, 5)


def two_layers(kind: type[nn.Dropout]) -> nn.Sequential:
    return nn.Sequential(kind(0.3), nn.ReLU(), kind(0.6)).train()


def alone(x: Tensor, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        result: Tensor = two_layers(nn.Dropout)(x)
        return result


def at_once(x: Tensor, seeds: tuple[int, ...] = SEEDS) -> Tensor:
    network, streams = two_layers(Dropout), Streams()
    for module in network:
        if isinstance(module, Dropout):
            module.streams = streams
    with torch.random.fork_rng(devices=[]):
        streams.seed(seeds)
        result: Tensor = torch.vmap(network)(x)
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 33), (2, 3, 5, 4), (2, 3, 2, 5, 4)])
def test_each_replica_drops_what_it_would_drop_alone(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = (torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)) + 0.5).to(dtype)
    together = at_once(x)
    for replica, seed in enumerate(SEEDS):
        assert torch.equal(together[replica], alone(x[replica], seed))
    assert 0.2 < (together == 0).float().mean() < 0.95
    # a control: with one seed for all, the second is not what it would be alone
    assert not torch.equal(at_once(x, (5, 5, 5))[1], alone(x[1], 6))


def test_gradients_pass_where_values_do() -> None:
    x = torch.rand(3, 4, 9) + 0.5
    x.requires_grad_()
    torch.autograd.backward(at_once(x).sum())
    for replica, seed in enumerate(SEEDS):
        single = x[replica].detach().requires_grad_()
        torch.autograd.backward(alone(single, seed).sum())
        assert x.grad is not None
        assert single.grad is not None
        assert torch.equal(x.grad[replica], single.grad)


def test_without_streams_it_is_torchs_own() -> None:
    x = torch.rand(6, 50)
    for network in (Dropout(0.4), nn.Dropout(0.4)):
        torch.manual_seed(1)
        values = network(x)
        assert torch.equal(network.eval()(x), x)
        torch.manual_seed(1)
        assert torch.equal(values, nn.functional.dropout(x, 0.4))
    assert Dropout(0.4).state_dict() == {}


def test_streams_are_for_vmap_and_for_as_many_replicas_as_they_have_seeds() -> None:
    layer = Dropout(0.5)
    layer.streams = Streams()
    with pytest.raises(RuntimeError, match=r"needs torch\.vmap over the replicas"):
        layer(torch.rand(3))
    layer.streams.seed([1, 2])
    with pytest.raises(ValueError, match="3 replicas, but 2 seeds"):
        torch.vmap(layer)(torch.rand(3, 4))
    assert torch.equal(layer.eval()(torch.ones(3)), torch.ones(3))


def test_the_example_runs() -> None:
    assert doctest.testmod(secli.layers.dropout) == (0, 3)
