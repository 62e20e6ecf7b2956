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
