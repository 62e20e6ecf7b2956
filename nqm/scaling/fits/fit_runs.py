"""Fit the noisy quadratic to the final losses of training runs over model size N, batch size B and steps K."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike

from ... import _checks, _statistics
from ..._checks import FloatArray
from ...problems.quadratic import NoisyQuadratic
from ...schedules import Schedule
from ..models.final_loss import NAMES, FinalLosses, learned_fraction, natural_parameters
from ..models.modes import modes
from ..models.relative_lr import SHAPES, RelativeLR, ScheduleShape
from .bootstrap import bootstrap
from .fitted_model import FittedModel
from .loss_law import DRAWS, LossLaw, checked_runs
from .robust_least_squares import Function, deviation, solution_at, solve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ...plotting import Drawn

__all__ = ["RunsFit", "fit_runs"]

LOW: Final = np.array([*np.log([0.005, 0.05, 1e-3, 0.005, 1e-6, 1.0]), 0.0])
HIGH: Final = np.array([*np.log([2.0, 2.0, 1e6, 1.95, 1e9, 1e8]), np.inf])  # Q < 2: no mode may ever diverge
MEANINGS: Final = {
    "p": "start P/2 n^-p",
    "q": "curvature Q n^-q, times the peak learning rate",
    "P": "start, in units of the loss",
    "Q": "curvature, times the peak learning rate",
    "R": "gradient noise R / n of one example",
    "T0": "steps at the peak that double the squared norm of the weights",
    "E": "irreducible loss",
}
CHUNK: Final = 4096  # rows at a time
MAX_PARAMS: Final = 1e13  # parameters
OUTLIER, SHOWN = 6.0, 3  # robust standard deviations of a residual that is reported, and how many are
UNDETERMINED: Final = 3.0  # ends of an interval whose ratio is above this


def fit_runs(
    N: ArrayLike,
    B: ArrayLike,
    K: ArrayLike,
    loss: ArrayLike,
    *,
    lr_schedule: ScheduleShape = "constant",
    warmup: float = 0.0,
    exclude: ArrayLike | None = None,
    min_steps: float = 100,
    seed: int = 0,
) -> RunsFit:
    """Fit the noisy quadratic to the final losses of training runs.

    The least sum of Huber's function of the residuals of log loss (1.345 robust standard deviations), by trust-region
    least squares with the exact Jacobian from 8 starts (:mod:`nqm.scaling.fits.robust_least_squares`). The model, and
    what each parameter means: :mod:`nqm.scaling.models.final_loss`.

    Args:
        N: parameters, 1 to 10^13.
        B: batch size in examples (for language models sequences), > 0.
        K: steps, > 0.
        loss: final losses, > 0. All four broadcast together.
        lr_schedule: how the learning rate of every run went after its warmup: "constant", "cosine", "linear", "wsd" (as
            in nqm.schedules), or a function of the number of steps that returns an nqm.Schedule of so many steps: the
            learning rate relative to the largest of all runs, which is 1. A name is faster.
        warmup: share of the steps, in [0, 1), in which the learning rate rises linearly.
        exclude: runs to leave out, whatever their numbers: True or False for each.
        min_steps: runs of fewer steps are left out too: Adam's averages, which the model takes for settled, are not yet
            (:mod:`nqm.scaling.models.final_loss` has what that changes).
        seed: of the bootstrap, for intervals.

    Raises:
        TypeError, ValueError: for anything else, less than 12 settings of N, B and K, or one N, B or K in all.

    >>> import nqm
    >>> log = nqm.scaling.example_runs()
    >>> fit = nqm.scaling.fit_runs(log.N, log.B, log.K, log.loss, lr_schedule="cosine", warmup=0.01)
    >>> round(fit.predict(1e8, 256, 10_000), 2)
    2.92
    """
    shortest = _checks.real(min_steps, "min_steps", low=0.0, closed="low")
    runs = checked_runs(N, B, K, loss, exclude, len(NAMES), shortest)
    _require_spread(runs)
    rates = RelativeLR(lr_schedule, _checks.real(warmup, "warmup", low=0.0, high=1.0, closed="low"))
    seed = _checks.whole(seed, "seed")
    rates.require_peak(runs["K"])
    low, high = _box(runs)
    solution = solve(_residuals(runs, rates), _starts(runs), low, high)
    theta = _scaled(solution.theta, _unit(runs))
    return RunsFit(runs, rates.shape, rates.warmup, seed, theta, solution.agreeing, solution.followed)


@dataclass(frozen=True, eq=False, repr=False)
class RunsFit(LossLaw, FittedModel):
    """What :func:`fit_runs` found; printing it shows the parameters with their intervals.

    runs: N, B, K, loss, as fitted. agreeing, followed: how many of the starts that were followed to the end came to
    this optimum.
    """

    runs: Mapping[str, FloatArray]
    lr_schedule: ScheduleShape
    warmup: float
    seed: int
    theta: FloatArray = field(repr=False)
    agreeing: int
    followed: int
    count = len(NAMES)
    kind = "nqm.scaling.RunsFit 1"

    @property
    def parameters(self) -> dict[str, float]:
        """p, q, P, Q, R, T0, E; the learning rate's peak is the unit of 1 / Q."""
        return dict(zip(NAMES, self._natural(self.theta).tolist(), strict=True))

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Parameters that the data does not determine: 90% intervals whose ends differ by more than a factor of 3 (of
        p - 1 for p; of E: by more than a tenth of the median loss), or that end at the limit of the search (of E: it
        may be 0). Intervals are the bootstrap's, or those of the curvature of the cost, if they are wider: along a flat
        direction the bootstrap stays where it begins.

        What they do together may still be known well: trust intervals of predictions.
        """
        to_unit = 1.0 / _unit(self.runs)
        low, high = _statistics.interval(_scaled(self.draws, to_unit), 0.9)
        solution = solution_at(_residuals(self.runs, self._rates), _scaled(self.theta, to_unit))
        width = np.maximum(high - low, 2.0 * 1.645 * deviation(solution))
        wide = width > np.append(np.full(len(NAMES) - 1, np.log(UNDETERMINED)), 0.1)
        bottom, top = _box(self.runs)
        at_limit = (low <= bottom + 1e-3) | (high >= top - 1e-3)
        at_limit[-1] = False
        return tuple(name for name, loose in zip(NAMES, wide | at_limit, strict=True) if loose)

    def losses(self, N: ArrayLike, B: ArrayLike, K: ArrayLike, draws: int | None = None) -> FloatArray:
        thetas = self.theta[None] if draws == 0 else np.concatenate([self.theta[None], self.draws[:draws]])
        n, b, k = (np.asarray(a, dtype=float) for a in np.broadcast_arrays(N, B, K))
        found = np.empty((len(thetas), n.size))
        for first in range(0, n.size, CHUNK):
            part = slice(first, first + CHUNK)
            rows = FinalLosses(n.ravel()[part], b.ravel()[part], self._rates.pieces(k.ravel()[part]))
            for i, theta in enumerate(thetas):
                found[i, part] = rows.losses(theta)
        return found.reshape(-1, *n.shape)

    def problem(self, N: float) -> NoisyQuadratic:
        """The noisy quadratic of a model of N parameters, in units of the peak learning rate.

        predict(N, B, K) = floor(N) + nqm.risk(problem(N), nqm.SGD(effective_lr(N, B, K)), B, K), but for the pieces of
        the learning rate, which have whole lengths there.
        """
        size = _size(N)
        n, weight = modes()
        p, q, P, Q, R = natural_parameters(self.theta)[:5]
        h = Q * n**-q
        return NoisyQuadratic(h, R / n, P * n**-p / h, weight * learned_fraction(n, np.array(size)))

    def floor(self, N: float) -> float:
        """E and the loss of what a model of N parameters does not hold: what no training can go below."""
        return float(
            FinalLosses(np.array([_size(N)]), np.ones(1), self._rates.pieces(np.ones(1))).untrained(self.theta)[0]
        )

    def effective_lr(self, N: float, B: float, K: int) -> Schedule:
        """The learning rate that the model trains with, relative to the peak: batch size and weight norm taken in."""
        steps = _checks.whole(K, "K", low=1)
        size, batch = _size(N), _checks.real(B, "B", low=0.0)
        pieces = self._rates.pieces(np.array([float(steps)]))
        rates = FinalLosses(np.array([size]), np.array([batch]), pieces).rates(self.theta)[0]
        ends = np.rint(np.cumsum(pieces.lengths)).astype(np.int64)
        lengths = np.diff(ends, prepend=0)
        return Schedule(rates[lengths > 0], lengths[lengths > 0])

    @cached_property
    def draws(self) -> FloatArray:
        """theta of 100 bootstrap draws, (100, 7): log(p - 1), log q, log P, log Q, log R, log T0, E.

        Bayesian bootstrap over runs (:mod:`nqm.scaling.fits.bootstrap`), when first asked for.
        """
        unit = _unit(self.runs)
        low, high = _box(self.runs)
        function = _residuals(self.runs, self._rates)
        solution = solution_at(function, _scaled(self.theta, 1.0 / unit))
        each = np.arange(self.runs["N"].size)
        return _read_only(_scaled(bootstrap(function, solution, low, high, each, DRAWS, self.seed), unit))

    @cached_property
    def _rates(self) -> RelativeLR:
        return RelativeLR(self.lr_schedule, self.warmup)

    def _natural(self, theta: FloatArray) -> FloatArray:
        return natural_parameters(theta)

    def _to_json(self) -> dict[str, Any]:
        if not isinstance(self.lr_schedule, str):
            raise ValueError(f"lr_schedule: expected one of {', '.join(SHAPES)} to save the fit, got a function")
        return {
            "parameters": self.parameters,
            "lr_schedule": self.lr_schedule,
            "warmup": self.warmup,
            "seed": self.seed,
            "agreeing": self.agreeing,
            "followed": self.followed,
            "theta": self.theta.tolist(),
            "draws": self.draws.tolist(),
            "runs": {name: values.tolist() for name, values in self.runs.items()},
        }

    @classmethod
    def _from_json(cls, data: Mapping[str, Any], theta: FloatArray) -> Self:
        runs = checked_runs(**data["runs"], exclude=None, parameters=len(NAMES))
        RelativeLR(data["lr_schedule"], data["warmup"])  # checks
        return cls(runs, data["lr_schedule"], data["warmup"], data["seed"], theta, data["agreeing"], data["followed"])

    def plot(self, ax: Axes | None = None) -> Drawn:
        """Predicted against actual loss of the runs, with 90% intervals of a new run."""
        from ...plotting import plot_predictions

        sizes = self.runs["N"], self.runs["B"], self.runs["K"]
        low, high = self.interval(*sizes)
        predicted = self.losses(*sizes, draws=0)[0]
        return plot_predictions({**self.runs, "predicted": predicted, "low": low, "high": high}, ax)

    def __repr__(self) -> str:
        starts = f"{self.agreeing} of {self.followed} starts agree"
        lines = [f"RunsFit({self.runs['N'].size} runs, rms log error {self.rms:.4f}; {starts})"]
        loose, intervals = self.undetermined, self.parameter_intervals()
        for name, value in self.parameters.items():
            low, high = intervals[name]
            note = " (not determined)" if name in loose else ""
            lines.append(f"{name:>4}  {value:<10.4g} 90% {low:.4g} to {high:.4g}{note}: {MEANINGS[name]}")
        N, B, K, residuals = *(self.runs[name] for name in ("N", "B", "K")), self.residuals
        far = np.flatnonzero(np.abs(residuals) > OUTLIER * 1.4826 * np.median(np.abs(residuals)))
        worst = far[np.argsort(-np.abs(residuals[far]))]
        lines += [f"far off: N {N[i]:.4g}, B {B[i]:.4g}, K {K[i]:.4g}: loss {residuals[i]:+.1%}" for i in worst[:SHOWN]]
        lines += [f"and {far.size - SHOWN} more"] if far.size > SHOWN else []
        return "\n".join(lines)


def _residuals(runs: Mapping[str, FloatArray], rates: RelativeLR) -> Function:
    """Residuals and Jacobian in theta of losses over their median: the box and the starts are for losses about 1."""
    rows, logs = FinalLosses(runs["N"], runs["B"], rates.pieces(runs["K"])), np.log(runs["loss"] / _unit(runs))

    def function(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        losses, jacobian = rows.jacobian(theta)
        return np.log(losses) - logs, jacobian / losses[:, None]

    return function


def _box(runs: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
    return LOW, np.append(HIGH[:-1], runs["loss"].max() / _unit(runs))


def _unit(runs: Mapping[str, FloatArray]) -> float:
    return float(np.median(runs["loss"]))


def _scaled(theta: FloatArray, factor: float) -> FloatArray:
    """theta of losses times ``factor``: P, R and E have their unit."""
    moved = np.where(np.isin(NAMES, ("P", "R")), theta + np.log(factor), theta)
    moved[..., -1] *= factor
    return moved


def _starts(runs: Mapping[str, FloatArray]) -> FloatArray:
    """A start P whose sum over modes is a large loss, and noise that adds a share of a low one at the end."""
    least, most = np.quantile(runs["loss"], [0.05, 0.95]) / _unit(runs)  # an outlier may be anything
    batch = float(np.median(runs["B"]))
    starts = []
    for p in (0.12, 0.4):
        for q in (0.5, 1.0):
            for noise in (0.01, 0.1):
                P = 2.0 * most * p / (1.0 + p)
                R = noise * least * batch
                starts.append([*np.log([p, q, P, 1.0, R, 100.0]), 0.05 * least])
    return np.array(starts)


def _require_spread(runs: Mapping[str, FloatArray]) -> None:
    for name, of_what, unknown in (
        ("B", "batch sizes B", "the noise R, and with it the loss at any other batch size,"),
        ("N", "model sizes N", "how the loss depends on the size"),
        ("K", "numbers of steps K", "how fast training goes"),
    ):
        values = runs[name]
        if np.unique(values).size == 1:
            raise ValueError(
                f"expected runs of several {of_what}, got {values[0]:.6g} only: {unknown} cannot then be known"
            )
    if runs["N"].max() > MAX_PARAMS or runs["N"].min() < 1.0:
        raise ValueError(f"N: expected 1 to 1e13 parameters, got {runs['N'].min():.6g} to {runs['N'].max():.6g}")


def _size(N: float) -> float:
    return _checks.real(N, "N", low=1.0, high=MAX_PARAMS, closed="both")


def _read_only(values: Any) -> FloatArray:
    array = np.array(values, dtype=float)
    array.flags.writeable = False
    return array
