"""What is searched when the noisy quadratic is fitted to loss curves: residuals, weights, the box and its starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from ..._checks import FloatArray, IntArray
from ..logs import LossCurve
from ..models.loss_curve_model import CurveLosses

__all__ = ["CurveResiduals"]

MAX_OBSERVATIONS: Final = 500  # of a curve; of more, groups are averaged
BLOCKS: Final = 8  # of consecutive observations in a curve, for the bootstrap


class CurveResiduals:
    """Residuals of the log loss and their Jacobian by theta over the observations of all curves; where to search.

    unit: the largest learning rate; total: steps of the longest curve; steps, weights, blocks: of each observation;
    low, high: the box; starts: the corners of a smaller one.
    """

    def __init__(self, curves: Mapping[str, LossCurve]) -> None:
        self.unit = max(float(curve.lr.max()) for curve in curves.values())
        self.total = float(max(int(curve.steps[-1]) for curve in curves.values()))
        seen = [_thinned(curve) for curve in curves.values()]
        runs = [(c.lr / self.unit, steps, c.batch_size) for c, (steps, _) in zip(curves.values(), seen, strict=True)]
        self._model = CurveLosses(runs, self.total)
        self._logs = np.log(np.concatenate([loss for _, loss in seen]))
        self.steps = np.concatenate([steps for steps, _ in seen])
        self.weights = self.steps / self.total
        self.blocks = np.concatenate([i * BLOCKS + _blocks((s / self.total) ** 2) for i, (s, _) in enumerate(seen)])
        least, batch = float(np.exp(self._logs.min())), runs[0][2]
        noise = least * batch
        # E and the logarithms of A, a, Q, R, K. Q <= 1: no step passes the minimum; near 2 lie optima of another kind
        self.low = np.array([0.0, *np.log([1e-4 * least, 0.05, 1e-6, 1e-6 * least * batch, 1e-6])])
        self.high = np.array([0.999 * least, *np.log([1e2 * least, 3.0, 1.0, 1e2 * least * batch, 50.0])])
        self.starts = (
            np.array([0.6 * least, *np.log([0.02 * least, 0.3, 1e-3, 1e-3 * noise, 0.5])]),
            np.array([0.95 * least, *np.log([0.3 * least, 0.8, 0.3, 0.1 * noise, 10.0])]),
        )

    def __call__(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        found, slopes = self._model.jacobian(theta)
        return np.log(found) - self._logs, slopes / found[:, None]


def _thinned(curve: LossCurve) -> tuple[IntArray, FloatArray]:
    """Steps and losses of a curve; of more than MAX_OBSERVATIONS, middle step and mean loss of each of some groups."""
    groups = min(curve.steps.size, MAX_OBSERVATIONS)
    edges = np.arange(groups + 1) * curve.steps.size // groups
    means = np.add.reduceat(curve.loss, edges[:-1]) / np.diff(edges)
    return curve.steps[(edges[:-1] + edges[1:]) // 2], means


def _blocks(weights: FloatArray) -> IntArray:
    """The block, 0 to BLOCKS - 1, of each of consecutive observations: blocks of equal weight."""
    middle = np.cumsum(weights) - 0.5 * weights
    return np.asarray(middle / weights.sum() * BLOCKS, dtype=np.int64)
