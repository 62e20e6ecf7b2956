"""The multi-power law, the baseline for loss curves: Luo et al. (2025), "A Multi-Power Law for Loss Curve Prediction
Across Learning Rate Schedules", ICLR, equation 1.

    L(t) = L0 + A (S_1(t) + S_W)^-alpha - B sum_{k=1..t} (lr_{k-1} - lr_k) G(lr_k^-gamma S_k(t))
    G(x) = 1 - (1 + C x)^-beta

with S_1(t) + S_W = the sum of learning rates over the t steps, S_k(t) = lr_k + ... + lr_{t-1}, and S_W the part in the
warm-up, whose rise is among the changes (so that B lr_peak is nearly an offset; without it the published parameters
are 0.1 off). Seven parameters, no noise level, no batch size; A, B and C carry the units of the learning rate.

A schedule that changes at every step has as many terms as steps: changes within 1 / GROUPS of the steps and between the
same two observations are taken together, as one change of the same size at their centre. On a 24,000-step cosine with
an observation every 128 steps that moves a loss by less than 3e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ... import _checks
from ..._checks import FloatArray, IntArray
from ...schedules import Schedule
from ..logs import LossCurve
from ..logs.loss_curve import Curves, named_curves, per_step
from .robust_least_squares import solve

__all__ = ["MultiPowerLaw", "multi_power_law"]

NAMES: Final = ("L0", "A", "alpha", "B", "C", "beta", "gamma")
GROUPS: Final = 512  # of changes of the learning rate along a schedule
STARTS: Final = 8
TINY: Final = 1e-12  # least learning rate, so that one of 0 has a power
MAX_OBSERVATIONS: Final = 400  # observations of a curve that are fitted; of more, every so many-th


def multi_power_law(curves: Curves, *, seed: int = 0) -> MultiPowerLaw:
    """Fit the multi-power law to loss curves: least Huber cost of the log loss, from several starts, exact gradients.

    Only observations after the warm-up (up to the first step of the largest learning rate) count: the law is silent
    about those before.

    Args:
        curves: at least one :class:`LossCurve`, or a dict of them by name.
        seed: of the starts.

    Raises:
        TypeError, ValueError: for what are no curves, or curves with fewer than eight observations after the warm-up.

    >>> import numpy as np, nqm
    >>> steps = np.arange(200, 4001, 100)
    >>> curve = LossCurve(steps, 2.0 + steps**-0.5, nqm.schedules.constant(0.001, 4000))
    >>> law = multi_power_law([curve])
    >>> bool(abs(law.predict(curve.lr, 2000) - 2.0 - 2000**-0.5) < 1e-4)
    True
    """
    given = named_curves(curves)
    after = {name: _used(curve) for name, curve in given.items()}
    count = sum(int(here.sum()) for here in after.values())
    if count <= len(NAMES):
        raise ValueError(
            f"curves: expected more than {len(NAMES)} observations after the warm-up, for {len(NAMES)} parameters, "
            f"got {count}; give longer curves"
        )
    used = [(curve, after[name]) for name, curve in given.items() if after[name].any()]
    logs = np.log(np.concatenate([curve.loss[here] for curve, here in used]))
    # in units of the largest learning rate and of the largest sum of learning rates: the fit is the same in any units
    unit = max(float(curve.lr.max()) for curve, _ in used)
    total = max(float(curve.lr[: int(curve.steps[-1])].sum()) for curve, _ in used)
    path = Path.joined([Path.along(curve.lr / unit, curve.steps[here], unit / total) for curve, here in used])

    def function(theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        loss, slopes = _law(path, theta)
        safe = np.maximum(loss, 1e-6)  # a trial step may predict a loss below zero
        return np.log(safe) - logs, slopes / safe[:, None]

    least, most = float(np.exp(logs.min())), float(np.exp(logs.max()))
    first, random = float(path.sums.min()), np.random.default_rng(_checks.whole(seed, "seed"))
    starts = np.empty((STARTS, len(NAMES)))
    for start in starts:
        floor, alpha = least * random.uniform(0.7, 0.98), random.uniform(0.3, 0.7)
        start[:3] = floor, np.log((most - floor) * first**alpha), np.log(alpha)
        start[3:5] = np.log(least * random.uniform(0.02, 0.2)), random.uniform(3.0, 8.0)
        start[5:] = np.log(random.uniform(0.3, 0.8, 2))
    low = np.array([0.0, -15.0, -4.0, -15.0, -5.0, -4.0, -4.0])
    high = np.array([least, 15.0, 2.0, 15.0, 20.0, 3.0, 2.0])
    found = solve(function, starts, low, high)
    a, alpha, b, c, beta, gamma = np.exp(found.theta[1:])
    values = (found.theta[0], a * total**alpha, alpha, b / unit, c * unit**gamma / total, beta, gamma)
    parameters = dict(zip(NAMES, map(float, values), strict=True))
    return MultiPowerLaw(parameters, float(found.scale), count)


@dataclass(frozen=True)
class MultiPowerLaw:
    """The law with its parameters: those of :func:`multi_power_law`, or published ones.

    parameters: L0, A, alpha, B, C, beta, gamma, in the units of the learning rates; scale: robust standard deviation
    of the log loss around the fit, observations: how many it was fitted to (NaN and 0: not fitted).

    >>> law = MultiPowerLaw(dict(L0=2.0, A=0.1, alpha=0.5, B=300.0, C=2.0, beta=0.5, gamma=0.6))
    >>> round(law.predict([0.001] * 100, 100), 4)
    2.3162
    """

    parameters: dict[str, float]
    scale: float = float("nan")
    observations: int = 0

    def __post_init__(self) -> None:
        missing = [name for name in NAMES if name not in self.parameters]
        if missing or len(self.parameters) > len(NAMES):
            raise ValueError(f"parameters: expected {', '.join(NAMES)}, got {', '.join(self.parameters) or 'none'}")
        for name, value in self.parameters.items():
            _checks.real(value, name, low=0.0, closed="low")

    def predict(self, schedule: Schedule | ArrayLike, steps: ArrayLike) -> Any:
        """The loss after ``steps`` steps along a schedule: a float for a number, an array of the same shape else.

        Args:
            schedule: learning rates as in :class:`LossCurve`: a :class:`nqm.Schedule`, or one per step. Its warm-up
                lasts up to the first step of its largest learning rate.
            steps: whole numbers beyond the warm-up, in any order.

        Raises:
            TypeError, ValueError: for what is not that, or a schedule shorter than the steps.
        """
        at = _checks.wholes(steps, "steps", low=1)
        lr = per_step(schedule, int(at.max()))
        peak = peak_step(lr)
        if at.min() <= peak:
            raise ValueError(
                f"steps: expected steps after the warm-up of {peak} steps, about which the law says nothing, "
                f"got {at.min()}"
            )
        ordered, place = np.unique(at, return_inverse=True)
        p = self.parameters
        theta = np.array([p["L0"], *np.log([max(p[name], 1e-300) for name in NAMES[1:]])])
        found = _law(Path.along(lr, ordered, 1.0), theta)[0][place.reshape(at.shape)]
        return float(found) if at.ndim == 0 else found


@dataclass(frozen=True, eq=False)
class Path:
    """What the law needs to know of schedules at their observations.

    sums: S_1 + S_W at each observation (n,). Changes of the learning rate, one entry for each pair of an observation
    and a group of changes before it: ``owner``, the observation, ``drop`` = lr_{k-1} - lr_k, ``lr`` = lr_k, ``since`` =
    S_k.
    """

    sums: FloatArray
    owner: IntArray
    drop: FloatArray
    lr: FloatArray
    since: FloatArray

    @classmethod
    def along(cls, lr: FloatArray, steps: IntArray, factor: float) -> Path:
        """At ascending ``steps`` along one learning rate per step; sums are multiplied by ``factor``."""
        until = np.concatenate([[0.0], np.cumsum(lr)]) * factor
        drops = -np.diff(lr)
        k = 1 + np.flatnonzero(drops)  # lr[k] is not lr[k - 1]
        k = k[k < steps[-1]]
        interval = np.searchsorted(steps, k, side="right")  # the first observation that feels the change
        group = np.unique(interval * GROUPS + k * GROUPS // lr.size, return_index=True)[1]
        if k.size == 0:
            empty = np.empty(0)
            return cls(until[steps], np.empty(0, dtype=np.int64), empty, empty, empty)
        size = np.abs(drops[k - 1])
        total = np.add.reduceat(size, group)
        drop = np.add.reduceat(drops[k - 1], group)
        rate, start = (np.add.reduceat(size * values[k], group) / total for values in (lr, until))
        first = interval[group]
        of = np.concatenate([np.arange(i, steps.size) for i in first])
        pair = np.repeat(np.arange(group.size), steps.size - first)
        return cls(until[steps], of, drop[pair], np.maximum(rate[pair], TINY), until[steps][of] - start[pair])

    @classmethod
    def joined(cls, paths: Sequence[Path]) -> Path:
        """Several as one."""
        before = np.cumsum([0] + [path.sums.size for path in paths])
        owners = [path.owner + offset for path, offset in zip(paths, before, strict=False)]
        rest = (np.concatenate([getattr(path, name) for path in paths]) for name in ("drop", "lr", "since"))
        return cls(np.concatenate([path.sums for path in paths]), np.concatenate(owners), *rest)


def peak_step(lr: FloatArray) -> int:
    """The warm-up's length: the first step of the largest learning rate."""
    return int(np.argmax(lr))


def _law(path: Path, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Losses (n,) and their derivatives (n, 7) by theta = L0, log A, log alpha, log B, log C, log beta, log gamma."""
    a, alpha, b, c, beta, gamma = np.exp(theta[1:])
    bulk = a * path.sums**-alpha
    log_lr = np.log(path.lr)
    x = c * np.exp(-gamma * log_lr) * path.since
    left = np.exp(-beta * np.log1p(x))  # 1 - G
    slope = beta * left * x / (1.0 + x)  # of G by log x
    terms = (1.0 - left, slope, beta * np.log1p(x) * left, -gamma * log_lr * slope)
    gain, by_c, by_beta, by_gamma = (b * np.bincount(path.owner, path.drop * t, path.sums.size) for t in terms)
    slopes = [np.ones(bulk.size), bulk, -alpha * np.log(path.sums) * bulk, -gain, -by_c, -by_beta, -by_gamma]
    return theta[0] + bulk - gain, np.stack(slopes, axis=1)


def _used(curve: LossCurve) -> NDArray[np.bool_]:
    """Which observations are fitted: those after the warm-up, or MAX_OBSERVATIONS of them."""
    here = curve.steps > peak_step(curve.lr)
    every = -(-int(here.sum()) // MAX_OBSERVATIONS)
    return here & (np.cumsum(here) % max(every, 1) == 0)
