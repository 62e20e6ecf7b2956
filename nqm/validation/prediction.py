"""What the measured quadratic says about each optimizer that is trained for real."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .. import EMA, FREE, SGD, NoisyQuadratic, Preconditioned, tune
from .functional import find_device
from .measured import MeasuredQuadratic
from .training import EXPLODED, Task

DAMPINGS = tuple(10.0**k for k in range(-5, 2))  # of K-FAC, in units of the largest curvature
RTOL = 1e-6  # of the rule that stands for thousands of eigenvalues while hyperparameters are tuned
ROUGH = 1e-3  # of that where noise grows with the loss, whose cost is cubic in the nodes

STAND_INS: dict[str, Any] = {
    "SGD": SGD(FREE),
    "momentum": SGD(FREE, FREE),
    "SGD with EMA": EMA(SGD(FREE), FREE),
    "Adam without momentum": Preconditioned(SGD(FREE), 0.5),
    "Adam": Preconditioned(SGD(FREE, FREE), 0.5),
    "K-FAC": SGD(FREE),
    "K-FAC with momentum": SGD(FREE, FREE),
}
"""The model's optimizer for each real one. Adam's preconditioner, diagonal in the parameters' basis, is taken for H^0.5
(zhang2019 section 3.3); K-FAC's for H + damping I, which :func:`damped` builds into the problem."""

COLUMNS = ("optimizer", "batch_size", "steps", "examples", "lr", "effective_lr", "momentum", "decay", "damping")


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predicted steps to target.

    table: columns of equal length, one row for each optimizer and batch size: optimizer, batch_size and examples
    (examples), steps (inf where the target is out of reach), lr, effective_lr = lr / (1 - momentum), momentum, decay,
    damping (NaN where there is none). target: the loss to reach.
    """

    table: dict[str, NDArray[Any]]
    target: float

    @property
    def names(self) -> list[str]:
        """The optimizers' names."""
        return list(dict.fromkeys(self.table["optimizer"].tolist()))

    def rows(self, optimizer: str) -> dict[str, NDArray[Any]]:
        """The rows of one optimizer; a ValueError where there is none of that name."""
        if optimizer not in self.names:
            raise ValueError(f"optimizer: expected one of {', '.join(self.names)}, got {optimizer!r}")
        here = self.table["optimizer"] == optimizer
        return {key: column[here] for key, column in self.table.items()}

    def critical_batch_size(self) -> dict[str, float]:
        """E_min / S_min of each optimizer, in examples, as ``nqm.Sweep.critical_batch_size``; NaN where no batch size
        reaches the target, or the start lies below it."""
        found = {}
        for name in self.names:
            rows = self.rows(name)
            fewest = float(rows["examples"].min()), float(rows["steps"].min())
            found[name] = fewest[0] / fewest[1] if 0.0 < fewest[0] < math.inf else math.nan
        return found

    def __str__(self) -> str:
        lines: list[tuple[str, ...]] = [COLUMNS[:6]]
        for row in zip(*(self.table[column].tolist() for column in COLUMNS[:6]), strict=True):
            lines.append(tuple(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row))
        widths = [max(len(line[i]) for line in lines) for i in range(6)]
        return "\n".join("  ".join(part.rjust(w) for part, w in zip(line, widths, strict=True)) for line in lines)

    def __repr__(self) -> str:
        return f"Predicted(target={self.target:g})\n{self}"


def reference_point(
    task: Task, loss: float, *, seed: int = 0, lr: float = 0.1, batch_size: int = 256, max_steps: int = 20_000
) -> nn.Module:
    """The network after plain SGD has brought its training loss, as :meth:`Task.read` takes it, down to ``loss``.

    Where to measure it: the quadratic that matters is the one around the loss's own minimum, not the start's, whose
    curvature is that of a network that knows nothing. One run at any learning rate well inside the stable range will
    do.

    Args:
        task: network and data; seed: of the start and the batches. lr, batch_size: of the run.
        loss: training loss at which to stop; half the target is a good choice.
        max_steps: to give up after.

    Raises ValueError where the loss is not reached in ``max_steps``, or diverges.
    """
    first = math.nan
    for step, model in _descent(task, seed, lr, batch_size, max_steps):
        if step % 10 == 0:
            now = task.read(model)["training loss"]
            first = now if step == 0 else first
            if not now <= EXPLODED * first:
                raise ValueError(f"reference_point: the run diverged at step {step}: expected a lower lr, got {lr:g}")
            if now <= loss:
                return model
    raise ValueError(
        f"reference_point: a training loss of {loss:g} is below what is reachable in {max_steps} steps of lr {lr:g}, "
        f"batch size {batch_size} (got {now:.4g}): expected a higher loss, more steps or another lr"
    )


def checkpoints(task: Task, steps: Sequence[int], *, seed: int = 0) -> dict[int, nn.Module]:
    """Copies of the network after these steps of :func:`reference_point`'s run, by step."""
    wanted = set(steps)
    if not wanted or not all(isinstance(step, int) and step >= 0 for step in wanted):
        raise ValueError(f"steps: expected whole numbers of at least 0, one or more, got {steps!r}")
    return {s: copy.deepcopy(model) for s, model in _descent(task, seed, 0.1, 256, max(wanted)) if s in wanted}


def _descent(task: Task, seed: int, lr: float, batch_size: int, steps: int) -> Iterator[tuple[int, nn.Module]]:
    """Plain SGD: the number of steps taken and the network, which goes on changing."""
    device = find_device(task.device)
    model, data = task.build(seed).to(device), task.data.to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    draw = torch.Generator().manual_seed(seed)
    yield 0, model
    for step in range(1, steps + 1):
        chosen = torch.randint(len(task.data), (batch_size,), generator=draw)
        slopes = torch.autograd.grad(task.loss(model(data.x[chosen]), data.y[chosen]), trained)
        with torch.no_grad():
            for p, slope in zip(trained, slopes, strict=True):
                p.sub_(slope, alpha=lr)
        yield step, model


def damped(problem: NoisyQuadratic, damping: float) -> NoisyQuadratic:
    """The problem as descent preconditioned by P = H + damping I sees it.

    theta' = theta - lr P^-1 (H theta + noise) is plain descent for P^1/2 theta, whose curvature is h / (h + damping),
    noise c / (h + damping) and start (h + damping) s^2; risks are the same.

    >>> problem = NoisyQuadratic([1.0, 0.1], init=2.0)
    >>> problem.initial_risk, round(damped(problem, 0.1).initial_risk, 12)
    (1.1, 1.1)
    """
    if not 0.0 <= damping < math.inf:
        raise ValueError(f"damping: expected a finite number of at least 0, got {damping}")
    p = problem.curvature + damping
    return NoisyQuadratic(problem.curvature / p, problem.noise / p, problem.init * p, problem.multiplicity)


def predict_steps(
    measured: MeasuredQuadratic,
    optimizers: Sequence[str],
    batch_sizes: Sequence[float],
    target: float,
    *,
    growing_noise: bool = False,
) -> Predicted:
    """Fewest steps to the training loss ``target`` for each optimizer at each batch size, hyperparameters tuned.

    Each optimizer is its stand-in's best (``STAND_INS``); for K-FAC the damping is the best of seven powers of ten from
    1e-5 to 10 times the largest curvature. growing_noise: noise that grows with the loss
    (:meth:`MeasuredQuadratic.with_growing_noise`) instead of the measured noise everywhere; seconds a cell, half a
    minute with momentum, and not for K-FAC.

    Raises ValueError for unknown optimizers, or a target at or below the quadratic's floor.
    """
    if isinstance(optimizers, str):
        raise TypeError(f"optimizers: expected a list of names, got {optimizers!r}")
    if not hasattr(batch_sizes, "__iter__"):
        raise TypeError(f"batch_sizes: expected a list of numbers, got {batch_sizes!r}")
    unknown = [name for name in optimizers if name not in STAND_INS]
    if unknown or not optimizers:
        raise ValueError(f"optimizers: expected some of {', '.join(STAND_INS)}, got {unknown or 'none'}")
    if growing_noise and _any_kfac(optimizers):
        raise ValueError("optimizers: expected none with K-FAC's damping where noise grows with the loss")
    risk = measured.risk_at(target)
    dampings = [d * float(measured.curvature.max()) for d in DAMPINGS]
    problem, growth = measured.with_growing_noise() if growing_noise else (measured, 1.0)
    plain = [(math.nan, problem.compressed(ROUGH if growing_noise else RTOL))]
    inverted = [(d, damped(measured, d).compressed(RTOL)) for d in dampings] if _any_kfac(optimizers) else []
    records = []
    for name in optimizers:
        for size in batch_sizes:
            best: dict[str, Any] = {"steps": math.inf}
            for damping, problem in inverted if name.startswith("K-FAC") else plain:
                found = tune(problem, STAND_INS[name], size / growth, risk)
                if found.steps < best["steps"]:
                    best = {"steps": found.steps, "damping": damping, **found.optimizer.hyperparameters}
            records.append({"optimizer": name, "batch_size": float(size), **best})
    return Predicted(_table(records), float(target))


def _any_kfac(optimizers: Sequence[str]) -> bool:
    return any(name.startswith("K-FAC") for name in optimizers)


def _table(records: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    rows = []
    for record in records:
        momentum, lr = record.get("momentum", math.nan), record.get("lr", math.nan)
        row = {
            **record,
            "examples": record["steps"] * record["batch_size"],
            "effective_lr": lr if math.isnan(momentum) else lr / (1.0 - momentum),
        }
        rows.append({name: row.get(name, math.nan) for name in COLUMNS})
    table = {name: np.array([row[name] for row in rows]) for name in COLUMNS}
    for column in table.values():
        column.flags.writeable = False
    return table
