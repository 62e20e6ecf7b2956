"""What the search for a schedule minimises: log risk after T steps, over the log learning rates of all pieces."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._checks import FloatArray
from ..backends.types import RiskGradient
from ..dynamics.additive import Additive
from ..optimizers import FREE, Optimizer
from ..problems.quadratic import NoisyQuadratic
from ..schedules import Schedule
from .schedule_layout import Layout, Pieces, Profile, best_batch_sizes

__all__ = ["LEAST", "ScheduleObjective"]

ROOM = 40.0  # how far below the bound a log learning rate may go
LEAST, MOST = 1e-6, 18.0  # how near to the ends of what is searched, and how far, hyperparameters other than lr may go
DIVERGED = 1e10  # stands for the log of a risk that is none


class ScheduleObjective:
    """log risk after T steps over the variables of one question: log(lr / limit) of each piece (of the peak, where
    there is a shape), and the other hyperparameters on the lines that they describe."""

    def __init__(
        self,
        dynamics: Additive,
        batch_size: float,
        batch_schedule: Schedule | None,
        examples: float | None,
        max_lr: float | str | None,
        weights: FloatArray | int,
        shape: Callable[[float, int], Schedule] | None,
    ) -> None:
        self.dynamics: Additive = dynamics
        self.nodes: Additive = dynamics.rule_for_search()
        self.batch_size, self.batch_schedule, self.examples = batch_size, batch_schedule, examples
        self.max_lr = max_lr
        self.profile = None if shape is None else Profile(shape)
        self.farthest = 2.0**40  # steps of which an answer "unreachable" tells
        hyperparameters = self.optimizer.hyperparameters
        self.names = tuple(name for name in self.optimizer.free if name != "lr")
        self.fixed = {k: v for k, v in hyperparameters.items() if v is not FREE and k != "lr"}
        self.described = [self.optimizer.described[name] for name in self.names]
        self.given_lr = None if hyperparameters["lr"] is FREE else hyperparameters["lr"]
        self.given = [s for s in (self.given_lr, batch_schedule) if isinstance(s, Schedule)]
        # Where the largest stable learning rate lies, for momentum 0, relative to the bound.
        stable = float(np.asarray(dynamics.stability_limit({**self.fixed, **self.neutral()})))
        self.stable = math.log(stable / max_lr) if isinstance(max_lr, float) and 0.0 < stable < math.inf else 0.0
        self.bounded = max_lr is not None and self.stable > -1e-9
        self.stable = min(self.stable, 0.0)
        self._take(Pieces(weights, self.given))

    def _take(self, pieces: Pieces) -> None:
        """Set the pieces, and the box of the variables with them."""
        self.pieces = pieces
        self.rates_free = 0 if self.given_lr is not None else pieces.count if self.profile is None else 1
        self.size = self.rates_free + len(self.names)
        self.high = np.zeros(self.size)
        self.low = np.full(self.size, self.stable - ROOM)
        if self.max_lr is None:
            self.high[: self.rates_free] = ROOM
        for i, one in enumerate(self.described, self.rates_free):
            self.low[i], self.high[i] = one.search[0] + LEAST, min(one.search[1] - LEAST, MOST)

    @property
    def problem(self) -> NoisyQuadratic:
        return self.dynamics.problem

    @property
    def optimizer(self) -> Optimizer:
        return self.dynamics.optimizer

    @property
    def most_steps(self) -> float:
        """Steps at most: one per example."""
        return 2.0**52 if self.examples is None else float(math.floor(self.examples))

    def levels(self) -> list[ScheduleObjective]:
        """The same question with each number of pieces that divides this one, itself last."""
        if self.rates_free < 2:
            return [self]
        coarser = []
        for pieces in self.pieces.coarser():
            one = copy.copy(self)
            one._take(pieces)
            coarser.append(one)
        return [*coarser, self]

    def cut(self, found: dict[ScheduleObjective, tuple[FloatArray, float]]) -> list[tuple[FloatArray, float]]:
        """What was found for fewer pieces that these divide, as points of this objective, on as fine a rule."""
        cut = []
        for coarse, (point, steps) in found.items():
            self.nodes = coarse.nodes
            if self.pieces.count % coarse.pieces.count == 0:
                rates = np.repeat(point[: coarse.rates_free], self.pieces.count // coarse.pieces.count)
                cut.append((np.append(rates, point[coarse.rates_free :]), steps))
        return cut

    def check_steps(self, steps: int) -> None:
        """Refuse so many steps where pieces, given schedules or examples do not suffice."""
        self.pieces.check(steps)
        if self.examples is not None and self.examples < steps:
            raise ValueError(f"examples: expected at least one for each of the {steps} steps, got {self.examples:g}")

    # --- variables ----------------------------------------------------------------------------------------------------

    def middle(self) -> FloatArray:
        """A point somewhere inside."""
        return np.repeat([-1.0, 0.5], [self.rates_free, len(self.names)])

    def values(self, point: FloatArray) -> dict[str, Any]:
        """All hyperparameters but lr at a point, as numbers."""
        free = zip(self.described, point[self.rates_free :], strict=True)
        return {**self.fixed, **{one.name: float(one.from_line(u)) for one, u in free}}

    def neutral(self) -> dict[str, float]:
        """What is free beside lr, where it does nothing."""
        return {one.name: one.neutral for one in self.described}

    def limit(self, values: dict[str, Any]) -> float:
        """The learning rate that the variables are relative to."""
        if isinstance(self.max_lr, (int, float)):
            return float(self.max_lr)
        return float(np.asarray(self.dynamics.stability_limit(values)))

    def rates(self, point: FloatArray, steps: float) -> FloatArray:
        """Learning rates of the parts of the pieces."""
        layout = self.pieces.layout(steps)
        if isinstance(self.given_lr, Schedule):
            return np.asarray(self.given_lr(layout.begins))
        if self.given_lr is not None:
            return np.full(layout.parts.size, self.given_lr)
        factors = np.exp(point[: self.rates_free])
        if self.profile is not None:
            factors = factors[0] * self.profile(layout.lengths)
        return np.asarray(self.limit(self.values(point)) * factors[layout.piece_of_part])

    def inverse_batch_sizes(self, values: dict[str, Any], rates: FloatArray, layout: Layout) -> FloatArray:
        """Of the parts; where they are free, those of least risk at these learning rates."""
        if self.examples is not None:
            shares = self._risk_and_gradient(values, rates, np.ones(rates.size), layout).by_log_inverse_batch_size
            of_pieces = np.bincount(layout.piece_of_part, shares, self.pieces.count).astype(float)
            sizes = best_batch_sizes(self.examples, of_pieces, layout.lengths)
            return np.asarray(1.0 / sizes[layout.piece_of_part])
        if self.batch_schedule is None:
            return np.full(rates.size, 1.0 / self.batch_size)
        return 1.0 / np.asarray(self.batch_schedule(layout.begins))

    # --- the objective ------------------------------------------------------------------------------------------------

    def value(self, point: FloatArray, steps: float) -> tuple[float, FloatArray]:
        """log risk and its gradient at a point; DIVERGED and 0 where it has."""
        if steps > self.most_steps:
            return DIVERGED, np.zeros(self.size)
        values, rates, layout = self.values(point), self.rates(point, steps), self.pieces.layout(steps)
        found = self._risk_and_gradient(values, rates, self.inverse_batch_sizes(values, rates, layout), layout)
        gradient = np.zeros(self.size)
        if not (0.0 < found.risk < math.inf and np.all(np.isfinite(found.by_log_lr))):
            return DIVERGED, gradient
        by_lr = np.bincount(layout.piece_of_part, found.by_log_lr, self.pieces.count) / found.risk
        if self.given_lr is None:
            gradient[: self.rates_free] = by_lr if self.profile is None else by_lr.sum()
        for i, one in enumerate(self.described, self.rates_free):
            name, slope = one.name, one.slope(values[one.name])
            gradient[i] = slope * found.by_value[i - self.rates_free] / found.risk
            if self.given_lr is None and not isinstance(self.max_lr, float):  # the limit moves too
                span = 2e-5 * one.span(values[name])
                ends = [self.limit({**values, name: values[name] + sign * span}) for sign in (0.5, -0.5)]
                gradient[i] += slope * float(by_lr.sum()) * math.log(ends[0] / ends[1]) / span
        return math.log(found.risk), gradient

    def rough(self, steps: float) -> bool:
        """Whether it has cliffs and many minima: without bounds and with a few steps per piece."""
        return not self.bounded and steps < 4 * self.rates_free

    def refine(self, point: FloatArray, steps: float) -> bool:
        """Go to a finer rule for the spectrum where this one is too coarse to tell one T from the next."""
        tolerance, moved = min(1e-6, 0.02 / steps), False
        while (finer := self.nodes.finer()) is not None:
            here, nodes = self.value(point, steps)[0], self.nodes
            self.nodes = finer
            if abs(self.value(point, steps)[0] - here) <= tolerance:
                self.nodes = nodes
                break
            moved = True
        return moved

    def _risk_and_gradient(
        self, values: dict[str, Any], rates: FloatArray, inverse_batch_sizes: FloatArray, layout: Layout
    ) -> RiskGradient:
        values = {**values, "lr": 1.0}
        return self.nodes.risk_and_gradient(values, self.names, rates, inverse_batch_sizes, layout.parts)
