"""The best learning-rate schedule under a fit to loss curves, beside the best cosine and warmup-stable-decay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ... import _checks, schedules
from ..._checks import FloatArray
from ..._statistics import interval
from ..._table import Table
from ...schedules import Schedule
from ..models.loss_curve_model import cut_into_pieces, loss_after
from .tabulated import Tabulated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..fits.fit_curves import CurvesFit

__all__ = ["BestSchedule", "best_schedule"]

DECAYS: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)  # shares of the steps after the warm-up
COOLDOWNS: Final[tuple[tuple[Any, float], ...]] = (  # shapes, and shares of the peak that they end at
    ("linear", 0.0), ("linear", 0.01), ("linear", 0.1), ("exponential", 0.01), ("exponential", 0.1),
    ("1-sqrt", 0.0), ("1-sqrt", 0.01), ("1-sqrt", 0.1),
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class BestSchedule(Tabulated):
    """What :func:`best_schedule` found.

    schedule: the best; cosine, wsd: the best of those families. table: columns schedule ("best", "cosine", "wsd"),
    loss, low and high (interval of a new run's loss), above (the best's loss), above_low and above_high (over the
    bootstrap, without residuals).
    """

    schedule: Schedule
    cosine: Schedule
    wsd: Schedule
    level: float
    table: Table

    @property
    def loss(self) -> float:
        """Predicted, of the best schedule."""
        return float(self.table["loss"][0])

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) of a new run's loss under the best schedule."""
        return float(self.table["low"][0]), float(self.table["high"][0])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Learning rate against step, of the three."""
        from ...plotting import plot_schedules

        rows = zip(self.table["schedule"], self.table["loss"], (self.schedule, self.cosine, self.wsd), strict=True)
        return plot_schedules({f"{name}, loss {loss:.4f}": schedule for name, loss, schedule in rows}, ax)

    def __repr__(self) -> str:
        lines = [f"{'schedule':10}{'loss':>9}  {f'{self.level:.0%} interval':18}{'above the best':>16}"]
        t = self.table
        for i, name in enumerate(t["schedule"]):
            interval = f"{t['low'][i]:.4f} to {t['high'][i]:.4f}"
            above = f"{t['above'][i]:.4f} ({t['above_low'][i]:.4f} to {t['above_high'][i]:.4f})" if i else ""
            lines.append(f"{name:10}{t['loss'][i]:9.4f}  {interval:18}  {above}".rstrip())
        return "\n".join(lines)


def best_schedule(
    fit: CurvesFit,
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
    the steps after the warm-up.

    Args:
        steps: length, warm-up included, >= 2.
        peak_lr: > 0, in the unit of the curves.
        warmup: steps of the linear warm-up; by default the curves' longest, at most a tenth of ``steps``.
        pieces: of the rest, of equal length.
        batch_size: that of the first curve by default.
        level: of the intervals.

    Raises (TypeError, ValueError) and warns as :meth:`CurvesFit.predict` does.

    >>> import numpy as np, nqm
    >>> steps = np.arange(200, 4001, 100)
    >>> lr = nqm.schedules.constant(0.001, 4000), nqm.schedules.cosine(0.001, 4000)
    >>> losses = 2.0 + steps**-0.5, 2.0 + steps**-0.5 - 1e-9 * steps**2
    >>> fit = nqm.scaling.fit_curves([nqm.scaling.LossCurve(steps, *one) for one in zip(losses, lr)])
    >>> best = fit.best_schedule(8000, 0.001)
    >>> bool(best.loss <= best.table["loss"].min() < 2.0 + 8000**-0.5)
    True
    """
    length, peak = _checks.whole(steps, "steps", low=2), _checks.real(peak_lr, "peak_lr", low=0.0)
    usual = min(max(int(np.argmax(curve.lr)) for curve in fit.curves.values()), length // 10)
    up = usual if warmup is None else _checks.whole(warmup, "warmup", high=length - 1)
    count = min(_checks.whole(pieces, "pieces", low=1), length - up)
    level = _checks.real(level, "level", low=0.0, high=1.0)
    _, _, batch = fit.asked(schedules.constant(peak, length), length, batch_size)

    def losses(schedule: Schedule, draws: int | None = None) -> FloatArray:
        return fit.losses(np.repeat(schedule.values, schedule.lengths), np.array(length), batch, draws)

    def loss(schedule: Schedule) -> float:
        return float(losses(schedule, 0)[0])

    cosine, wsd = _rivals(loss, length, peak, up)
    flat = schedules.warmup(schedules.constant(peak, length - up), up)
    best = min((cosine, wsd, *(_annealed(fit, s, peak, up, count, batch) for s in (cosine, wsd, flat))), key=loss)
    found = np.stack([losses(schedule) for schedule in (best, cosine, wsd)], axis=1)  # (draws + 1, 3)
    low, high = fit.ends(found[1:], np.full(3, length), level)
    above = found - found[:, :1]
    above_low, above_high = interval(above[1:], level)
    columns = {"schedule": ["best", "cosine", "wsd"], "loss": found[0], "low": low, "high": high, "above": above[0]}
    table = Table({**columns, "above_low": above_low, "above_high": above_high})
    return BestSchedule(best, cosine, wsd, level, table)


def _rivals(loss: Callable[[Schedule], float], length: int, peak: float, up: int) -> tuple[Schedule, Schedule]:
    """The best cosine and the best warmup-stable-decay."""
    cosines = (schedules.warmup(schedules.cosine(peak, length - up, end), up) for end in (0.0, 0.1))
    downs = [max(1, round(share * (length - up))) for share in DECAYS]
    decays = (schedules.wsd(peak, length, up, d, *end) for d, end in product(downs, COOLDOWNS))
    return min(cosines, key=loss), min(decays, key=loss)


def _annealed(fit: CurvesFit, start: Schedule, peak: float, up: int, count: int, batch: float) -> Schedule:
    """The nearest optimum of learning rates in ``count`` equal pieces after ``up`` steps, by L-BFGS-B."""
    from scipy.optimize import minimize

    lr, top = np.repeat(start.values, start.lengths), peak / fit.search.unit
    lengths = schedules.equal_lengths(lr.size - up, count)
    rest = Schedule(lr[up:], 1).coarsened(count)
    shares = rest(np.cumsum(lengths) - 1) / fit.search.unit / top
    fixed, rising, _ = cut_into_pieces(lr[:up] / fit.search.unit, np.array([up]))

    def loss(shares: FloatArray) -> tuple[float, FloatArray]:
        lrs = np.append(rising, top * shares)
        found, slopes = loss_after(fit.theta, fit.search.total, batch, np.append(fixed, lengths), lrs, count)
        return found, top * slopes

    found = minimize(
        loss, shares, method="L-BFGS-B", jac=True, bounds=[(0.0, 1.0)] * count,
        options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-9},
    )  # fmt: skip
    best = Schedule(np.clip(found.x, 0.0, 1.0) * peak, lengths)
    return start.cut(up).then(best) if up else best
