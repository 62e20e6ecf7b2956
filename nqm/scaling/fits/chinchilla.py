"""The scaling law that everybody knows, as the baseline: loss as a sum of powers of model size and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from ... import _checks
from ..._checks import FloatArray
from .bootstrap import stretch
from .loss_law import DRAWS, LossLaw, checked_runs

__all__ = ["ChinchillaFit", "chinchilla"]

HUBER: Final = 1e-3  # of a log residual, as in the paper
STARTS: Final = tuple(product((0.2, 0.7), (0.1, 0.4), (0.2, 0.6), (0.1, 0.4), (0.2, 0.6)))
"""E and the two terms at the middle of the data, as shares of the median loss, with alpha, beta: each at two levels."""
LOW: Final = np.array([-20.0, -20.0, 1e-3, -20.0, 1e-3])
HIGH: Final = np.array([5.0, 5.0, 4.0, 5.0, 4.0])


@dataclass(frozen=True, eq=False, repr=False)
class ChinchillaFit(LossLaw):
    """What :func:`chinchilla` found.

    runs: N, B, K, loss, as fitted. seed: of the bootstrap. theta: log E, log A, alpha, log D, beta. cost: sum of
    Huber's function of the log residuals, delta 1e-3. agreeing, starts: how many of the starts ended at this cost.
    """

    runs: Mapping[str, FloatArray]
    seed: int
    theta: FloatArray
    cost: float
    agreeing: int
    starts: int
    count = 5

    @property
    def parameters(self) -> dict[str, float]:
        """E, A, alpha, D, beta."""
        values = np.where([True, True, False, True, False], np.exp(self.theta), self.theta)
        return dict(zip(("E", "A", "alpha", "D", "beta"), values.tolist(), strict=True))

    def losses(self, N: ArrayLike, B: ArrayLike, K: ArrayLike, draws: int | None = None) -> FloatArray:
        theta = self.theta[None] if draws == 0 else np.concatenate([self.theta[None], self.draws[:draws]])
        n, d = np.broadcast_arrays(np.log(N), np.log(B) + np.log(K))
        e, a, alpha, b, beta = theta.T.reshape(5, -1, *([1] * n.ndim))
        return np.asarray(np.exp(e) + np.exp(a - alpha * n) + np.exp(b - beta * d))

    @cached_property
    def draws(self) -> FloatArray:
        """Log E, log A, alpha, log D, beta of 100 bootstrap draws, (100, 5): the Bayesian bootstrap (Rubin 1981).

        Every run gets a weight drawn from Exp(1), and the law is fitted again. The draws' distances from the fit are
        stretched by sqrt(n / (n - 5)), for the 5 parameters that the n runs have already been bent to. Computed when
        first asked for, in a second or two.
        """
        data = _Data(self.runs)
        weights = np.random.default_rng(self.seed).exponential(size=(DRAWS, self.runs["N"].size))
        center = data.centred(self.theta)
        found = np.array([data.minimise(center, weight, 1e-12)[0] for weight in weights])
        draws = data.plain(np.clip(center + stretch(weights.shape[1], self.count) * (found - center), LOW, HIGH))
        draws.flags.writeable = False
        return draws

    def __repr__(self) -> str:
        E, A, alpha, D, beta = self.parameters.values()
        return (
            f"ChinchillaFit({self.runs['N'].size} runs: loss = {E:.4g} + {A:.4g} N^-{alpha:.3g} + {D:.4g} "
            f"(B K)^-{beta:.3g}; {self.agreeing} of {self.starts} starts agree)"
        )


def chinchilla(
    N: ArrayLike, B: ArrayLike, K: ArrayLike, loss: ArrayLike, *, exclude: ArrayLike | None = None, seed: int = 0
) -> ChinchillaFit:
    """Fit L = E + A N^-alpha + D (B K)^-beta to the final losses of training runs (Hoffmann et al. 2022, eq. 10).

    The least sum of Huber's function, delta = 1e-3, of the residuals of log loss, by L-BFGS with the exact gradient
    from 32 starts, over log E, log A, alpha, log D, beta, as in the paper. It knows no batch size, only how many
    examples there were, nor a learning rate: a baseline.

    Args:
        N: parameters, > 0.
        B: batch size in examples (sequences), > 0.
        K: steps, > 0. The paper's D, the tokens, are B K times the length of a sequence; here D is the coefficient,
            per example.
        loss: final losses, > 0. All four broadcast together.
        exclude: runs to leave out: True or False for each.
        seed: of the bootstrap, for intervals.

    Raises:
        TypeError, ValueError: for anything else, or less than 10 settings of N, B and K, or one N or B K in all.

    >>> import numpy as np, nqm
    >>> N, B, K = 10.0 ** np.arange(6, 10)[:, None], 256.0, 10.0 ** np.arange(3, 6)
    >>> fit = nqm.scaling.chinchilla(N, B, K, 1.7 + 400 * N**-0.34 + 60 * (B * K) ** -0.28)
    >>> fit
    ChinchillaFit(12 runs: loss = 1.7 + 400 N^-0.34 + 60 (B K)^-0.28; 32 of 32 starts agree)
    >>> round(fit.predict(1e8, 512, 20_000), 4)
    3.1157
    """
    runs = checked_runs(N, B, K, loss, exclude, ChinchillaFit.count)
    for name, term, values in (("N", "A, alpha", runs["N"]), ("B K", "D, beta", runs["B"] * runs["K"])):
        if np.unique(values).size == 1:
            raise ValueError(f"expected runs of several {name}, got {values[0]:.6g} only: {term} cannot then be known")
    seed = _checks.whole(seed, "seed")
    data = _Data(runs)
    starts = [np.array([np.log(e), np.log(a), alpha, np.log(b), beta]) for e, a, alpha, b, beta in STARTS]
    found = [data.minimise(start, np.ones(runs["N"].size), 1e-15) for start in starts]
    costs = np.array([cost for _, cost in found])
    best = int(np.argmin(costs))
    agreeing = int((costs <= costs[best] * (1.0 + 1e-6) + 1e-12).sum())
    theta = data.plain(found[best][0])
    theta.flags.writeable = False
    return ChinchillaFit(runs, seed, theta, HUBER * float(costs[best]), agreeing, len(starts))


class _Data:
    """Runs as the fit needs them: losses over their median, so that any unit will do, and logs of N and B K around
    their means, which makes the coefficients independent."""

    def __init__(self, runs: Mapping[str, FloatArray]) -> None:
        logs = np.log(runs["loss"])
        self.middle = float(np.median(logs))
        self.log_loss = logs - self.middle
        n, d = np.log(runs["N"]), np.log(runs["B"]) + np.log(runs["K"])
        self.means = float(n.mean()), float(d.mean())
        self.n, self.d = n - self.means[0], d - self.means[1]

    def plain(self, theta: FloatArray) -> FloatArray:
        """(..., 5) log E, log A, alpha, log D, beta from those of the fit."""
        return np.asarray(theta + self._moved(theta))

    def centred(self, theta: FloatArray) -> FloatArray:
        return np.asarray(theta - self._moved(theta))

    def _moved(self, theta: FloatArray) -> FloatArray:
        moved = np.zeros_like(theta)
        moved[..., 1], moved[..., 3] = theta[..., 2] * self.means[0], theta[..., 4] * self.means[1]
        moved[..., [0, 1, 3]] += self.middle
        return moved

    def cost(self, theta: FloatArray, weights: FloatArray) -> tuple[float, FloatArray]:
        """Sum of weights times Huber's function over delta, and its gradient."""
        e, a, alpha, b, beta = theta
        terms = np.stack([np.full(self.n.size, e), a - alpha * self.n, b - beta * self.d])
        top = terms.max(axis=0)
        logs = top + np.log(np.exp(terms - top).sum(axis=0))
        share = np.exp(terms - logs)
        residuals = logs - self.log_loss
        size = np.abs(residuals)
        huber = np.where(size <= HUBER, 0.5 * size**2 / HUBER, size - 0.5 * HUBER)
        slope = weights * np.clip(residuals / HUBER, -1.0, 1.0)
        jacobian = np.stack([share[0], share[1], -share[1] * self.n, share[2], -share[2] * self.d])
        return float(weights @ huber), jacobian @ slope

    def minimise(self, start: FloatArray, weights: FloatArray, tolerance: float) -> tuple[FloatArray, float]:
        from scipy.optimize import minimize

        found = minimize(
            self.cost, start, (weights,), "L-BFGS-B", jac=True, bounds=np.stack([LOW, HIGH], axis=1),
            options={"maxiter": 5000, "maxfun": 5000, "ftol": tolerance, "gtol": 1e-9},
        )  # fmt: skip
        return found.x, float(found.fun)
