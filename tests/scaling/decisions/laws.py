"""Laws whose answers are known, as fits, for the tests beside this file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RUNS = {"N": np.array([1e6, 1e9]), "B": np.array([32.0, 4096.0]), "K": np.array([1e3, 1e5]), "loss": np.ones(2)}


class Law:
    """A fit with a loss that is given, and one for each draw."""

    def __init__(self, *losses: Callable, runs: dict = RUNS) -> None:
        self.functions, self.runs = losses, runs

    def losses(self, N, B, K, draws=None):
        count = len(self.functions) if draws is None else min(draws + 1, len(self.functions))
        return np.stack([f(N, B, K) for f in self.functions[:count]])


def chinchilla(alpha=0.34, beta=0.28):
    return lambda N, B, K: 1.7 + 400.0 * N**-alpha + 60.0 * (B * K) ** -beta


def tradeoff(critical=300.0, amplitude=20.0):
    """Steps count as K / (1 + critical / B): (S / S_min - 1) (E / E_min - 1) = 1 at every loss."""
    return lambda N, B, K: 1.5 + 300.0 * N**-0.35 + amplitude * (K / (1.0 + critical / B)) ** -0.5


def needed(N, loss, amplitude=20.0):
    """Steps of that law as B grows without end; inf where the size is too small for the loss."""
    room = loss - 1.5 - 300.0 * N**-0.35
    return np.where(room > 0.0, (amplitude / np.maximum(room, 1e-9)) ** 2.0, np.inf)
