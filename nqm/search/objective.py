"""The landscape that tuning walks in: coordinates for hyperparameters, and log risk over them.

The learning rate is the logit of lr / max_stable_lr, momentum and decay are -log(1 - value): coordinates in which the
landscape is about as wide everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _checks
from .._checks import FloatArray, IntArray
from .._risk import engine, split, stable_lr
from ..backends import current_backend
from ..dynamics import additive
from ..optimizers import FREE, Optimizer
from ..problems.quadratic import NoisyQuadratic
from ..schedules import Schedule


class Space:
    """Coordinates of the free hyperparameters of one optimizer on one problem.

    lr: u = log(lr / (limit - lr)) with the stability limit of the momentum at hand, or log lr inside given bounds.
    momentum, decay: u = -log(1 - value) >= 0.
    """

    def __init__(
        self,
        problem: NoisyQuadratic,
        optimizer: Optimizer,
        bounds: Mapping[str, tuple[float, float]] | None,
        batch: float | Schedule,
    ) -> None:
        self.problem, self.optimizer, self.batch = problem, optimizer, batch
        self.names = optimizer.free
        self.schedule, values = split(optimizer)
        self.fixed = {k: v for k, v in values.items() if v is not FREE}
        self.bounds = _checked_bounds({} if bounds is None else bounds, self.names)
        ranges = [self._range(name) for name in self.names]
        self.low = np.array([low for low, _ in ranges])
        self.high = np.array([high for _, high in ranges])

    def _range(self, name: str) -> tuple[float, float]:
        if name == "lr" and name not in self.bounds:
            limit = np.min(self.optimizer.stability_limit({**self.fixed, "momentum": self.fixed.get("momentum", 0.0)}))
            if not 0.0 < limit < math.inf:
                raise ValueError(
                    f'bounds: expected {{"lr": (low, high)}} for {self.optimizer}, which is '
                    f"{'never' if limit == 0.0 else 'always'} stable"
                )
        if name in self.bounds:
            low, high = self.bounds[name]
            return (math.log(low), math.log(high)) if name == "lr" else (-math.log1p(-low), -math.log1p(-high))
        return (-36.0, 18.0) if name == "lr" else (0.0, -math.log(1e-8))

    def values(self, points: FloatArray) -> dict[str, Any]:
        """Hyperparameters at points of shape (rows, free)."""
        values: dict[str, Any] = dict(self.fixed)
        for column, name in enumerate(self.names):
            u = points[:, column]
            if name == "lr":
                values[name] = u  # needs the momentum first
            else:
                values[name] = -np.expm1(-u)
                if name in self.bounds:
                    values[name] = np.clip(values[name], *self.bounds[name])
        if "lr" in self.names:
            u = values["lr"]
            limit = 1.0 if "lr" in self.bounds else self._limit(values)
            values["lr"] = np.clip(np.exp(u), *self.bounds["lr"]) if "lr" in self.bounds else limit / (1.0 + np.exp(-u))
        return values

    def _limit(self, values: Mapping[str, Any]) -> Any:
        """The stability limit; with noise that grows with the loss that of the largest batch."""
        largest = float(self.batch.values.max()) if isinstance(self.batch, Schedule) else self.batch
        return stable_lr(self.problem, self.optimizer, {k: v for k, v in values.items() if k != "lr"}, largest)

    def optimizer_at(self, point: FloatArray) -> Any:
        """The optimizer, of its own type, with the numbers of a point."""
        values = self.values(point[None, :])
        return self.optimizer.with_values(**{name: float(values[name][0]) for name in self.names})

    def risks(
        self, nodes: NoisyQuadratic, values: Mapping[str, Any], batch: float | Schedule, steps: int, count: int
    ) -> FloatArray:
        """Risk after ``steps`` steps, one a row of values: (count,)."""
        if self.schedule is None and not isinstance(batch, Schedule):
            return engine(nodes).risk(nodes, self.optimizer, values, batch, np.full(count, steps))
        return self._along(nodes, values, batch, np.array([steps]), count)[:, 0]

    def dyadic_risks(self, values: Mapping[str, Any], batch: float | Schedule, levels: int, count: int) -> FloatArray:
        """Risk after 2^j steps, on the coarsest rule: (count, levels)."""
        if self.schedule is None and not isinstance(batch, Schedule):
            return engine(self.problem).dyadic_risk(self.problem, self.optimizer, values, batch, count, levels)
        return self._along(self.problem, values, batch, 2 ** np.arange(levels), count)

    def _along(
        self, nodes: NoisyQuadratic, values: Mapping[str, Any], batch: float | Schedule, times: IntArray, count: int
    ) -> FloatArray:
        size, ramp = (1.0, batch) if isinstance(batch, Schedule) else (batch, None)
        parts = additive.pieces(self.schedule, ramp, times)
        return engine(nodes).chained_risk(nodes, self.optimizer, values, size, count, parts, times.size)

    def without(self, name: str) -> Space:
        """The space with ``name`` fixed at its least value."""
        least = self.bounds[name][0] if name in self.bounds else 0.0
        bounds = {k: v for k, v in self.bounds.items() if k != name}
        return Space(self.problem, self.optimizer.with_values(**{name: least}), bounds, self.batch)


def _checked_bounds(
    bounds: Mapping[str, tuple[float, float]], names: tuple[str, ...]
) -> dict[str, tuple[float, float]]:
    _checks.instance(bounds, Mapping, "bounds", 'a dict such as {"lr": (1e-3, 1.0)}')
    checked = {}
    for name, pair in bounds.items():
        if name not in names:
            raise ValueError(f"bounds: expected names of free hyperparameters ({', '.join(names)}), got {name!r}")
        limits = {"low": 0.0} if name == "lr" else {"low": 0.0, "high": 1.0, "closed": "low"}
        array = _checks.reals(pair, f"bounds[{name!r}]", ndim=1, **limits)
        if array.shape != (2,) or not array[0] < array[1]:
            raise ValueError(f"bounds[{name!r}]: expected (low, high) with low < high, got {_checks.describe(pair)}")
        checked[name] = (float(array[0]), float(array[1]))
    return checked


class Landscape:
    """log risk over a space, at any number of steps, on one rule for the spectrum."""

    def __init__(self, space: Space, batch: float | Schedule) -> None:
        self.space, self.batch, self.nodes = space, batch, space.problem
        n = space.low.size
        axes = [sign * row for row in np.eye(n) for sign in (1.0, -1.0)]
        pairs = [np.eye(n)[i] + np.eye(n)[j] for i in range(n) for j in range(i + 1, n)]
        # the stencil of the backends' newton_steps
        self.size = min(5e-4, 0.5 * float(np.min(space.high - space.low)))
        self.offsets = np.array([np.zeros(n), *axes, *pairs])

    def log_risk(self, points: FloatArray, steps: float, nodes: NoisyQuadratic | None = None) -> FloatArray:
        """At points of shape (..., free), after ``steps`` steps: shape (...). ``nodes``: another rule than the own."""
        flat = points.reshape(-1, points.shape[-1])
        found = self.space.risks(nodes or self.nodes, self.space.values(flat), self.batch, int(steps), len(flat))
        return np.log(np.maximum(found, 1e-300)).reshape(points.shape[:-1])

    def screen(self, points: FloatArray, steps: float) -> FloatArray:
        """:meth:`log_risk` on the coarsest rule: good to a thousandth or so, to see where minima are."""
        return self.log_risk(points, steps, self.space.problem)

    def refine(self, point: FloatArray, steps: float) -> bool:
        """Go to a finer rule where this one is too coarse to tell one T from the next; whether it was.

        Where coordinates feel each other, finer rules cost too much to tell apart more than 1e-5 of the risk.
        """
        tolerance = min(1e-5, 0.02 / steps) if self.nodes.label_noise is None else 1e-5
        here, nodes, moved = self.log_risk(point[None, :], steps)[0], self.nodes, False
        while (finer := nodes._finer()) is not None:
            self.nodes = finer
            there = self.log_risk(point[None, :], steps)[0]
            if abs(here - there) <= tolerance:
                break
            here, nodes, moved = there, finer, True
        self.nodes = nodes
        return moved

    def minimise(
        self,
        points: FloatArray,
        steps: float,
        goal: float | None = None,
        rounds: int = 10,
        radius: float = 0.3,
        any_will_do: bool = False,
    ) -> tuple[FloatArray, FloatArray]:
        """Local minima near ``points`` (S, free), and log risk there.

        Newton steps in a trust region; ends when the model promises too little to matter: 1e-10, or a twentieth of
        the distance to ``goal``, where one is given; or, if ``any_will_do``, when one point has reached it.
        """
        low, high, size = self.space.low, self.space.high, np.full(len(points), self.size)
        trust, backend = np.full(len(points), radius), current_backend()
        best = points
        value, center, around = self._look(points, steps)
        for _ in range(rounds):
            trial, promised = backend.newton_steps(around, center, size, trust, low, high)
            with np.errstate(invalid="ignore"):  # a diverged start is left where it is
                promised -= around[:, 0] - value  # from the point, not the stencil's centre
            promised[np.isnan(promised)] = 0.0
            enough = 1e-10 if goal is None else np.maximum(1e-13, 0.05 * np.abs(value - goal))
            if np.all(promised <= enough) or (any_will_do and goal is not None and value.min() <= goal):
                break
            found, new_center, new_around = self._look(trial, steps)
            better = found < value
            length = np.max(np.abs(trial - best), axis=1)
            trust = np.where(better, np.minimum(3.0 * trust, 2.0), 0.25 * length)
            pick = better[:, None]
            best, value = np.where(pick, trial, best), np.where(better, found, value)
            center, around = np.where(pick, new_center, center), np.where(pick, new_around, around)
        return best, value

    def _look(self, points: FloatArray, steps: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Value at each point, and centre and values of a stencil at it, shifted where needed off the bounds."""
        center = np.clip(points, self.space.low + self.size, self.space.high - self.size)
        rows = np.concatenate([center[:, None, :] + self.size * self.offsets, points[:, None, :]], axis=1)
        found = self.log_risk(rows, steps)
        return found[:, -1], center, np.ascontiguousarray(found[:, :-1])
