"""What the measured quadratic says about each optimizer that is trained for real."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ... import EMA, FREE, SGD, NoisyQuadratic, Preconditioned, Unresolved, tune
from ..._statistics import critical_batch_size
from ..._table import Table
from .quadratic import MeasuredQuadratic

__all__ = ["DAMPINGS", "STAND_INS", "Predicted", "damped", "predict_steps"]

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

KFAC = ("K-FAC", "K-FAC with momentum")
COLUMNS = ("optimizer", "batch_size", "steps", "examples", "lr", "effective_lr", "momentum", "decay", "damping")


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predicted steps to target.

    table: columns of equal length, one row for each optimizer and batch size: optimizer, batch_size and examples
    (examples), steps (inf where the target is out of reach, NaN where the model does not tell), lr, effective_lr =
    lr / (1 - momentum), momentum, decay, damping (NaN where there is none). target: the loss to reach.
    """

    table: Table
    target: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", Table(self.table))

    @property
    def names(self) -> list[str]:
        """The optimizers' names."""
        return self.table.distinct("optimizer")

    def rows(self, optimizer: str) -> Table:
        """The rows of one optimizer; a ValueError where there is none of that name."""
        if optimizer not in self.names:
            raise ValueError(f"optimizer: expected one of {', '.join(self.names)}, got {optimizer!r}")
        return self.table.select(optimizer=optimizer)

    def critical_batch_size(self) -> dict[str, float]:
        """E_min / S_min of each optimizer, in examples, as ``nqm.Sweep.critical_batch_size``; NaN where no batch size
        reaches the target, or the start lies below it."""
        each = {name: self.rows(name) for name in self.names}
        return {name: critical_batch_size(rows["batch_size"], rows["steps"]) for name, rows in each.items()}

    def __str__(self) -> str:
        return self.table.to_string(COLUMNS[:6], number="{:.4g}".format)

    def __repr__(self) -> str:
        return f"Predicted(target={self.target:g})\n{self}"


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
    (:meth:`MeasuredQuadratic.with_growing_noise`) instead of the measured noise everywhere; seconds per cell, half a
    minute with momentum, and not for K-FAC. Steps are NaN there where no risk is settled (:class:`nqm.Unresolved`), as
    with long momentum over tens of thousands of eigenvalues.

    Raises ValueError for unknown optimizers, or a target at or below the quadratic's floor.
    """
    _check_asked(optimizers, batch_sizes, growing_noise)
    risk = measured.risk_at(target)
    problem, growth = measured.with_growing_noise() if growing_noise else (measured, 1.0)
    plain = [(math.nan, problem.compressed(ROUGH if growing_noise else RTOL))]
    inverted = list(_damped_problems(measured)) if _any_kfac(optimizers) else []
    records = []
    for name in optimizers:
        seen = inverted if name in KFAC else plain
        for size in batch_sizes:
            try:
                best = _best(name, seen, size / growth, risk)
            except Unresolved:
                if not growing_noise:
                    raise
                best = {"steps": math.nan}
            records.append({"optimizer": name, "batch_size": float(size), **best})
    return Predicted(_table(records), float(target))


def _check_asked(optimizers: Any, batch_sizes: Any, growing_noise: bool) -> None:
    if isinstance(optimizers, str):
        raise TypeError(f"optimizers: expected a list of names, got {optimizers!r}")
    if not hasattr(batch_sizes, "__iter__"):
        raise TypeError(f"batch_sizes: expected a list of numbers, got {batch_sizes!r}")
    unknown = [name for name in optimizers if name not in STAND_INS]
    if unknown or not optimizers:
        raise ValueError(f"optimizers: expected some of {', '.join(STAND_INS)}, got {unknown or 'none'}")
    if growing_noise and _any_kfac(optimizers):
        raise ValueError("optimizers: expected none with K-FAC's damping where noise grows with the loss")


def _any_kfac(optimizers: Sequence[str]) -> bool:
    return any(name in KFAC for name in optimizers)


def _damped_problems(measured: MeasuredQuadratic) -> Iterator[tuple[float, NoisyQuadratic]]:
    """Each damping of K-FAC that is tried, and the problem as it sees it."""
    for share in DAMPINGS:
        damping = share * float(measured.curvature.max())
        yield damping, damped(measured, damping).compressed(RTOL)


def _best(name: str, seen: Sequence[tuple[float, NoisyQuadratic]], batch_size: float, risk: float) -> dict[str, Any]:
    """Steps and hyperparameters of the stand-in on whichever of the problems, given by damping, takes fewest; the first
    among equals, and steps alone, inf, where none reaches the risk."""
    best: dict[str, Any] = {"steps": math.inf}
    for damping, problem in seen:
        found = tune(problem, STAND_INS[name], batch_size, risk)
        if found.steps < best["steps"]:
            best = {"steps": found.steps, "damping": damping, **found.optimizer.hyperparameters}
    return best


def _table(records: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for record in records:
        momentum, lr = record.get("momentum", math.nan), record.get("lr", math.nan)
        effective_lr = lr if math.isnan(momentum) else lr / (1.0 - momentum)
        rows.append({**record, "examples": record["steps"] * record["batch_size"], "effective_lr": effective_lr})
    return Table.from_rows(rows, COLUMNS)
