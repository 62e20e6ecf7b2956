"""The ladder's last rung: a real network, measured, predicted, and trained for real."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from .... import NoisyQuadratic, Unresolved, risk
from ...._table import Table
from ...measurement.measure import measure
from ...measurement.prediction import STAND_INS, Predicted, predict_steps
from ...measurement.quadratic import MeasuredQuadratic
from ...search.measure_steps import measure_steps
from ...search.summary import Measured
from ...training.data import Data
from ...training.ensemble import follow
from ...training.networks import NETS
from ...training.reference import reference_point
from ...training.task import Task
from ...training.torch_optimizers import OPTIMIZERS
from ...training.trials import Trial
from .network_result import NetworkResult, ratio

__all__ = [
    "FOLLOWED",
    "FULL",
    "FURTHER",
    "LONGEST",
    "QUICK",
    "TARGETS",
    "Effort",
    "loss_of_all",
    "network",
    "network_task",
]

TARGETS = {"mlp": 0.05, "cnn": 0.1, "resnet8": 0.2}
"""Training loss to reach: what a few minutes of search on two cores can afford at the smallest batch size."""
HELD_OUT_ERROR = 0.05
FOLLOWED = ("SGD", "momentum", "SGD with EMA")  # whose loss curves are laid beside predicted ones
MOVED = ("SGD", "momentum")  # of which it is told how much hangs on the point of measuring
FURTHER, LONGEST = 1.5, 3000  # a run is followed for so many times the predicted steps, at most for so many

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Effort:
    """How much is trained: batch sizes, trials per round, seeds of the confirmation runs and of the curves, batch sizes
    at which noise that grows with the loss is predicted too, and those at which curves are followed; other shares of
    the target than a half at which the network is measured too."""

    batch_sizes: tuple[int, ...] = tuple(4 * 2**k for k in range(9))
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    trials: int = 16
    seeds: int = 5
    growing: tuple[int, ...] = (4, 16, 64, 256, 1024)
    followed: tuple[int, ...] = (4, 64, 1024)
    max_examples: int = 300_000
    elsewhere: tuple[float, ...] = (1.0, 0.25)

    def __post_init__(self) -> None:
        for name in ("growing", "followed"):
            odd = set(getattr(self, name)) - set(self.batch_sizes)
            if odd:
                raise ValueError(f"{name}: expected some of the batch sizes {self.batch_sizes}, got {sorted(odd)}")
        if not set(FOLLOWED) & set(self.optimizers):
            raise ValueError(f"optimizers: expected at least one of {', '.join(FOLLOWED)}, got {self.optimizers}")

    def search(self, seed: int) -> dict[str, Any]:
        """The settings of :func:`measure_steps`."""
        return {"trials": self.trials, "seeds": self.seeds, "seed": seed, "max_examples": self.max_examples}


FULL = Effort()
QUICK = Effort((16, 64, 256, 1024), ("SGD", "momentum", "SGD with EMA"), 6, 3, (), (16, 256), 150_000, ())


def network_task(net: str, data: Data, device: str | None = None) -> Task:
    """The named network on the data, with cross entropy and the targets of this rung."""
    if net not in TARGETS:
        raise ValueError(f"net: expected one of {', '.join(TARGETS)}, got {net!r}")
    build = partial(NETS[net], data.shape, data.classes)
    targets = {"training loss": TARGETS[net], "held-out error": HELD_OUT_ERROR}
    return Task(build, data, functional.cross_entropy, targets, name=net, device=device)


def network(
    task: Task,
    effort: Effort = FULL,
    *,
    seed: int = 0,
    results: str | PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> NetworkResult:
    """Measure the task's network where a reference run has reached half its target, predict, train, compare.

    The first target has to be a training loss. That is a loss of the examples evaluated (``Task.evaluated``); the
    quadratic, measured on all, is asked for as much more as all have where the reference run reaches the target.
    results: the results file of :func:`measure_steps`, which goes on from it. say: called with a line of text before
    each part. Raises as the functions it calls.
    """
    if next(iter(task.targets)) != "training loss":
        raise ValueError(f"targets: expected 'training loss' first, got {next(iter(task.targets))!r}")
    target = task.targets["training loss"]
    say(f"{task.name}: reference run to training loss {target / 2:g}, curvature and noise there")
    reached, point = (reference_point(task, loss, seed=seed) for loss in (target, target / 2))
    quadratic = measure(task.build(seed), task.loss, task.data, at=point, device=task.device)
    target *= loss_of_all(task, reached) / task.read(reached)["training loss"]
    say(f"{task.name}: predictions")
    predicted = predict_steps(quadratic, effort.optimizers, effort.batch_sizes, target)
    unscaled = [name for name in FOLLOWED if name in effort.optimizers]
    sizes = effort.growing if quadratic.noise_growth > 0.0 else ()
    growing = predict_steps(quadratic, unscaled, sizes, target, growing_noise=bool(sizes))
    say(f"{task.name}: loss curves at the predicted hyperparameters")
    curves = _curves(task, quadratic, predicted, effort, seed)
    moved = _moved(task, {0.5: quadratic}, effort, target, seed)
    say(f"{task.name}: search of hyperparameters")
    measured = measure_steps(
        task, effort.optimizers, effort.batch_sizes, results=results, executor=executor, progress=progress,
        **effort.search(seed),
    )  # fmt: skip
    elsewhere = _elsewhere(moved, measured) if effort.elsewhere else None
    return NetworkResult(task, quadratic, predicted, growing, measured, curves, point, results, elsewhere)


def _moved(
    task: Task, found: dict[float, MeasuredQuadratic], effort: Effort, target: float, seed: int
) -> dict[float, Predicted | None]:
    """Predictions from other points along the same reference run, by their share of the target; None where the
    quadratic's floor lies above the target. Shares that the run does not reach are left out."""
    for share in effort.elsewhere:
        try:
            point = reference_point(task, share * task.targets["training loss"], seed=seed)
        except ValueError:
            continue
        found[share] = measure(task.build(seed), task.loss, task.data, at=point, device=task.device)
    names = [name for name in MOVED if name in effort.optimizers]
    return {
        share: predict_steps(q, names, effort.followed, target) if q.floor < target and names else None
        for share, q in sorted(found.items(), reverse=True)
    }


def _elsewhere(moved: dict[float, Predicted | None], measured: Measured) -> Table | None:
    """How much hangs on the point of measuring."""
    records = []
    for share, predicted in moved.items():
        for name in (name for name in MOVED if name in measured.names):
            theirs = measured.rows(name)
            ours = None if predicted is None else predicted.rows(name)
            sizes = theirs["batch_size"].tolist() if ours is None else ours["batch_size"].tolist()
            for i, size in enumerate(sizes):
                steps = math.nan if ours is None else float(ours["steps"][i])
                median = float(theirs["median"][theirs["batch_size"] == size][0])
                records.append({"share": share, "optimizer": name, "batch_size": size, "predicted": steps,
                                "measured": median, "ratio": ratio(steps, median)})  # fmt: skip
    return Table.from_rows(records, records[0]) if records else None


def loss_of_all(task: Task, model: nn.Module) -> float:
    """Loss over all training examples."""
    data = task.data.to(next(model.parameters()).device)
    with torch.no_grad():
        return float(task.loss(model(data.x), data.y))


def _curves(task: Task, quadratic: MeasuredQuadratic, predicted: Predicted, effort: Effort, seed: int) -> Table:
    parts: list[Columns] = []
    for name in (name for name in FOLLOWED if name in effort.optimizers):
        rows = predicted.rows(name)
        for size in effort.followed:
            (place,) = np.flatnonzero(rows["batch_size"] == size)
            if math.isfinite(rows["steps"][place]):
                values = {key: float(rows[key][place]) for key in OPTIMIZERS[name].space}
                steps = min(LONGEST, math.ceil(FURTHER * rows["steps"][place]))
                trials = [Trial(name, size, seed + k, values) for k in range(effort.seeds)]
                parts.append(_curve(task, quadratic, trials, steps, float(rows["lr"][place])))
                parts[-1]["target"] = np.full(len(parts[-1]["step"]), predicted.target)
    return Table({key: np.concatenate([part[key] for part in parts]) for key in parts[0]})


def _curve(task: Task, quadratic: MeasuredQuadratic, trials: Sequence[Trial], steps: int, lr: float) -> Columns:
    read, losses = follow(task, trials, steps)
    first, stand_in = trials[0], STAND_INS[trials[0].optimizer]
    values = {**first.hyperparameters, "lr": lr}
    optimizer = stand_in.with_values(**{name: values[name] for name in stand_in.free})
    runs = np.where(np.isfinite(losses.double().numpy()), losses.double().numpy(), np.inf)

    def loss(problem: NoisyQuadratic, growth: float = 1.0) -> NDArray[np.float64]:
        return np.asarray(risk(problem, optimizer, first.batch_size / growth, read)) + quadratic.floor

    def growing_loss() -> NDArray[np.float64]:
        """NaN where noise does not grow, and where the risk is not settled: long oscillation over many eigenvalues."""
        if quadratic.noise_growth > 0.0:
            with suppress(Unresolved):
                return loss(*quadratic.with_growing_noise())
        return np.full(len(read), np.nan)

    count = len(read)
    return {
        "optimizer": np.repeat(first.optimizer, count),
        "batch_size": np.repeat(first.batch_size, count),
        "lr": np.repeat(lr, count),
        "step": np.array(read),
        "predicted": loss(quadratic),
        "predicted_growing": growing_loss(),
        "mean": runs.mean(axis=0),
        "low": runs.min(axis=0),
        "high": runs.max(axis=0),
    }
