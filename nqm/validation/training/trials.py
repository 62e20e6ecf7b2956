"""Training runs as they are asked for, and what became of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .torch_optimizers import OPTIMIZERS, TorchOptimizer

__all__ = ["Outcome", "Trial", "check_trials"]

MOST = 2**63  # above what torch takes for a seed


@dataclass(frozen=True)
class Trial:
    """One training run: optimizer (a name in ``OPTIMIZERS``), examples per step, seed of weights and batches, and the
    optimizer's hyperparameters."""

    optimizer: str
    batch_size: int
    seed: int
    hyperparameters: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    status: "reached" (every target), "diverged" (loss NaN, infinite or ten times what it was before the first step),
    "overtaken" (others had reached every target), "too slow" (not within the steps allowed). steps: for each metric the
    steps to its target, inf if it was not reached. trained: steps taken.
    """

    trial: Trial
    status: str
    steps: dict[str, float]
    trained: int


def check_trials(trials: Sequence[Trial], max_steps: int, called: str = "max_steps") -> TorchOptimizer:
    """The optimizer of all trials; a TypeError or ValueError for none, for unknown names or numbers that cannot be
    trained with, or for more than one kind. called: what the steps are called."""
    if not isinstance(trials, Sequence) or not all(isinstance(trial, Trial) for trial in trials):
        raise TypeError(f"trials: expected a list of Trial, got {trials!r:.200}")
    kinds = list(dict.fromkeys((trial.optimizer, trial.batch_size) for trial in trials))
    if len(kinds) != 1:
        raise ValueError(f"trials: expected one optimizer and batch size for all, got {kinds}")
    name, batch = kinds[0]
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {name!r}")
    _check_whole(batch, "batch_size", 1)
    _check_whole(max_steps, called, 1)
    for trial in trials:
        _check_whole(trial.seed, "seed", 0)
        _check_hyperparameters(trial)
    return OPTIMIZERS[name]


def _check_whole(value: Any, name: str, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value < MOST:
        raise ValueError(f"{name}: expected a whole number of at least {low}, got {value!r:.200}")


def _check_hyperparameters(trial: Trial) -> None:
    expected = OPTIMIZERS[trial.optimizer].space
    if set(trial.hyperparameters) != set(expected):
        raise ValueError(
            f"{trial.optimizer}: expected hyperparameters {', '.join(expected)}, got {', '.join(trial.hyperparameters)}"
        )
    for name, value in trial.hyperparameters.items():
        number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not number or not 0.0 <= value < math.inf:
            raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r:.200}")
