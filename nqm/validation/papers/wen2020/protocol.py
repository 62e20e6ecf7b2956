"""What all of wen2020's experiments here share: networks, regimes, batch sizes, learning rates, seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.nn import functional

from ...experiments.paper import Effort
from ...training.data import Data
from ...training.gradients.injected import Injected
from ...training.gradients.rule import PLAIN, GradientRule
from ...training.networks import cnn, lenet, mlp, resnet8
from ...training.task import Task
from ...training.trials import Trial

__all__ = [
    "COMMON_RATE",
    "FIRST_SEED",
    "LARGE",
    "NETWORKS",
    "NOISES",
    "REGIMES",
    "SMALL",
    "TITLES",
    "regime_of",
    "seeds_of",
    "settings_of",
    "task_of",
    "trial_of",
]

FIRST_SEED = 100
"""Of what is judged; settings were chosen with seeds below."""

LARGE, SMALL = 1024, 32
"""Figures 2, 3 and 5a: M_L and M_S, 32 times apart as the paper's 4096 and 128."""

COMMON_RATE = {"mlp": 0.27, "cnn": 0.13, "resnet8": 0.19}
"""Figures 2, 3 and 5a: a third of the largest rate that small batches survive. Pilot: digits, batch 32, 400 updates,
seeds 0 to 4, rates 0.05 times powers of sqrt(2); the largest at which all five end below half their first loss: 0.8,
0.4, 0.57 (at the next, 1.13, 0.57, 0.8, single runs end at 1.2, at 2.3, and diverge)."""

TITLES = {
    "mlp": "MLP-32",
    "cnn": "CNN-6",
    "resnet8": "ResNet8",
    "mnist mlp": "MNIST MLP",
    "mnist lenet": "MNIST LeNet",
}
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet8": resnet8,
    "mnist mlp": partial(mlp, (1, 28, 28), width=100),
    "mnist lenet": partial(lenet, (1, 28, 28)),
}


@dataclass(frozen=True)
class Noise:
    """Noise that is put into large batches: structure and labels of :class:`Injected`."""

    structure: str
    labels: str = "data"


NOISES = {
    "LB": Noise("none"),
    "LB + full": Noise("full"),
    "LB + true full": Noise("full", "model"),
    "LB + multiplicative": Noise("multiplicative"),
    "LB + diagonal": Noise("diagonal"),
    "LB + trace": Noise("trace"),
    "LB + K-FAC": Noise("K-FAC"),
}
REGIMES = ("SB", *NOISES)


def regime_of(name: str, large: int, small: int) -> tuple[GradientRule, int]:
    """Gradient rule and batch size of a regime."""
    if name == "SB":
        return PLAIN, small
    noise = NOISES[name]
    return Injected(noise.structure, small, noise.labels), large


def trial_of(size: int, seed: int, lr: float) -> Trial:
    """Plain SGD."""
    return Trial("SGD", size, seed, {"lr": lr})


def task_of(net: str, data: Data) -> Task:
    """A network under cross entropy, read on all examples."""
    return Task(
        NETWORKS[net], data, functional.cross_entropy, {"training loss": 0.1}, name=net, device="cpu", evaluated=None
    )


def seeds_of(effort: Effort, count: int) -> list[int]:
    """Of the judged runs."""
    first = FIRST_SEED + 1000 * effort.seed
    return list(range(first, first + count))


def settings_of(kind: str, net: str, seed: int, **others: Any) -> dict[str, Any]:
    """A job's settings."""
    return {"kind": kind, "data": "digits", "net": net, "seed": seed, **others}
