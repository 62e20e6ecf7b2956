"""The best allocation of a fitted scaling law: parameters, batch size and steps of the least loss under limits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, Final

import numpy as np

from ... import _checks
from ..._checks import FloatArray
from ..._statistics import interval
from .box_search import DRAWS, REACH, StepTime, box, log_losses, lowest, seconds_of, warn_far
from .fit import Fit

__all__ = ["Allocation", "best"]

EXHAUSTIVE: Final = 2**15  # so many whole-number allocations are all tried
ENDLESS: Final = 10**99
ROUNDS: Final = 3  # of finer grids, for the optimum of each draw

Interval = tuple[float, float]


@dataclass(frozen=True)
class Allocation:
    """The best found by :func:`best`.

    params, batch_size, steps: whole numbers. loss: predicted there. loss_interval: over bootstrap draws (expected loss:
    a run's own scatter comes on top). compute: FLOP. time: seconds, None without step_time. examples: batch_size *
    steps. limits: the names of those that the next step, parameter or example would break. The other intervals: of the
    best allocations by each draw, as real numbers, to about a tenth of their width, widened to hold the answer where
    whole numbers keep it from them; NaN for a fit without draws.
    on_edge: at the edge of the box searched, 100 times beyond the data: there may be a better one outside.
    """

    params: int
    batch_size: int
    steps: int
    loss: float
    loss_interval: Interval
    compute: float
    time: float | None
    examples: int
    limits: tuple[str, ...]
    params_interval: Interval
    batch_size_interval: Interval
    steps_interval: Interval
    on_edge: bool

    def __str__(self) -> str:
        lines = []
        for name in ("params", "batch_size", "steps", "loss", "examples", "compute", "time"):
            value, ends = getattr(self, name), getattr(self, f"{name}_interval", None)
            if value is not None:
                digits = ",.0f" if name in ("batch_size", "steps", "examples") else ".4g"
                interval = "" if ends is None else f"  {ends[0]:{digits}} to {ends[1]:{digits}}"
                lines.append(f"{name:<10}  {value:<12{digits}}{interval}".rstrip())
        lines.append(f"{'limits':<10}  {', '.join(self.limits) or 'none binds'}")
        if self.on_edge:
            lines.append(f"at the edge of what was searched, {REACH:g} times beyond the data")
        return "\n".join(lines)


def best(
    fit: Fit,
    *,
    compute: float | None = None,
    steps_max: float | None = None,
    batch_max: float | None = None,
    params_max: float | None = None,
    time: float | None = None,
    step_time: StepTime | None = None,
    sequence_length: float = 1,
    level: float = 0.9,
) -> Allocation:
    """Parameters N, batch size B and steps K of the lowest predicted loss under the limits, all whole numbers.

    Limits that are given hold exactly; either ``compute``, or all of ``params_max``, ``batch_max`` and one of
    ``steps_max`` and ``time`` (then nothing else bounds the problem) are needed.

    Args:
        fit: anything with ``.losses`` and ``.runs``, such as a ``RunsFit``.
        compute: FLOP, 6 N B K sequence_length (Kaplan et al. 2020: 2 forward and 4 backward per parameter, token).
        steps_max, batch_max: most steps, most examples per step.
        params_max: most parameters; what the memory has room for.
        time: most seconds, together with ``step_time``.
        step_time: seconds per step: a number, or a function (N, B) -> seconds; inf says that it cannot be done, for
            lack of memory say.
        sequence_length: tokens per example; 1, if B counts tokens.
        level: of the intervals, over 50 bootstrap draws, each with its own N and B.

    Compute alone leaves time free: the answer may take very many small steps; then give time or steps_max as well.

    The best K at each N and B, the best N at each B, then the best B: on grids and in steps that halve, from 1 to 100
    times the most of the runs (N: from a hundredth of the least); then whole numbers near by. The loss may rise with N,
    B or K, if it has one minimum between points of a grid. Warns (UserWarning) where N, B, K or compute is more than 10
    times beyond the runs.

    Up to 32,768 allocations in whole numbers are all tried. Of more, where so few steps are allowed that one more or
    less matters, a better one may lie farther off (up to 3% of the loss in contrived cases).

    Raises:
        TypeError, ValueError: for wrong arguments, a limit that is missing (which is named), or limits that allow
            not even one parameter, one example and one step.

    >>> import numpy as np, nqm
    >>> N, B, K = 10.0 ** np.arange(6, 10)[:, None], 256.0, 10.0 ** np.arange(3, 6)
    >>> fit = nqm.scaling.chinchilla(N, B, K, 1.7 + 400 * N**-0.34 + 60 * (B * K) ** -0.28)
    >>> found = fit.best(compute=1e21, batch_max=512, sequence_length=1024)
    >>> found.limits, round(found.loss, 3), found.compute <= 1e21
    (('compute',), 2.34, True)
    """
    level = _checks.real(level, "level", low=0.0, high=1.0)
    search = _Search(fit, compute, (params_max, batch_max, steps_max), time, step_time, sequence_length)
    N, B, K = search.lowest()
    losses = np.asarray(fit.losses(float(N), float(B), float(K), draws=DRAWS))
    optima = search.optima(math.log(B)) if len(losses) > 1 else np.empty((0, 3))
    ends = [*interval(optima, level).T.tolist(), interval(losses[1:], level).tolist()]
    ends = [[min(low, at), max(high, at)] for (low, high), at in zip(ends, (N, B, K, ends[3][0]), strict=True)]
    flop = 6.0 * search.length
    answer = {"params": N, "batch_size": B, "steps": K, "compute": flop * N * B * K}
    warn_far(fit, "the best allocation lies", answer, flop)
    upper = any(v > 0.999 * e and e < most for v, e, most in zip((N, B, K), search.edge, search.limits, strict=True))
    return Allocation(
        params=N, batch_size=B, steps=K, loss=float(losses[0]), compute=flop * N * B * K, examples=B * K,
        time=None if step_time is None else K * float(search.seconds(N, B)), limits=search.broken(N, B, K, more=1),
        params_interval=tuple(ends[0]), batch_size_interval=tuple(ends[1]), steps_interval=tuple(ends[2]),
        loss_interval=tuple(ends[3]), on_edge=upper or 1.0 < math.exp(search.ends[0, 0]) >= 0.999 * N,
    )  # fmt: skip


class _Search:
    """The limits, checked, and the lowest loss under them; n, b, k are logs of N, B, K."""

    def __init__(
        self, fit: Any, compute: Any, most: tuple[Any, Any, Any], time: Any, step_time: Any, length: Any
    ) -> None:
        self.fit, self.ends, self.seconds = fit, box(fit), seconds_of(step_time)
        self.time = math.inf if time is None else _checks.real(time, "time", low=0.0)
        self.length = _checks.real(length, "sequence_length", low=0.0)
        self.limits = [
            ENDLESS if value is None else math.floor(_checks.real(value, name, low=1.0, closed="low"))
            for name, value in zip(("params_max", "batch_max", "steps_max"), most, strict=True)
        ]
        if time is not None and step_time is None:
            raise ValueError("step_time: expected seconds a step, or a function (N, B) -> seconds, together with time")
        wanted = {"params_max": most[0], "batch_max": most[1], "steps_max (or time)": time if most[2] is None else 1}
        missing = " and ".join(name for name, value in wanted.items() if value is None)
        if compute is None and missing:
            raise ValueError(f"expected limits that bound the problem: give compute, or else {missing}")
        flop = Fraction(ENDLESS if compute is None else _checks.real(compute, "compute", low=0.0))
        self.product = math.floor(flop / 6 / Fraction(self.length))  # N B K, in whole numbers of any length
        if self.product < 1:
            one = f"{6.0 * self.length:g} FLOP, for one parameter, example and step"
            raise ValueError(f"compute: expected at least {one}, got {compute}")
        if self.seconds(1.0, 1.0) > self.time:
            raise ValueError(f"time: expected at least one step's, {self.seconds(1.0, 1.0):g} s, got {time}")
        self.edge = [math.floor(math.exp(end) * (1.0 + 1e-12)) for end in self.ends[:, 1]]
        self.most = [min(*pair, self.product) for pair in zip(self.limits, self.edge, strict=True)]
        self.ends[:, 1] = np.log(self.most)
        self.ends[0, 0] = min(self.ends[0, 0], max(0.0, self.ends[0, 1] - math.log(REACH)))
        if self.seconds(math.exp(self.ends[0, 0]), 1.0) > self.time:
            self.ends[0, 0] = 0.0

    def broken(self, N: int, B: int, K: int, more: int = 0) -> tuple[str, ...]:
        """Names of the limits that N, B, K break, exactly, or would with one ``more`` step (parameter, example)."""
        over = {
            "compute": N * B * (K + more) > self.product,
            "steps_max": K + more > self.limits[2],
            "batch_max": B + more > self.limits[1],
            "params_max": N + more > self.limits[0],
            "time": self.time < math.inf and (K + more) * self.seconds(N, B) > self.time,
        }
        return tuple(name for name, yes in over.items() if yes)

    def steps(self, n: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log K of the lowest loss, and its log: the most steps allowed, or fewer where the last ones make it worse.

        Of equal losses, those of N, B, K among the runs come out a little less.
        """
        k = np.minimum(self.ends[2, 1], math.log(self.product) - n - b)
        if self.time < math.inf:
            k = np.minimum(k, math.log(self.time) - np.log(self.seconds(np.exp(n), np.exp(b))))
        values = log_losses(self.fit, n, b, k)[0]
        worse = log_losses(self.fit, n, b, k - 0.05)[0] < values
        if worse.any():
            points = np.linspace(0.0, k[worse], 13)
            k[worse], values[worse] = lowest(lambda k: log_losses(self.fit, n[worse], b[worse], k)[0], points, 16)
        for x, name in ((n, "N"), (b, "B"), (np.maximum(k, 0.0), "K")):
            low, high = np.log([self.fit.runs[name].min(), self.fit.runs[name].max()])
            values = values + 1e-9 * np.maximum(np.maximum(low - x, x - high), 0.0)
        return k, values

    def sizes(self, b: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log N of the lowest loss at each batch size, and its log."""
        points = np.linspace(self.ends[0, 0] + 0.0 * b, self.ends[0, 1], 25)
        return lowest(lambda n: self.steps(*np.broadcast_arrays(n, b))[1], points, 14)

    def lowest(self) -> tuple[int, int, int]:
        """The best whole numbers of all there are, if they are few; else near the lowest point, then near those."""
        if math.prod(self.most) <= EXHAUSTIVE:
            every = 1.0 + np.indices(self.most).reshape(3, -1)
            fits = (every.prod(axis=0) <= self.product) & (every[2] * self.seconds(*every[:2]) <= self.time)
            losses = self.fit.losses(*every[:, fits], draws=0)[0]
            N, B, K = every[:, fits][:, np.nanargmin(losses)].astype(int).tolist()
            return N, B, K
        b, _ = lowest(lambda b: self.sizes(b)[1], np.linspace(self.ends[1, 0], self.ends[1, 1], 33), 14)
        batches = np.unique(np.clip(math.floor(math.exp(b)) + np.arange(-2, 4), 1, self.most[1]))
        n, _ = self.sizes(np.log(batches))
        k, _ = self.steps(n, np.log(batches))
        whole = np.floor(np.exp([n, np.log(batches), np.maximum(k, 0.0)]) + 1e-6).astype(int)
        points = {(1, 1, 1), *((N, B, K) for N, B, K in whole.T.tolist())}
        found = (0, 0, 0)
        for _ in range(10):
            allowed = sorted(point for point in points if min(point) > 0 and not self.broken(*point))
            best = allowed[int(np.nanargmin(self.fit.losses(*np.array(allowed, dtype=float).T, draws=0)[0]))]
            if best == found:
                break
            found = best
            points = {best} | {point for i, j in product(range(-5, 6), repeat=2) for point in self.near(*best, i, j)}
        return found

    def near(self, N: int, B: int, K: int, i: int, j: int) -> list[tuple[int, int, int]]:
        """Two numbers moved by i and j, the third as it was or as large as it may be."""

        def most(which: int, one: int, other: int) -> int:
            return min(self.product // max(one * other, 1), self.most[which])

        steps = most(2, N + i, B + j)
        if self.time < math.inf:
            steps = min(steps, int(self.time / float(self.seconds(max(N + i, 1), max(B + j, 1)))))
        return [(N + i, B + j, K), (N + i, B, K + j), (N, B + i, K + j), (N + i, B + j, steps),
                (N + i, most(1, N + i, K + j), K + j), (most(0, B + i, K + j), B + i, K + j)]  # fmt: skip

    def optima(self, b: float) -> FloatArray:
        """(draws, 3): N, B, K of the lowest loss by each bootstrap draw.

        The best of 13 x 13 points around log B and the prediction's best log N; again between the neighbours of all
        those found, and again; then by parabolas. K is the prediction's best at N and B.
        """
        low = np.array([float(self.sizes(np.array([b]))[0][0]) - 2.0, b - 2.0])
        high = low + 4.0
        for _ in range(ROUNDS):
            low, high = np.maximum(low, self.ends[:2, 0]), np.minimum(high, self.ends[:2, 1])
            grids = np.linspace(low, high, 13).T
            n, across = (axis.ravel() for axis in np.meshgrid(*grids, indexing="ij"))
            k = self.steps(n, across)[0]
            losses = log_losses(self.fit, n, across, k, DRAWS)[1:]
            at = losses.argmin(axis=1)
            found, step = np.stack([n[at], across[at]]), (high - low) / 12.0
            low, high = found.min(axis=1) - step, found.max(axis=1) + step
        i, j = np.unravel_index(at, (13, 13))
        square, draw = losses.reshape(-1, 13, 13), np.arange(len(losses))
        found += step[:, None] * np.stack([_vertex(square[draw, :, j], i), _vertex(square[draw, i], j)])
        return np.exp([*found, self.steps(*found)[0]]).T


def _vertex(values: FloatArray, at: Any) -> FloatArray:
    """How far the lowest point of the parabola through the lowest of (draws, points) and its neighbours is from it."""
    middle = np.clip(at, 1, values.shape[1] - 2)
    left, center, right = (values[np.arange(len(values)), middle + i] for i in (-1, 0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = 0.5 * (left - right) / (left - 2.0 * center + right)
    return np.where((at == middle) & (np.abs(shift) <= 0.5), shift, 0.0)
