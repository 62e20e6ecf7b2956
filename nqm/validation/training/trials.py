"""Training runs as they are asked for, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .torch_optimizers import OPTIMIZERS, TorchOptimizer

__all__ = ["Outcome", "Trial", "check_trials"]


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


def check_trials(trials: Sequence[Trial], max_steps: int) -> TorchOptimizer:
    """The optimizer of all trials; a ValueError for none, for unknown names or numbers, or for more than one kind."""
    kinds = {(trial.optimizer, trial.batch_size) for trial in trials}
    if len(kinds) != 1:
        raise ValueError(f"trials: expected one optimizer and batch size for all, got {sorted(kinds)}")
    name, batch = kinds.pop()
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {name!r}")
    if not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch_size: expected a whole number of at least 1, got {batch!r}")
    if not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps: expected a whole number of at least 1, got {max_steps!r}")
    for trial in trials:
        if set(trial.hyperparameters) != set(OPTIMIZERS[name].space):
            expected = ", ".join(OPTIMIZERS[name].space)
            raise ValueError(f"{name}: expected hyperparameters {expected}, got {', '.join(trial.hyperparameters)}")
    return OPTIMIZERS[name]
