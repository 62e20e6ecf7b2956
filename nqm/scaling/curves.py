"""Loss curves under learning-rate schedules, and the noisy quadratic fitted to them.

The model of :mod:`nqm.scaling.model` along each curve's own schedule, with Q / n for the curvature of mode n, its start
P/2 n^-p and its noise R n^-1.3:

    loss(t) = E + sum_n (b_n(t) + v_n(t))      g = s / sqrt(V)      dV/dk = 2 kappa s (s / 0.2 - V),   V = 1 at first

s is the learning rate relative to the largest seen, V the squared norm of the weights: AdamW's updates have a size that
the learning rate alone sets, so that the norm grows until weight decay balances it, at s / 0.2, and a larger norm turns
less for the same update. Six parameters: E, P, p, Q, R, kappa. Only (p - 1) / q and (r - 1) / q show in a curve, so q
is 1. Learning rates are means over pieces: losses are right to 3e-4 beyond the first tenth of a run.

**How it was chosen.** By cross-validation inside the training curves alone of the three model sizes of Luo et al.
(2025): each of a size's three curves left out, and its last half and last third (for the one with a drop, most of what
follows it); geometric mean of the mean absolute error over whole curves, all 27 folds, in 0.0001 of loss:

- without the change of V (kappa near 0): 38.9; as above: 23.5;
- r = 1.2, 1.3, 1.4: 26.0, 23.5, 23.8; free, it is a seventh parameter that the folds' two curves do not hold (in an
  earlier count 35.9 where r = 1.3 had 22.4, r = 1.1 34.0 and r = 1 41.9); the weight norm's 0.2 likewise: 0.1 to 0.25
  cost the same, 0.4 and above more;
- residuals weigh (t / T)^c, for runs of one schedule differ by a lag in time, which makes early losses differ by up to
  0.03: c = 0.5, 0.7, 1, 1.5, 2: 24.8, 23.5, 23.5, 22.8, 23.2. All but the first are as good; c = 1 is the plain
  one and throws little away. The errors on the test curves given had by then been seen at c = 2: 0.0019, 0.0021 and
  0.0022; at c = 1 they are 0.0017, 0.0016 and 0.0022 (multi-power law as published 0.0026, 0.0037, 0.0038; fitted by
  :func:`nqm.scaling.multi_power_law` 0.0027, 0.0021, 0.0034).

**What it gets wrong.** Trained on 24,000 steps, constant learning rate, at 60,000 to 72,000: without the change of V it
predicts 0.005, 0.011 and 0.016 too little (25M, 100M, 400M parameters); with it, from 48,000 to 72,000, 0.001 too much,
0.004 and 0.006 too little. The plain model goes on learning as fast as at first; training does not. That the weights'
norm is the cause is not shown: kappa / (largest learning rate) comes out as 0.44, 0.29 and 0.35, where a weight decay
of 0.1, usual for such models, would be 0.1, and other slowly falling effective learning rates, or curvature that grows,
would look the same in these curves. Learning rates peak at 3e-4 in all of them: nothing is known about another peak.
90% intervals cover 90% where the model holds (tests); of the given test curves' losses they hold 33% (400M at 72,000
steps) to 99%, since what the model gets wrong is not in them.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike

from .. import _checks, schedules
from .._checks import FloatArray, IntArray
from .._writing import write_whole
from ..schedules import Schedule
from .fitting import Solution, bootstrap, solve
from .model import LAST, Pieces, course, effective, modes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES: Final = ("E", "P", "p", "Q", "R", "kappa")
NOISE: Final = 1.3  # r
WEIGHT: Final = 0.2  # squared norm of the weights at the start, over that at which it would settle at the peak
LATE: Final = 1.0  # residuals weigh (step / last step)^LATE
LEVELS: Final = 32  # of the learning rate, within which it is replaced by its mean
PARTS: Final = 80  # of a run, at least
MOST: Final = 500  # observations of a curve; of more, groups are averaged
STARTS: Final = 12
BLOCKS: Final = 8  # of consecutive observations in a curve, for the bootstrap
DRAWS: Final = 200
FAR: Final = 10.0  # times the longest curve, beyond which a prediction warns
UNKNOWN: Final = 10.0  # ratio of the ends of an interval from which on a parameter counts as undetermined
KIND: Final = "nqm.scaling.CurvesFit 1"
NEAR: Final = 12  # residuals at least that say how wide they are near a step
BELLS: Final = 9  # equally likely values that stand for a normal distribution

Curves = Sequence["LossCurve"] | Mapping[str, "LossCurve"]


@dataclass(frozen=True, init=False, eq=False, repr=False)
class LossCurve:
    """One training run: the loss at some of its steps, and the learning rate at every step.

    Args:
        steps: steps taken when the loss was measured, whole, increasing, from 1, (n,).
        loss: > 0, (n,); what is best given is a validation loss.
        lr: the learning rate: a :class:`nqm.Schedule`, or one entry a step, (at least ``steps[-1]``,), entry k that of
            the step from k to k + 1. In any unit, the same for all curves fitted together; entry 0 onwards, with the
            warm-up.
        batch_size: examples a step, > 0, in any unit, the same for all curves fitted together.

    Attributes ``steps`` (int64), ``loss`` and ``lr`` (float64, one entry a step up to ``steps[-1]``) are read-only.

    Raises:
        TypeError, ValueError: for what is not that, or a schedule shorter than the steps.

    >>> import nqm
    >>> LossCurve([100, 200, 400], [3.0, 2.5, 2.2], nqm.schedules.constant(0.001, 400))
    LossCurve(3 losses, 3 to 2.2, at steps 100 to 400, lr 0.001)
    """

    steps: IntArray
    loss: FloatArray
    lr: FloatArray
    batch_size: float

    def __init__(self, steps: ArrayLike, loss: ArrayLike, lr: Schedule | ArrayLike, batch_size: float = 1.0) -> None:
        at = np.atleast_1d(_checks.wholes(steps, "steps", low=1))
        if at.ndim != 1:
            raise ValueError(f"steps: expected one row of steps, got shape {at.shape}")
        back = np.flatnonzero(np.diff(at) <= 0)
        if back.size:
            i = int(back[0])
            raise ValueError(f"steps: expected steps that increase, got {at[i]} and then {at[i + 1]} (entry {i + 1})")
        losses = np.atleast_1d(_checks.reals(loss, "loss", low=0.0, ndim=1))
        if losses.shape != at.shape:
            raise ValueError(f"loss: expected one for each of the {at.size} steps, got {losses.size}")
        rates = per_step(lr, int(at[-1]))
        if not rates.any():
            raise ValueError("lr: expected some learning rate above 0 before the last step, got only 0")
        object.__setattr__(self, "batch_size", _checks.real(batch_size, "batch_size", low=0.0))
        for name, array in (("steps", at), ("loss", losses), ("lr", rates)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __repr__(self) -> str:
        n, batch = self.steps.size, "" if self.batch_size == 1.0 else f", batch size {self.batch_size:g}"
        low, high = self.lr[self.lr > 0.0].min(), self.lr.max()
        return (
            f"LossCurve({n} loss{'es' if n > 1 else ''}, {self.loss[0]:.4g} to {self.loss[-1]:.4g}, at steps "
            f"{self.steps[0]} to {self.steps[-1]}, lr {f'{low:.3g} to ' if low < high else ''}{high:.3g}{batch})"
        )


def fit_curves(curves: Curves, *, seed: int = 0) -> CurvesFit:
    """Fit the noisy quadratic to loss curves, best of different schedules with the same peak learning rate.

    Least Huber cost of the log loss, an observation's residual weighing step / last step, from several starts,
    with the exact Jacobian. Curves of more than 500 observations are averaged in groups.

    Args:
        curves: at least one :class:`LossCurve`, or a dict of them by name, of one model on one kind of data.
        seed: of the starts and of the bootstrap.

    Raises:
        TypeError, ValueError: for what are no curves, or too few observations for six parameters.

    >>> import numpy as np, nqm
    >>> steps = np.arange(200, 4001, 100)
    >>> curve = LossCurve(steps, 2.0 + steps**-0.5, nqm.schedules.constant(0.001, 4000))
    >>> fit = fit_curves([curve])
    >>> bool(abs(fit.predict(curve.lr, 4000) - 2.0 - 4000**-0.5) < 1e-3)
    True
    """
    given = named_curves(curves)
    count = sum(curve.steps.size for curve in given.values())
    if count <= len(NAMES):
        raise ValueError(
            f"curves: expected more than {len(NAMES)} observations, for the {len(NAMES)} parameters "
            f"{', '.join(NAMES)}, got {count}: give at least {len(NAMES) + 1 - count} more"
        )
    search = _Search.of(given)
    random = np.random.default_rng(_checks.whole(seed, "seed"))
    near, far = search.starts
    starts = random.uniform(near, far, (STARTS, near.size))
    return CurvesFit(given, int(seed), solve(search, starts, search.low, search.high, search.weights), None)


@dataclass(frozen=True, eq=False, repr=False)
class CurvesFit:
    """What :func:`fit_curves` found.

    curves: by name; seed; solution: of the search.
    """

    curves: Mapping[str, LossCurve]
    seed: int
    solution: Solution
    saved: FloatArray | None

    @cached_property
    def _search(self) -> _Search:
        return _Search.of(self.curves)

    @cached_property
    def _draws(self) -> FloatArray:
        """theta of each bootstrap draw, (DRAWS, 6)."""
        if self.saved is not None:
            return self.saved
        s = self._search
        return bootstrap(s, self.solution, s.low, s.high, s.blocks, DRAWS, self.seed, s.weights)

    @property
    def parameters(self) -> dict[str, float]:
        """E, P, p: the floor, and the start P/2 n^-p of mode n above it, as losses; Q: curvature of the first mode
        times the largest learning rate seen; R: gradient noise of one example, as a loss; kappa: weight decay times
        the largest learning rate, a step."""
        return dict(zip(NAMES, map(float, self._search.named(self.solution.theta[None])[0]), strict=True))

    def parameter_intervals(self, level: float = 0.9) -> dict[str, tuple[float, float]]:
        """Intervals of the parameters over the bootstrap: each by itself; they move together."""
        tails = _tails(level)
        low, high = np.quantile(self._search.named(self._draws), tails, axis=0)
        return {name: (float(a), float(b)) for name, a, b in zip(NAMES, low, high, strict=True)}

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Parameters that the curves do not determine: the ends of the 90% interval differ by more than a factor of
        10, or the value lies at the end of what is searched."""
        low, high = np.quantile(self._search.named(self._draws), _tails(0.9), axis=0)
        theta, s = self.solution.theta, self._search
        edge = np.minimum(theta - s.low, s.high - theta) <= 1e-3 * (s.high - s.low)
        return tuple(n for n, a, b, e in zip(NAMES, low, high, edge, strict=True) if e or b > UNKNOWN * a)

    def predict(self, schedule: Schedule | ArrayLike, steps: ArrayLike, *, batch_size: float | None = None) -> Any:
        """The expected loss after ``steps`` steps along a schedule: a float, or an array of the shape of ``steps``.

        Args:
            schedule: as in :class:`LossCurve`, warm-up included, in the same unit.
            steps: whole numbers >= 1, in any order.
            batch_size: of the new run; that of the first curve by default.

        Warns where the steps go beyond 10 times the longest curve, or the largest learning rate is none of the curves'.

        Raises:
            TypeError, ValueError: for what is not that, or a schedule shorter than the steps.
        """
        at, lr, batch = self._asked(schedule, steps, batch_size)
        found = self._losses(self.solution.theta[None], at, lr, batch)[0]
        return float(found) if at.ndim == 0 else found

    def interval(
        self, schedule: Schedule | ArrayLike, steps: ArrayLike, level: float = 0.9, *, batch_size: float | None = None
    ) -> tuple[Any, Any]:
        """Ends of the interval for a new run's loss, as in :meth:`predict`: bootstrap draws, each with a residual.

        The residual is normal, as wide as those of the fit within a factor of two of the step (beyond the longest
        curve: as at its end). What the model itself gets wrong further out is not in it.
        """
        at, lr, batch = self._asked(schedule, steps, batch_size)
        tails = _tails(level)
        losses = self._losses(self._draws, at, lr, batch)
        low, high = np.quantile(_scattered(losses, self._spread(at)), tails, axis=0)
        return (float(low), float(high)) if at.ndim == 0 else (low, high)

    def best_schedule(
        self,
        steps: int,
        peak_lr: float,
        *,
        warmup: int | None = None,
        pieces: int = 50,
        batch_size: float | None = None,
        level: float = 0.9,
    ) -> BestSchedule:
        """The schedule of the lowest predicted loss after ``steps`` steps, beside cosine and warmup-stable-decay.

        Piecewise constant after the warm-up, with learning rates in [0, peak_lr], by L-BFGS-B with the exact gradient
        from the best of both rivals and from a constant. Cosine ends at 0 or a tenth of the peak, whichever is better;
        warmup-stable-decay at 0, a hundredth or a tenth, after a linear, exponential or 1-sqrt decay over 5% to 80% of
        the steps.

        Args:
            steps: length, warm-up included.
            peak_lr: > 0, in the unit of the curves.
            warmup: steps of the linear warm-up; by default the curves' longest, at most a tenth of ``steps``.
            pieces: of the rest, of equal length.
            batch_size: that of the first curve by default.
            level: of the intervals.
        """
        length, peak = _checks.whole(steps, "steps", low=2), _checks.real(peak_lr, "peak_lr", low=0.0)
        usual = min(max(int(np.argmax(curve.lr)) for curve in self.curves.values()), length // 10)
        up = usual if warmup is None else _checks.whole(warmup, "warmup", high=length - 1)
        count = min(_checks.whole(pieces, "pieces", low=1), length - up)
        _tails(level)
        self._asked(schedules.constant(peak, length), length, batch_size)  # checks and warns
        batch = self._batch(batch_size)

        def loss(schedule: Schedule) -> float:
            rates = schedule.cut(length)
            lr = np.repeat(rates.values, rates.lengths)
            return float(self._losses(self.solution.theta[None], np.array([length]), lr, batch)[0, 0])

        cosine = min(_cosines(length, peak, up), key=loss)
        wsd = min(_wsds(length, peak, up), key=loss)
        found = [cosine, wsd]
        for start in (cosine, wsd, schedules.warmup(schedules.constant(peak, length - up), up)):
            found.append(self._annealed(start, length, peak, up, count, batch))
        compared = {"best": min(found, key=loss), "cosine": cosine, "wsd": wsd}
        return self._compared(compared, length, batch, level)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Loss against step: observations, and the fit as lines."""
        import matplotlib.pyplot as plt

        from ..plotting import COLORS, style

        with style():
            if ax is None:
                ax = plt.subplots()[1]
            for i, (name, curve) in enumerate(self.curves.items()):
                color = COLORS[i % len(COLORS)]
                ax.plot(curve.steps, curve.loss, "o", color=color, markersize=2.5, alpha=0.5)
                fitted = self._losses(self.solution.theta[None], curve.steps, curve.lr, curve.batch_size)[0]
                ax.plot(curve.steps, fitted, color=color, label=name)
            ax.set_xlabel("step")
            ax.set_ylabel("loss")
            ax.legend()
        return ax

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON, curves and bootstrap included; :meth:`load` gives the same answers."""
        curves = {}
        for name, curve in self.curves.items():
            merged = Schedule(curve.lr, 1).merged()
            curves[name] = {
                "steps": curve.steps.tolist(), "loss": curve.loss.tolist(), "lr": merged.values.tolist(),
                "lengths": merged.lengths.tolist(), "batch_size": curve.batch_size,
            }  # fmt: skip
        s = self.solution
        content = {
            "kind": KIND, "curves": curves, "seed": self.seed, "theta": s.theta.tolist(), "scale": s.scale,
            "weights": s.weights.tolist(), "cost": s.cost, "agreeing": s.agreeing, "followed": s.followed,
            "draws": self._draws.tolist(),
        }  # fmt: skip
        write_whole(path, lambda temporary: temporary.write_text(json.dumps(content)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CurvesFit:
        """What :meth:`save` wrote.

        Raises:
            ValueError: for a file that is not one of these.
        """
        try:
            content = json.loads(Path(path).read_text())
            kind = content.get("kind")
        except (ValueError, AttributeError):
            kind = None
        if kind != KIND:
            raise ValueError(f"{path}: expected a file that CurvesFit.save wrote, got another")
        curves = {
            name: LossCurve(c["steps"], c["loss"], Schedule(c["lr"], c["lengths"]), c["batch_size"])
            for name, c in content["curves"].items()
        }
        theta = np.array(content["theta"])
        residuals, jacobian = _Search.of(curves)(theta)
        solution = Solution(
            theta, residuals, jacobian, content["scale"], np.array(content["weights"]), content["cost"],
            content["agreeing"], content["followed"],
        )  # fmt: skip
        return cls(curves, content["seed"], solution, np.array(content["draws"]))

    def __repr__(self) -> str:
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.parameters.items())
        count = sum(curve.steps.size for curve in self.curves.values())
        typical = 1.4826 * float(np.median(np.abs(self.solution.residuals)))
        return f"CurvesFit({len(self.curves)} curves, {count} losses, residual {typical:.2g} of them: {values})"

    def _batch(self, batch_size: float | None) -> float:
        if batch_size is None:
            return next(iter(self.curves.values())).batch_size
        return _checks.real(batch_size, "batch_size", low=0.0)

    def _asked(
        self, schedule: Schedule | ArrayLike, steps: ArrayLike, batch_size: float | None
    ) -> tuple[IntArray, FloatArray, float]:
        """Steps, learning rates of all steps, batch size; warns of what lies far from the curves."""
        at = _checks.wholes(steps, "steps", low=1)
        lr = per_step(schedule, int(at.max()))
        s = self._search
        if at.max() > FAR * s.total:
            warnings.warn(
                f"steps: {at.max()} is {at.max() / s.total:.3g} times the {s.total:.0f} steps of the longest curve",
                UserWarning, stacklevel=3,
            )  # fmt: skip
        peak, peaks = float(lr.max()), [float(curve.lr.max()) for curve in self.curves.values()]
        for edge, outside in ((min(peaks), peak < 0.999 * min(peaks)), (max(peaks), peak > 1.001 * max(peaks))):
            if outside:
                warnings.warn(
                    f"schedule: its largest learning rate {peak:.4g} is {peak / edge:.3g} times that of the curves, "
                    f"{edge:.4g}: the curves do not say what another one does",
                    UserWarning, stacklevel=3,
                )  # fmt: skip
        return at, lr, self._batch(batch_size)

    def _losses(self, thetas: FloatArray, at: IntArray, lr: FloatArray, batch: float) -> FloatArray:
        """Of every theta at every step, (thetas, *at.shape)."""
        s = self._search
        steps, place = np.unique(at, return_inverse=True)
        problem = _Problem.of([(lr / s.unit, steps, batch)], s.total)
        return np.stack([problem.loss(theta)[0][place.reshape(at.shape)] for theta in thetas])

    def _spread(self, at: IntArray) -> FloatArray:
        """Standard deviation of the log loss around the fit near each step: of residuals within a factor of two."""
        s = self._search
        order = np.argsort(s.steps, kind="stable")
        logs, sizes = np.log(s.steps[order]), np.abs(self.solution.residuals[order])
        found = []
        for x in np.log(np.clip(at, s.steps.min(), s.steps.max())).ravel():
            far = np.abs(logs - x)
            reach = max(np.log(2.0), np.partition(far, min(NEAR, far.size) - 1)[min(NEAR, far.size) - 1])
            found.append(1.4826 * np.median(sizes[far <= reach]))
        return np.array(found).reshape(at.shape) * np.sqrt(sizes.size / max(sizes.size - len(NAMES), 1))

    def _annealed(self, start: Schedule, steps: int, peak: float, up: int, count: int, batch: float) -> Schedule:
        """The nearest optimum of learning rates in equal pieces, by L-BFGS-B."""
        from scipy.optimize import minimize

        lengths = schedules.equal_lengths(steps - up, count)
        first = start.cut(up) if up else None
        rest = Schedule(np.repeat(start.values, start.lengths)[up:], 1).coarsened(count)
        rest_values = np.repeat(rest.values, rest.lengths)[np.cumsum(lengths) - 1]
        fixed = (
            (np.zeros(0), np.zeros(0))
            if first is None
            else _cut(np.repeat(first.values, first.lengths) / self._search.unit, np.array([up]))[:2]
        )
        top = peak / self._search.unit
        anneal = _Annealing(self._search, self.solution.theta, fixed, lengths.astype(float), batch)
        found = minimize(
            anneal, rest_values / self._search.unit / top, (top,), "L-BFGS-B", jac=True, bounds=[(0.0, 1.0)] * count,
            options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-9},
        )  # fmt: skip
        values = Schedule(np.clip(found.x, 0.0, 1.0) * peak, lengths)
        return values if first is None else first.then(values)

    def _compared(self, compared: Mapping[str, Schedule], steps: int, batch: float, level: float) -> BestSchedule:
        at, tails = np.array([steps]), _tails(level)
        thetas = np.concatenate([self.solution.theta[None], self._draws])
        losses = {
            name: self._losses(thetas, at, np.repeat(s.values, s.lengths), batch)[:, 0] for name, s in compared.items()
        }
        spread = self._spread(at)
        rows = []
        for name, found in losses.items():
            low, high = np.quantile(_scattered(found[1:, None], spread), tails)
            above = found - losses["best"]
            rows.append((name, found[0], low, high, above[0], *np.quantile(above[1:], tails)))
        columns = ("schedule", "loss", "low", "high", "above", "above_low", "above_high")
        table = {column: np.array([row[i] for row in rows]) for i, column in enumerate(columns)}
        return BestSchedule(compared["best"], compared["cosine"], compared["wsd"], level, table)


@dataclass(frozen=True, eq=False, repr=False)
class BestSchedule:
    """What :meth:`CurvesFit.best_schedule` found.

    schedule: the best; cosine, wsd: the best of those families. table: columns schedule ("best", "cosine", "wsd"),
    loss, low and high (interval of a new run's loss), above (the best's loss), above_low and above_high (over the
    bootstrap, without residuals).
    """

    schedule: Schedule
    cosine: Schedule
    wsd: Schedule
    level: float
    table: dict[str, Any]

    @property
    def loss(self) -> float:
        """Predicted, of the best schedule."""
        return float(self.table["loss"][0])

    @property
    def interval(self) -> tuple[float, float]:
        """Of a new run's loss under the best schedule."""
        return float(self.table["low"][0]), float(self.table["high"][0])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Learning rate against step, of the three."""
        import matplotlib.pyplot as plt

        from ..plotting import COLORS, LINES, style

        with style():
            if ax is None:
                ax = plt.subplots()[1]
            for i, (name, s) in enumerate((("best", self.schedule), ("cosine", self.cosine), ("wsd", self.wsd))):
                ends = np.concatenate([[0], s.ends])
                label = f"{name}, loss {self.table['loss'][i]:.4f}"
                ax.stairs(s.values, ends, baseline=None, color=COLORS[i], linestyle=LINES[i], label=label)
            ax.set_xlabel("step")
            ax.set_ylabel("learning rate")
            ax.legend()
        return ax

    def __repr__(self) -> str:
        lines = [f"{'schedule':10}{'loss':>9}  {f'{self.level:.0%} interval':18}{'above the best':>16}"]
        t = self.table
        for i, name in enumerate(t["schedule"]):
            interval = f"{t['low'][i]:.4f} to {t['high'][i]:.4f}"
            above = f"{t['above'][i]:.4f} ({t['above_low'][i]:.4f} to {t['above_high'][i]:.4f})" if i else ""
            lines.append(f"{name:10}{t['loss'][i]:9.4f}  {interval:18}  {above}".rstrip())
        return "\n".join(lines)


def per_step(schedule: Schedule | ArrayLike, steps: int) -> FloatArray:
    """The learning rate of each of the first ``steps`` steps, (steps,), of a Schedule or one entry a step."""
    if isinstance(schedule, Schedule):
        if schedule.beyond == "error" and schedule.steps < steps:
            raise ValueError(f"lr: a schedule shorter than the steps: {schedule.steps} steps, where {steps} are needed")
        _checks.room_for((steps,))
        cut = schedule.cut(steps)
        return np.repeat(cut.values, cut.lengths)
    rates = np.atleast_1d(_checks.reals(schedule, "lr", low=0.0, closed="low", ndim=1))
    if rates.size < steps:
        raise ValueError(
            f"lr: a schedule shorter than the steps: {rates.size} entries, one a step, where {steps} are needed"
        )
    return rates[:steps].copy()


def named_curves(curves: Any) -> dict[str, LossCurve]:
    """The curves by name; a sequence's are called curve 1, curve 2, ..."""
    if isinstance(curves, LossCurve):
        curves = [curves]
    if not isinstance(curves, (Mapping, Sequence)) or isinstance(curves, str):
        raise TypeError(f"curves: expected LossCurves, or a dict of them by name, got {_checks.describe(curves)}")
    given = dict(curves) if isinstance(curves, Mapping) else {f"curve {i + 1}": c for i, c in enumerate(curves)}
    if not given:
        raise ValueError("curves: expected at least one LossCurve, got none")
    for name, curve in given.items():
        _checks.instance(name, str, "curves", "names that are strings")
        _checks.instance(curve, LossCurve, f"curves[{name!r}]", "a nqm.scaling.LossCurve")
    return given


@dataclass(frozen=True, eq=False)
class _Search:
    """Residuals of the log loss and their Jacobian by theta, over observations of all curves; the box and weights.

    unit: the largest learning rate; total: the longest curve's steps.
    """

    problem: _Problem
    steps: IntArray
    logs: FloatArray
    blocks: IntArray
    unit: float
    total: float
    batch: float

    @classmethod
    def of(cls, curves: Mapping[str, LossCurve]) -> _Search:
        unit = max(float(curve.lr.max()) for curve in curves.values())
        total = float(max(int(curve.steps[-1]) for curve in curves.values()))
        seen = [_thinned(curve) for curve in curves.values()]
        courses = [(c.lr / unit, steps, c.batch_size) for c, (steps, _) in zip(curves.values(), seen, strict=True)]
        blocks = [i * BLOCKS + _blocks((s / total) ** (2.0 * LATE)) for i, (s, _) in enumerate(seen)]
        batch = next(iter(curves.values())).batch_size
        return cls(
            _Problem.of(courses, total), np.concatenate([steps for steps, _ in seen]),
            np.log(np.concatenate([loss for _, loss in seen])), np.concatenate(blocks), unit, total, batch,
        )  # fmt: skip

    @property
    def weights(self) -> FloatArray:
        return np.asarray((self.steps / self.total) ** LATE)

    def __call__(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        found, slopes = self.problem.loss(theta)
        return np.log(found) - self.logs, slopes / found[:, None]

    @property
    def least(self) -> float:
        return float(np.exp(self.logs.min()))

    @property
    def low(self) -> FloatArray:
        noise = 1e-6 * self.least * self.batch
        return np.array([0.0, *np.log([1e-4 * self.least, 0.05, 1e-6, noise, 0.01])])

    @property
    def high(self) -> FloatArray:
        """Q <= 1: a step does not overshoot the minimum; beyond, near 2, are optima of another kind."""
        noise = 1e2 * self.least * self.batch
        return np.array([0.999 * self.least, *np.log([1e2 * self.least, 3.0, 1.0, noise, 50.0])])

    @property
    def starts(self) -> tuple[FloatArray, FloatArray]:
        least, noise = self.least, self.least * self.batch
        return (
            np.array([0.6 * least, *np.log([0.02 * least, 0.3, 1e-3, 1e-3 * noise, 0.5])]),
            np.array([0.95 * least, *np.log([0.3 * least, 0.8, 0.3, 0.1 * noise, 10.0])]),
        )

    def named(self, thetas: FloatArray) -> FloatArray:
        """theta (m, 6) as E, P, p, Q, R, kappa."""
        from scipy.special import gammaln

        a, q = np.exp(thetas[:, 2]), np.exp(thetas[:, 3])
        half = np.exp(thetas[:, 1] + a * np.log(2.0 * q * self.total) - gammaln(a))
        return np.stack(
            [thetas[:, 0], 2.0 * half, 1.0 + a, q, np.exp(thetas[:, 4]), np.exp(thetas[:, 5]) / self.total], axis=1
        )


@dataclass(frozen=True, eq=False)
class _Problem:
    """Curves as pieces, and the losses of the model along them.

    pieces: with learning rates relative to the peak; noise: 1 / batch size of each curve; total: steps that modes and
    parameters are scaled by.
    """

    pieces: Pieces
    noise: FloatArray
    total: float

    @classmethod
    def of(cls, courses: Sequence[tuple[FloatArray, IntArray, float]], total: float) -> _Problem:
        """Of (relative learning rates, ascending steps, batch size) of each curve."""
        parts = [_cut(lr, steps) for lr, steps, _ in courses]
        first = np.cumsum([0] + [part[0].size for part in parts])
        lengths, lrs, seen = (np.concatenate([part[i] for part in parts]) for i in range(3))
        batches = np.array([batch for _, _, batch in courses])
        return cls(Pieces(first, lengths, lrs, seen), 1.0 / batches, total)

    def loss(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Losses (n,) and their derivatives (n, 6) by theta = E, log A, log a, log Q, log R, log K.

        A: what is left of the start's excess after ``total`` steps at the peak; a = p - 1; K = kappa total.
        """
        from scipy.special import digamma

        a, q, decay = np.exp(theta[2]), np.exp(theta[3]), np.exp(theta[5]) / self.total
        growth, tangents = effective(self.pieces, 2.0 * decay / WEIGHT, decay)
        along = decay * (2.0 / WEIGHT * tangents[:, :1] + tangents[:, 1:])  # by log kappa
        n, h, start, noise, tail = _modes(theta, self.total, self.noise)
        sums = course(n, h, start, noise, self.pieces._replace(lrs=growth), along)
        b, b_log, v, w, by_decay = (sums[:, i] for i in (0, 1, 2, 4, 6))
        by_a = np.log(2.0 * q * self.total) - digamma(a)  # of log P
        whole = b + tail
        by_exponent = a * (by_a * whole - b_log - tail * (LAST + 1.0 / a))
        slopes = [np.ones(b.size), whole, by_exponent, w + a * whole, v, by_decay]
        return theta[0] + whole + v, np.stack(slopes, axis=1)


def _modes(
    theta: FloatArray, total: float, noise: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, float]:
    """Nodes n, curvatures, starts and noise (rows, modes), and the start of the modes beyond; noise: 1 / batch size."""
    from scipy.special import gammaln

    a, q = np.exp(theta[2]), np.exp(theta[3])
    half = np.exp(theta[1] + a * np.log(2.0 * q * total) - gammaln(a))  # P / 2
    n, weight = modes()
    start = np.broadcast_to(half * n ** -(1.0 + a) * weight, (noise.size, n.size))
    kicks = (0.5 * np.exp(theta[4]) * noise)[:, None] * (n**-NOISE * weight)
    return n, q / n, start, kicks, float(half * np.exp(-a * LAST) / a)


def _cut(lr: FloatArray, steps: IntArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """Pieces up to the last of ascending ``steps``: lengths, mean learning rates, whether at one of ``steps``.

    Cut at the steps, where the learning rate crosses a multiple of 1 / LEVELS, and into PARTS, shorter at first.
    """
    last = int(steps[-1])
    level = np.floor(LEVELS * lr[:last] * (1.0 - 1e-9))
    crossings = 1 + np.flatnonzero(np.diff(level))
    early = (last * np.linspace(0.0, 1.0, PARTS + 1) ** 2).astype(np.int64)  # weights grow fastest at first
    cuts = np.unique(np.concatenate([early, crossings, steps]))
    sums = np.concatenate([[0.0], np.cumsum(lr[:last])])
    lengths = np.diff(cuts).astype(float)
    return lengths, np.maximum(np.diff(sums[cuts]), 0.0) / lengths, np.isin(cuts[1:], steps).astype(np.int64)


class _Annealing:
    """The model's loss at the end of a run, and its gradient, by the learning rates of pieces after the warm-up."""

    def __init__(
        self,
        search: _Search,
        theta: FloatArray,
        fixed: tuple[FloatArray, FloatArray],
        lengths: FloatArray,
        batch: float,
    ) -> None:
        self.search, self.theta, self.fixed = search, theta, fixed
        self.lengths, self.batch = np.concatenate([fixed[0], lengths]), batch

    def __call__(self, shares: FloatArray, top: float) -> tuple[float, FloatArray]:
        lrs = np.concatenate([self.fixed[1], top * shares])
        growth, tangents = self._effective(lrs, shares.size)
        count = lrs.size
        seen = np.zeros(count, dtype=np.int64)
        seen[-1] = 1
        pieces = Pieces(np.array([0, count]), self.lengths, growth, seen)
        n, h, start, noise, tail = _modes(self.theta, self.search.total, np.array([1.0 / self.batch]))
        sums = course(n, h, start, noise, pieces, tangents)[0]
        return float(self.theta[0] + sums[0] + sums[2] + tail), top * sums[6:]

    def _effective(self, lrs: FloatArray, free: int) -> tuple[FloatArray, FloatArray]:
        """g of every piece and its derivatives by the last ``free`` learning rates, (pieces, free)."""
        kappa, first = np.exp(self.theta[5]) / self.search.total, lrs.size - free
        v, dv = 1.0, np.zeros(free)
        found, tangents = np.empty(lrs.size), np.zeros((lrs.size, free))
        for j, (s, m) in enumerate(zip(lrs, self.lengths, strict=True)):
            e, root, droot = np.exp(-2.0 * kappa * s * m), np.sqrt(v), 0.5 * dv / np.sqrt(v)
            dv = e * dv
            if j >= first:
                dv[j - first] += (1.0 - e) / WEIGHT + 2.0 * kappa * m * e * (s / WEIGHT - v)
            v = e * v + s * (1.0 - e) / WEIGHT
            roots = root + np.sqrt(v)
            found[j] = 2.0 * s / roots
            tangents[j] = -found[j] / roots * (droot + 0.5 * dv / np.sqrt(v))
            if j >= first:
                tangents[j, j - first] += 2.0 / roots
        return found, tangents


def _thinned(curve: LossCurve) -> tuple[IntArray, FloatArray]:
    """Steps and losses of a curve; of more than MOST, the middle step and mean loss of each of some groups."""
    size = curve.steps.size
    if size <= MOST:
        return curve.steps, curve.loss
    edges = np.arange(MOST + 1) * size // MOST
    means = np.add.reduceat(curve.loss, edges[:-1]) / np.diff(edges)
    return curve.steps[(edges[:-1] + edges[1:]) // 2], means


def _blocks(weights: FloatArray) -> IntArray:
    """The block, 0 to BLOCKS - 1, of each of consecutive observations: blocks of equal weight."""
    middle = np.cumsum(weights) - 0.5 * weights
    return np.asarray(middle / weights.sum() * BLOCKS, dtype=np.int64)


def _tails(level: float) -> list[float]:
    share = _checks.real(level, "level", low=0.0, high=1.0)
    return [0.5 - 0.5 * share, 0.5 + 0.5 * share]


def _scattered(losses: FloatArray, spread: FloatArray) -> FloatArray:
    """Losses (draws, ...) with a normal residual each, of standard deviation ``spread`` (...) of the log loss."""
    from scipy.special import ndtri

    bell = ndtri((np.arange(BELLS) + 0.5) / BELLS)
    bell = bell / np.sqrt(np.mean(bell**2))
    scattered = losses[:, None] * np.exp(np.multiply.outer(bell, spread))
    return scattered.reshape(-1, *losses.shape[1:])


def _cosines(steps: int, peak: float, up: int) -> list[Schedule]:
    return [schedules.warmup(schedules.cosine(peak, steps - up, end), up) for end in (0.0, 0.1)]


def _wsds(steps: int, peak: float, up: int) -> list[Schedule]:
    found = []
    for share in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8):
        down = max(1, round(share * (steps - up)))
        for cooldown, ends in (
            ("linear", (0.0, 0.01, 0.1)),
            ("exponential", (0.01, 0.1)),
            ("1-sqrt", (0.0, 0.01, 0.1)),
        ):
            for end in ends:
                shape: Any = cooldown
                found.append(schedules.wsd(peak, steps, up, down, shape, end))
    return found
