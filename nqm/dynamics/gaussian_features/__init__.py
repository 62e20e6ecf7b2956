"""Gaussian features: noise that grows with the loss, so that coordinates feel each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._checks import FloatArray, IntArray
from ...backends.types import Word
from ..additive import Additive
from ..base import Dynamics, Values
from ..words import whole_word
from .first_passage import first_passage_along
from .recursion import Recursion, Recursions
from .stability import stable_lr

__all__ = ["GaussianFeatures"]

EXPLICIT_NODES = 256
"""Explicit problems of more nodes are compressed first."""

FEW_NODES = 48
"""Rules for problems of more nodes than these have fewer, to look around with."""

FEW_STEPS = 1024.0
"""Up to so many steps ripples of the risk decide an optimum, and evaluations are cheap: look closer."""

RIPPLES_UNTIL = 2.0**15
"""Beyond so many steps ripples, some 0.7% deep, are not searched: it would take minutes."""


class GaussianFeatures(Dynamics):
    """Least squares on Gaussian features: one linear recursion of all second moments, linked by the loss."""

    follows_time = True
    limit_needs_batch_size = True
    most_nodes = 1024  # larger matrices take too long
    steps_agree = 1e-10
    line_points = 601

    def risk(self, values: Values, batch_size: Any, steps: IntArray) -> FloatArray:
        rows = self._recursions(values, batch_size, steps.size)
        return np.array([rows.recursion(r).after(int(t)) for r, t in enumerate(steps)])

    def dyadic_risk(self, values: Values, batch_size: Any, count: int, levels: int) -> FloatArray:
        rows = self._recursions(values, batch_size, count)
        out = np.empty((count, levels))
        for r in range(count):
            one = rows.recursion(r)
            state, time = one.start(), 0
            for j in range(levels):
                state, time = one.advance(state, 2**j - time), 2**j
                out[r, j] = one.risk(state)
                if np.isinf(out[r, j]):  # it has diverged for good
                    out[r, j:] = np.inf
                    break
        return out

    def risk_along(self, values: Values, batch_size: Any, count: int, word: Word, columns: int) -> FloatArray:
        rows = self._recursions(values, batch_size, count)
        out = np.zeros((count, columns))
        for r in range(count):
            state: FloatArray | None = None
            known: dict[tuple[float, float], Recursion] = {}
            for _, lr, inverse_batch_size, length, column in zip(*word, strict=True):
                letter = (float(lr), float(inverse_batch_size))
                if letter not in known:
                    known = {letter: rows.recursion(r, *letter)}  # schedules seldom come back to one
                one = known[letter]
                state = one.advance(one.start() if state is None else state, int(length))
                if column >= 0:
                    out[r, column] = one.risk(state)
        return out

    def first_passage(self, values: Values, batch_size: Any, target: FloatArray, last: bool) -> FloatArray:
        rows = self._recursions(values, batch_size, target.size)
        word, end = whole_word(None, None)
        return np.array(
            [first_passage_along(rows, r, None, word, end, float(wanted), last) for r, wanted in enumerate(target)]
        )

    def first_passage_along(
        self, values: Values, batch_size: float, word: Word, end: int, target: float, last: bool
    ) -> float:
        decay = self.optimizer.map_at(values).decay_at_zero_lr
        return first_passage_along(self._recursions(values, batch_size, 1), 0, decay, word, end, target, last)

    def steady_risk(self, values: Values, batch_size: Any, count: int) -> FloatArray:
        rows = self._recursions(values, batch_size, count)
        if rows.label_noise == 0.0 and not np.any(
            rows.row.start_weight
        ):  # at the optimum, and nothing moves it from there
            return np.zeros(count)
        recursions = (rows.recursion(r) for r in range(count))
        return np.array([one.steady(one.resolvent()) for one in recursions])

    def stability_limit(self, values: Values, batch_size: Any = None) -> Any:
        noiseless = Additive(self.problem, self.optimizer).stability_limit(values)
        return stable_lr(self.problem, self.optimizer, values, batch_size, noiseless)

    def looks_for_ripples(self, steps: float, dimensions: int) -> bool:
        return steps <= (FEW_STEPS if dimensions == 1 else RIPPLES_UNTIL)

    def risk_tolerance(self, steps: float) -> float:
        return 1e-5  # finer rules cost too much

    def rule_for_risk(self) -> GaussianFeatures:
        return self.on(self.problem._compressed_above(EXPLICIT_NODES))

    def rule_for_search(self) -> GaussianFeatures:
        return self.rule_for_risk()

    def coarse_rule(self) -> GaussianFeatures:
        if self.problem._is_exact() and self.problem.curvature.size <= FEW_NODES:
            return self
        return self.on(self.problem.compressed(1e-3))

    def _recursions(self, values: Values, batch_size: Any, count: int) -> Recursions:
        return Recursions(self.problem, self.optimizer, values, batch_size, count)
