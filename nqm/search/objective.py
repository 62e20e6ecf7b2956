"""What tuning minimises: log risk after T steps over the coordinates of the free hyperparameters."""

from __future__ import annotations

import numpy as np

from .._checks import FloatArray
from ..backends import current_backend
from ..dynamics.base import Dynamics
from .space import HyperparameterSpace

__all__ = ["WIDE", "LogRisk"]

STENCIL = 5e-4
"""Step of the second differences: their rounding errors are 1e-9 then, and ripples, some 0.02 apart, resolved."""

WIDE, WIDEST = 0.3, 2.0
"""First trust radius of a search for the basin's minimum, and the largest it may grow to."""

ENOUGH, LEAST_ENOUGH, ENOUGH_OF_GAP = 1e-10, 1e-13, 0.05
"""A descent ends when its model promises less than 1e-10 of log risk; where there is a target, a twentieth of the
distance to it, as its sign is all that matters then, but no less than rounding."""


class LogRisk:
    """log risk over a space, at any number of steps, on one rule for the spectrum."""

    def __init__(self, space: HyperparameterSpace) -> None:
        self.space, self.nodes = space, space.dynamics
        n = space.low.size
        axes = [sign * row for row in np.eye(n) for sign in (1.0, -1.0)]
        pairs = [np.eye(n)[i] + np.eye(n)[j] for i in range(n) for j in range(i + 1, n)]
        # the stencil of the backends' newton_steps
        self.size = min(STENCIL, 0.5 * float(np.min(space.high - space.low)))
        self.offsets = np.array([np.zeros(n), *axes, *pairs])

    def log_risk(self, points: FloatArray, steps: float, nodes: Dynamics | None = None) -> FloatArray:
        """At points of shape (..., free), after ``steps`` steps: shape (...). ``nodes``: another rule than the own."""
        flat = points.reshape(-1, points.shape[-1])
        found = self.space.risks(nodes or self.nodes, self.space.values(flat), int(steps), len(flat))
        return np.log(np.maximum(found, 1e-300)).reshape(points.shape[:-1])

    def screen(self, points: FloatArray, steps: float) -> FloatArray:
        """:meth:`log_risk` on the coarsest rule: good to a thousandth or so, to see where minima are."""
        return self.log_risk(points, steps, self.space.dynamics)

    def refine(self, point: FloatArray, steps: float) -> bool:
        """Go to a finer rule where this one is too coarse to tell one T from the next; whether it was."""
        tolerance = self.nodes.risk_tolerance(steps)
        here, nodes, moved = self.log_risk(point[None, :], steps)[0], self.nodes, False
        while (finer := nodes.finer()) is not None:
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
        log_target: float | None = None,
        rounds: int = 10,
        radius: float = WIDE,
        any_will_do: bool = False,
    ) -> tuple[FloatArray, FloatArray]:
        """Local minima near ``points`` (S, free), and log risk there.

        Newton steps in a trust region; ends when the model promises too little to matter: 1e-10, or a twentieth of
        the distance to ``log_target``, where one is given; or, if ``any_will_do``, when one point has reached it.
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
            enough = (
                ENOUGH if log_target is None else np.maximum(LEAST_ENOUGH, ENOUGH_OF_GAP * np.abs(value - log_target))
            )
            there = any_will_do and log_target is not None and value.min() <= log_target
            if there or np.all(promised <= enough):
                break
            found, new_center, new_around = self._look(trial, steps)
            better = found < value
            length = np.max(np.abs(trial - best), axis=1)
            trust = np.where(better, np.minimum(3.0 * trust, WIDEST), 0.25 * length)
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
