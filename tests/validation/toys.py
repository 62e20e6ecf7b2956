"""Networks, data and tables small enough for tests that take seconds."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nqm.validation import Data, Task

TARGETS = {"training loss": 0.5, "held-out error": 0.3}


def toy_net(seed: int = 0, between: type[nn.Module] = nn.Tanh) -> nn.Module:
    """53 parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), between(), nn.Linear(5, 3))


def unbounded_net(seed: int = 0) -> nn.Module:
    """Linear in its inputs, so that large parameters overflow."""
    return toy_net(seed, nn.Identity)


def toy_data(n: int = 60) -> Data:
    """Three classes that a line parts but for some noise."""
    make = torch.Generator().manual_seed(1)
    x, held = (torch.randn(n, 6, generator=make) for _ in range(2))
    labels = [(part[:, :3] + 0.3 * torch.randn(n, 3, generator=make)).argmax(1) for part in (x, held)]
    return Data("toy", x, labels[0], held, labels[1])


def toy_task(**options) -> Task:
    return Task(**{"net": toy_net, "data": toy_data(), "loss": F.cross_entropy, "targets": TARGETS,
                   "name": "toy", "device": "cpu", **options})  # fmt: skip


def drawn_net(seed: int = 0) -> nn.Module:
    """53 parameters, the same on any machine and with any version of torch."""
    net = toy_net()
    with torch.no_grad():
        for p in net.parameters():
            place = torch.arange(p.numel(), dtype=torch.float64).reshape(p.shape)
            p.copy_(((37 * place + 11 * seed) % 64 - 32) / 64)
    return net


def drawn_task() -> Task:
    """Training to a loss and an error, of which nothing is random but batches."""
    place = torch.arange(360, dtype=torch.float64).reshape(60, 6)
    x = (((29 * place) % 101 - 50) / 32).float()
    data = Data("drawn", x, x[:, :3].argmax(1), x.flip(0), x.flip(0)[:, :3].argmax(1))
    return Task(drawn_net, data, F.cross_entropy, TARGETS, name="drawn", device="cpu")
