"""The networks: for which inputs they are, how large, and what results files know them by."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nqm.validation import NETS, cnn, lenet, load_data, mlp, network_task, resnet8


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_lenet():
    assert count(lenet()) == 61_706
    for shape in ((1, 28, 28), (3, 32, 32), (1, 12, 12), (2, 13, 30)):
        assert lenet(shape, 7)(torch.zeros(2, *shape)).shape == (2, 7)
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lenet(seed=3)(x), lenet(seed=3)(x))
    assert not torch.equal(lenet(seed=3)(x), lenet(seed=4)(x))
    data = load_data()
    with pytest.raises(ValueError, match="net: expected one of mlp, cnn, resnet8, got 'lenet'"):
        network_task("lenet", data)  # which has no target there
    assert NETS["lenet"] is lenet


def test_mlp_of_any_shape_and_depth():
    assert count(mlp()) == 2_410
    assert repr(mlp(width=(32,))) == repr(mlp())
    assert all(torch.equal(a, b) for a, b in zip(mlp().parameters(), mlp(width=[32]).parameters(), strict=True))
    for shape in ((6,), (1, 40), (3, 4, 5)):
        assert mlp(shape, 4)(torch.zeros(2, *shape)).shape == (2, 4)
    deep = mlp((1, 40), 10, (100, 50))
    assert [tuple(p.shape) for p in deep.parameters() if p.ndim == 2] == [(100, 40), (50, 100), (10, 50)]
    assert count(mlp((6,), 3, ())) == 21  # softmax regression


REPRS = {
    mlp: "Flatten Linear ReLU Linear",
    cnn: "Conv2d ReLU MaxPool2d Conv2d ReLU MaxPool2d Flatten Linear ReLU Linear",
    resnet8: "Conv2d Sequential Linear",
}


@pytest.mark.parametrize("net", REPRS)
def test_results_files_know_the_networks(net):
    assert " ".join(type(part).__name__ for part in net().children()) == REPRS[net]


@pytest.mark.parametrize(("net", "shape"), [
    (cnn, (1, 40)), (resnet8, (1, 40)), (lenet, (1, 40)), (lenet, (1, 8, 8)), (cnn, (1, 3, 8)), (lenet, (1, 28, 11)),
])  # fmt: skip
def test_inputs_that_do_not_fit_a_network(net, shape):
    with pytest.raises(ValueError, match=r"shape: expected images \(channels, height, width\) of at least"):
        net(shape)
