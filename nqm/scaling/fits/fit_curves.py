"""Fit the noisy quadratic to loss curves, and predict the curve of another learning-rate schedule.

The model, how it was chosen and what it gets wrong: :mod:`nqm.scaling.models.loss_curve_model`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self, overload

import numpy as np
from numpy.typing import ArrayLike

from ... import _checks, _statistics
from ..._checks import FloatArray, IntArray
from ...schedules import Schedule
from ..decisions.best_schedule import best_schedule
from ..decisions.fit import FAR
from ..logs import LossCurve
from ..logs.loss_curve import Curves, named_curves, per_step
from ..models.loss_curve_model import NAMES, CurveLosses, natural_parameters
from .bootstrap import bootstrap
from .curve_residuals import CurveResiduals
from .fitted_model import FittedModel
from .robust_least_squares import solution_at, solve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CurvesFit", "fit_curves"]

STARTS: Final = 12
DRAWS: Final = 200
UNDETERMINED: Final = 10.0  # ends of an interval whose ratio is above this
NEAR: Final = 12  # residuals at least that say how wide they are near a step
BELLS: Final = 9  # equally likely values that stand for a normal distribution


def fit_curves(curves: Curves, *, seed: int = 0) -> CurvesFit:
    """Fit the noisy quadratic to loss curves, best of different schedules with the same peak learning rate.

    Least Huber cost of the log loss, residuals weighing step / last step, from 12 starts with the exact Jacobian
    (:mod:`nqm.scaling.fits.robust_least_squares`). Curves of more than 500 observations are averaged in groups.

    Args:
        curves: at least one :class:`LossCurve`, or a dict of them by name, of one model on one kind of data.
        seed: of the starts and of the bootstrap.

    Warns where all curves have one schedule.

    Raises:
        TypeError, ValueError: for what are no curves, or too few observations for six parameters.

    >>> import numpy as np, nqm
    >>> steps = np.arange(200, 4001, 100)
    >>> constant = LossCurve(steps, 2.0 + steps**-0.5, nqm.schedules.constant(0.001, 4000))
    >>> cosine = LossCurve(steps, 2.0 + steps**-0.5 - 1e-9 * steps**2, nqm.schedules.cosine(0.001, 4000))
    >>> fit = fit_curves([constant, cosine])
    >>> bool(abs(fit.predict(constant.lr, 4000) - constant.loss[-1]) < 2e-3)
    True
    """
    given = named_curves(curves)
    count = sum(curve.steps.size for curve in given.values())
    if count <= len(NAMES):
        raise ValueError(
            f"curves: expected more than {len(NAMES)} observations, for the {len(NAMES)} parameters "
            f"{', '.join(NAMES)}, got {count}: give at least {len(NAMES) + 1 - count} more"
        )
    seed, search = _checks.whole(seed, "seed"), CurveResiduals(given)
    if len(_shapes(given, search.unit)) == 1:
        warnings.warn(
            "curves: one schedule only: how the loss answers to the learning rate, R and kappa, is hardly known, and "
            "intervals under other schedules are too narrow; give curves under other schedules",
            UserWarning,
            stacklevel=2,
        )
    starts = np.random.default_rng(seed).uniform(*search.starts, (STARTS, len(NAMES)))
    found = solve(search, starts, search.low, search.high, search.weights)
    return CurvesFit(given, seed, found.theta, found.scale, found.agreeing, found.followed)


def _shapes(curves: Mapping[str, LossCurve], unit: float) -> set[bytes]:
    """Learning rates that differ, over the steps that all curves have."""
    shared = min(int(curve.steps[-1]) for curve in curves.values())
    return {np.round(curve.lr[:shared] / unit, 3).tobytes() for curve in curves.values()}


@dataclass(frozen=True, eq=False, repr=False)
class CurvesFit(FittedModel):
    """What :func:`fit_curves` found.

    curves: by name, as fitted. scale: robust standard deviation of the weighted residuals of the log loss. agreeing,
    followed: how many of the starts that were followed to the end came to this optimum.
    """

    curves: Mapping[str, LossCurve]
    seed: int
    theta: FloatArray = field(repr=False)
    scale: float
    agreeing: int
    followed: int
    count = len(NAMES)
    kind = "nqm.scaling.CurvesFit 1"

    @property
    def parameters(self) -> dict[str, float]:
        """E, P, p: the floor, and the start P/2 n^-p of mode n above it, as losses; Q: curvature of the first mode
        times the largest learning rate seen; R: gradient noise of one example, as a loss; kappa: weight decay times
        the largest learning rate, per step."""
        return dict(zip(NAMES, self._natural(self.theta).tolist(), strict=True))

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Parameters that the curves do not determine: the ends of the 90% interval differ by more than a factor of
        10, or the value lies at the end of what is searched."""
        low, high = self.search.low, self.search.high
        edge = np.minimum(self.theta - low, high - self.theta) <= 1e-3 * (high - low)
        intervals = self.parameter_intervals().items()
        return tuple(n for (n, (a, b)), e in zip(intervals, edge, strict=True) if e or b > UNDETERMINED * a)

    @overload
    def predict(self, schedule: Schedule | ArrayLike, steps: float, *, batch_size: float | None = None) -> float: ...
    @overload
    def predict(
        self, schedule: Schedule | ArrayLike, steps: ArrayLike, *, batch_size: float | None = None
    ) -> FloatArray: ...
    def predict(
        self, schedule: Schedule | ArrayLike, steps: ArrayLike, *, batch_size: float | None = None
    ) -> float | FloatArray:
        """The expected loss after ``steps`` steps along a schedule: a float, or an array of the shape of ``steps``.

        Args:
            schedule: as in :class:`LossCurve`, warm-up included, in the same unit.
            steps: whole numbers >= 1, in any order.
            batch_size: of the new run; that of the first curve by default.

        Warns where the steps go beyond 10 times the longest curve, and where the largest learning rate or the batch
        size is none of the curves'.

        Raises:
            TypeError, ValueError: for what is not that, or a schedule shorter than the steps.
        """
        at, lr, batch = self.asked(schedule, steps, batch_size)
        found = self.losses(lr, at, batch, draws=0)[0]
        return found if found.ndim else float(found)

    @overload
    def interval(
        self, schedule: Schedule | ArrayLike, steps: float, level: float = 0.9, *, batch_size: float | None = None
    ) -> tuple[float, float]: ...
    @overload
    def interval(
        self, schedule: Schedule | ArrayLike, steps: ArrayLike, level: float = 0.9, *, batch_size: float | None = None
    ) -> tuple[FloatArray, FloatArray]: ...
    def interval(
        self, schedule: Schedule | ArrayLike, steps: ArrayLike, level: float = 0.9, *, batch_size: float | None = None
    ) -> tuple[float, float] | tuple[FloatArray, FloatArray]:
        """(low, high) that hold a new run's loss with a chance of ``level``: bootstrap draws, each with a residual.

        The residual is normal, as wide as those of the fit within a factor of two of the step (beyond the longest
        curve: as at its end). What the model itself gets wrong further out is not in it. The rest as in
        :meth:`predict`.
        """
        level = _checks.real(level, "level", low=0.0, high=1.0)
        at, lr, batch = self.asked(schedule, steps, batch_size)
        low, high = self.ends(self.losses(lr, at, batch)[1:], at, level)
        return (low, high) if low.ndim else (float(low), float(high))

    best_schedule = best_schedule

    def losses(self, lr: FloatArray, steps: IntArray, batch: float, draws: int | None = None) -> FloatArray:
        """(draws + 1, ...): the prediction, then that of each of the first ``draws`` bootstrap draws (None: all 200).

        Expected losses: without a run's own residual, and without checks or warnings; one learning rate per step.
        """
        thetas = self.theta[None] if draws == 0 else np.concatenate([self.theta[None], self.draws[:draws]])
        ordered, place = np.unique(steps, return_inverse=True)
        run = CurveLosses([(lr / self.search.unit, ordered, batch)], self.search.total)
        return np.stack([run.jacobian(theta)[0][place.reshape(steps.shape)] for theta in thetas])

    def ends(self, losses: FloatArray, steps: IntArray, level: float) -> FloatArray:
        """Ends of intervals (2, ...) for losses (draws, ...) after steps (...), each with a normal residual."""
        from scipy.special import ndtri

        bell = ndtri((np.arange(BELLS) + 0.5) / BELLS)
        bell = bell / np.sqrt(np.mean(bell**2))
        scattered = losses[:, None] * np.exp(np.multiply.outer(bell, self._spread(steps)))
        return _statistics.interval(scattered.reshape(-1, *steps.shape), level)

    def asked(
        self, schedule: Schedule | ArrayLike, steps: ArrayLike, batch_size: float | None
    ) -> tuple[IntArray, FloatArray, float]:
        """Steps, learning rates of all steps, batch size, checked; a warning where they are far from the curves."""
        at = _checks.wholes(steps, "steps", low=1)
        lr = per_step(schedule, int(at.max()))
        whole = schedule.values if isinstance(schedule, Schedule) else _checks.reals(schedule, "schedule")
        usual = next(iter(self.curves.values())).batch_size
        batch = usual if batch_size is None else _checks.real(batch_size, "batch_size", low=0.0)
        total, peak, peaks = self.search.total, float(whole.max()), [float(c.lr.max()) for c in self.curves.values()]
        near, batches = min(max(peak, min(peaks)), max(peaks)), [curve.batch_size for curve in self.curves.values()]
        messages = []
        if at.max() > FAR * total:
            messages.append(
                f"steps: {at.max()} is {at.max() / total:.3g} times the {total:.0f} steps of the longest curve"
            )
        if abs(peak - near) > 0.001 * near:
            messages.append(
                f"schedule: its largest learning rate {peak:.4g} is {peak / near:.3g} times that of the curves, "
                f"{near:.4g}: the curves do not say what another one does"
            )
        if not min(batches) <= batch <= max(batches):
            messages.append(
                f"batch_size: {batch:g} is none of the curves' {min(batches):g} to {max(batches):g}: they do not say "
                "what another one does; the model takes noise to fall as 1 / batch_size"
            )
        for message in messages:
            warnings.warn(message, UserWarning, stacklevel=3)
        return at, lr, batch

    @cached_property
    def draws(self) -> FloatArray:
        """theta (:class:`nqm.scaling.models.loss_curve_model.CurveLosses`) of 200 bootstrap draws, (200, 6).

        Bayesian bootstrap over 8 blocks of each curve (:mod:`nqm.scaling.fits.bootstrap`), when first asked for.
        """
        s = self.search
        found = replace(solution_at(s, self.theta), scale=self.scale)
        draws = bootstrap(s, found, s.low, s.high, s.blocks, DRAWS, self.seed, s.weights)
        draws.flags.writeable = False
        return draws

    @cached_property
    def search(self) -> CurveResiduals:
        """What was searched: observations, units and the box of theta."""
        return CurveResiduals(self.curves)

    def _spread(self, steps: IntArray) -> FloatArray:
        """Standard deviation of the log loss around the fit near each step: of residuals within a factor of two."""
        seen, sizes = self.search.steps, np.abs(self.search(self.theta)[0])
        near, found = min(NEAR, sizes.size) - 1, []
        for x in np.log(np.clip(steps, seen.min(), seen.max())).ravel():
            far = np.abs(np.log(seen) - x)
            found.append(1.4826 * np.median(sizes[far <= max(np.log(2.0), np.partition(far, near)[near])]))
        return np.array(found).reshape(steps.shape) * np.sqrt(sizes.size / max(sizes.size - len(NAMES), 1))

    def _natural(self, theta: FloatArray) -> FloatArray:
        return natural_parameters(theta, self.search.total)

    def _to_json(self) -> dict[str, Any]:
        curves = {}
        for name, curve in self.curves.items():
            lr = Schedule(curve.lr, 1).merged()
            curves[name] = {
                "steps": curve.steps.tolist(), "loss": curve.loss.tolist(), "batch_size": curve.batch_size,
                "lr": [lr.values.tolist(), lr.lengths.tolist()],
            }  # fmt: skip
        return {
            "parameters": self.parameters, "seed": self.seed, "scale": self.scale, "agreeing": self.agreeing,
            "followed": self.followed, "theta": self.theta.tolist(), "draws": self.draws.tolist(), "curves": curves,
        }  # fmt: skip

    @classmethod
    def _from_json(cls, data: Mapping[str, Any], theta: FloatArray) -> Self:
        curves = {name: LossCurve(**{**c, "lr": Schedule(*c["lr"])}) for name, c in data["curves"].items()}
        return cls(curves, data["seed"], theta, data["scale"], data["agreeing"], data["followed"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Loss against step: observations, and the fit as lines."""
        from ...plotting import plot_curves

        curves = self.curves.values()
        columns = {
            "curve": np.repeat(list(self.curves), [curve.steps.size for curve in curves]),
            "step": np.concatenate([curve.steps for curve in curves]),
            "loss": np.concatenate([curve.loss for curve in curves]),
            "fitted": np.concatenate([self.losses(c.lr, c.steps, c.batch_size, draws=0)[0] for c in curves]),
        }
        return plot_curves(columns, ax)

    def __repr__(self) -> str:
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.parameters.items())
        count = sum(curve.steps.size for curve in self.curves.values())
        typical = 1.4826 * float(np.median(np.abs(self.search(self.theta)[0])))
        loose = ", ".join(self.undetermined)
        note = f"; not determined: {loose}" if loose else ""
        return f"CurvesFit({len(self.curves)} curves, {count} losses, residual {typical:.2g} of them: {values}{note})"
