"""The landscape of schedules: log risk after T steps over the log learning rates of all pieces, and what lies below a
point of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .._checks import FloatArray, IntArray
from .._risk import stable_lr
from ..backends.types import RiskGradient
from ..dynamics import additive
from ..optimizers import FREE, Optimizer
from ..problems.quadratic import NoisyQuadratic
from ..schedules import Schedule, equal_lengths
from .first_passage import searchable
from .tune import tune

ROOM = 40.0  # how far below the bound a log learning rate may go
LEAST, MOST = 1e-6, 18.0  # -log(1 - value) of a momentum or decay
MOST_ASKED = 10**6  # steps of a shape
FEW = 12  # up to so many variables, starts all over the place are cheap
SHORT = 32  # pieces of fewer steps than these have several minima


class Layout(NamedTuple):
    """Pieces of T steps, cut where a given schedule changes within one."""

    lengths: IntArray  # (pieces,), of the variables; 0 for some where there are fewer steps than pieces
    parts: IntArray  # (parts,), what they are cut into
    owner: IntArray  # (parts,), the piece that each is of
    begins: IntArray  # (parts,), first step


class Course:
    """log risk after T steps over the variables of one question: log(lr / limit) of each piece (of the peak, where
    there is a shape), -log(1 - value) of momentum and decay."""

    def __init__(
        self,
        problem: NoisyQuadratic,
        optimizer: Optimizer,
        batch: float,
        ramp: Schedule | None,
        examples: float | None,
        max_lr: float | str | None,
        weights: FloatArray | int,
        shape: Callable[[float, int], Schedule] | None,
    ) -> None:
        self.problem, self.nodes, self.optimizer = problem, searchable(problem), optimizer
        self.batch, self.ramp, self.examples, self.max_lr, self.weights = batch, ramp, examples, max_lr, weights
        self.shape = shape
        self.farthest = 2.0**40  # steps of which an answer "unreachable" tells
        self._laid_out: tuple[float, Layout] | None = None
        self._profiled: tuple[int, FloatArray] | None = None
        self.pieces = weights if isinstance(weights, int) else weights.size
        self.names = tuple(name for name in optimizer.free if name != "lr")
        self.fixed = {k: v for k, v in optimizer.hyperparameters.items() if v is not FREE and k != "lr"}
        self.given = None if optimizer.hyperparameters["lr"] is FREE else optimizer.hyperparameters["lr"]
        self.rates_free = 0 if self.given is not None else self.pieces if shape is None else 1
        self.size = self.rates_free + len(self.names)
        # Where the largest stable learning rate lies, for momentum 0, relative to the bound.
        stable = float(np.asarray(stable_lr(problem, optimizer, {**self.fixed, **dict.fromkeys(self.names, 0.0)})))
        self.stable = math.log(stable / max_lr) if isinstance(max_lr, float) and 0.0 < stable < math.inf else 0.0
        self.bounded = max_lr is not None and self.stable > -1e-9
        self.stable = min(self.stable, 0.0)
        self.high = np.zeros(self.size)
        self.low = np.full(self.size, self.stable - ROOM)
        if max_lr is None:
            self.high[: self.rates_free] = ROOM
        self.low[self.rates_free :], self.high[self.rates_free :] = LEAST, MOST

    def levels(self) -> list[Course]:
        """The same question with each number of pieces that divides this one, the course itself last."""
        if self.rates_free < 2:
            return [self]
        counts = [count for count in range(1, self.pieces) if self.pieces % count == 0]
        coarser = []
        for count in counts:
            one = copy.copy(self)
            grouped = self.weights if isinstance(self.weights, int) else self.weights.reshape(count, -1).sum(axis=1)
            one.weights = count if isinstance(grouped, int) else grouped
            one.pieces = one.rates_free = count
            one.size = count + len(self.names)
            one.low, one.high = (
                np.append(ends[:1].repeat(count), ends[self.pieces :]) for ends in (self.low, self.high)
            )
            one._laid_out = None
            coarser.append(one)
        return [*coarser, self]

    def cut(self, found: dict[Course, tuple[FloatArray, float]]) -> list[tuple[FloatArray, float]]:
        """What was found for fewer pieces that these divide, as points of this course, on as fine a rule."""
        cut = []
        for coarse, (point, steps) in found.items():
            self.nodes = coarse.nodes
            if self.pieces % coarse.pieces == 0:
                rates = np.repeat(point[: coarse.rates_free], self.pieces // coarse.pieces)
                cut.append((np.append(rates, point[coarse.rates_free :]), steps))
        return cut

    def check_steps(self, steps: int) -> None:
        if self.pieces > steps:
            raise ValueError(f"pieces: expected at most as many as steps, got {self.pieces} pieces for {steps} steps")
        if np.any(self.lengths(steps) == 0):
            raise ValueError(
                f"pieces: expected relative lengths that leave every piece a step, got one below 1 of {steps}"
            )
        for given in (self.given, self.ramp):
            if isinstance(given, Schedule):
                given.cut(steps)  # refuses where it ends before
        if self.examples is not None and self.examples < steps:
            raise ValueError(f"examples: expected at least one for each of the {steps} steps, got {self.examples:g}")

    def lengths(self, steps: float) -> IntArray:
        """Steps of each piece, (pieces,); 0 for some where there are fewer steps than pieces."""
        total = int(steps)
        if isinstance(self.weights, int):
            if self.pieces <= total:
                return equal_lengths(total, self.pieces)
            return np.diff(np.arange(self.pieces + 1) * total // self.pieces)
        ends = np.floor(np.cumsum(self.weights) / np.sum(self.weights) * total + 1e-9)
        ends[-1] = total
        return np.diff(ends, prepend=0.0).astype(np.int64)

    def values(self, point: FloatArray) -> dict[str, Any]:
        """Momentum, decay and power at a point, as numbers."""
        free = point[self.rates_free :]
        return {**self.fixed, **{name: float(-np.expm1(-u)) for name, u in zip(self.names, free, strict=True)}}

    def limit(self, values: dict[str, Any]) -> float:
        """The learning rate that the variables are relative to."""
        if isinstance(self.max_lr, (int, float)):
            return float(self.max_lr)
        return float(np.asarray(stable_lr(self.problem, self.optimizer, {"momentum": 0.0, **values})))

    def layout(self, steps: float) -> Layout:
        """The pieces of so many steps; the last ones asked for are kept."""
        if self._laid_out is None or self._laid_out[0] != steps:
            lengths = self.lengths(steps)
            given = [s.ends for s in (self.given, self.ramp) if isinstance(s, Schedule)]
            ends = np.unique(np.concatenate([np.cumsum(lengths), *(e[e < steps] for e in given)]))
            ends = ends[ends > 0]
            begins = np.concatenate([[0], ends[:-1]])
            owner = np.searchsorted(np.cumsum(lengths), begins, side="right")
            self._laid_out = steps, Layout(lengths, ends - begins, owner, begins)
        return self._laid_out[1]

    def rates(self, point: FloatArray, steps: float) -> FloatArray:
        """Learning rates of the parts of the pieces."""
        layout = self.layout(steps)
        if isinstance(self.given, Schedule):
            return np.asarray(self.given(layout.begins))
        if self.given is not None:
            return np.full(layout.parts.size, self.given)
        factors = np.exp(point[: self.rates_free])
        if self.shape is not None:
            factors = factors[0] * self._profile(layout.lengths)
        return np.asarray(self.limit(self.values(point)) * factors[layout.owner])

    def _profile(self, lengths: IntArray) -> FloatArray:
        """Mean over each piece of the shape, where its peak is 1."""
        assert self.shape is not None
        steps = int(lengths.sum())
        if self._profiled is None or self._profiled[0] != steps:
            asked = min(steps, MOST_ASKED)  # and stretched
            course = self.shape(1.0, asked)
            if not isinstance(course, Schedule) or course.steps != asked or not course.values.any():
                raise TypeError(
                    f"shape: expected a function (value, steps) -> Schedule of {asked} steps, got {course!r}"
                )
            stretch = steps / asked
            edges = stretch * np.concatenate([[0], course.ends])
            area = stretch * np.concatenate([[0.0], np.cumsum(course.values * course.lengths)])
            means = np.diff(np.interp(np.cumsum(lengths), edges, area), prepend=0.0) / np.maximum(lengths, 1)
            self._profiled = (steps, means / course.values.max())
        return self._profiled[1]

    def batches(self, shares: FloatArray, lengths: IntArray) -> FloatArray:
        """The batch sizes B_j >= 1 with sum n_j B_j = examples of least sum shares_j / B_j: in proportion to
        sqrt(shares_j / n_j), where that is above 1."""
        assert self.examples is not None
        count = np.maximum(lengths, 1)
        root = np.sqrt(shares / count)
        if not np.all(np.isfinite(root)):  # diverged: no batch size helps
            root = np.ones(root.size)
        above = lengths > 0
        sizes = np.ones(lengths.size)
        while True:
            left = self.examples - float(np.sum(lengths[~above]))
            total = float(np.sum(count[above] * root[above]))
            sizes[above] = left * root[above] / total if total > 0.0 else left / float(np.sum(count[above]))
            small = above & (sizes < 1.0)
            if not small.any():
                return sizes
            sizes[small] = 1.0
            above &= ~small

    def value(self, point: FloatArray, steps: float) -> tuple[float, FloatArray]:
        """log risk and its gradient at a point; 1e10 and 0 where it has diverged."""
        if steps > self.most:
            return 1e10, np.zeros(self.size)
        values, rates, layout = self.values(point), self.rates(point, steps), self.layout(steps)
        found = self._slopes(values, rates, self.inverse_batches(values, rates, layout), layout)
        gradient = np.zeros(self.size)
        if not (0.0 < found.risk < math.inf and np.all(np.isfinite(found.by_log_lr))):
            return 1e10, gradient
        by_lr = np.bincount(layout.owner, found.by_log_lr, self.pieces) / found.risk
        if self.given is None:
            gradient[: self.rates_free] = by_lr if self.shape is None else by_lr.sum()
        for i, name in enumerate(self.names, self.rates_free):
            rest = 1.0 - values[name]  # d value / d u
            gradient[i] = rest * found.by_value[i - self.rates_free] / found.risk
            if self.given is None and name == "momentum" and not isinstance(self.max_lr, float):  # the limit moves too
                span = 1e-5 * min(values[name], rest)
                ends = [self.limit({**values, name: values[name] + sign * span}) for sign in (0.5, -0.5)]
                gradient[i] += rest * float(by_lr.sum()) * math.log(ends[0] / ends[1]) / span
        return math.log(found.risk), gradient

    def minimise(
        self, points: FloatArray, steps: float, goal: float | None = None, radius: float | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Local minima from ``points`` (S, size), and log risk there. (goal is for Landscape.minimise's callers.)"""
        del goal, radius
        found = [self._descend(point, steps) for point in points]
        return np.array([point for point, _ in found]), np.array([value for _, value in found])

    def rough(self, steps: float) -> bool:
        """Without bounds and with a few steps a piece, the landscape has cliffs, and many minima."""
        return not self.bounded and steps < 4 * self.rates_free

    def _descend(
        self, point: FloatArray, steps: float, rounds: int = 40, ceiling: float = math.inf
    ) -> tuple[FloatArray, float]:
        """The minimum below ``point``, with learning rates below ``ceiling``, and log risk there."""
        from scipy.optimize import minimize

        highest = self.high.copy()
        highest[: self.rates_free] = np.minimum(highest[: self.rates_free], ceiling)
        point, rough = np.clip(point, self.low, highest), self.rough(steps) and ceiling > self.stable
        value = self.value(point, steps)[0]
        reach = 0.5 if rough else math.inf  # line searches would jump over cliffs
        for _ in range(rounds if self.size else 0):
            low, high = np.maximum(self.low, point - reach), np.minimum(highest, point + reach)
            # A longer memory than 10 helps little, and makes BLAS start threads, which takes ten times as long.
            found = minimize(
                self.value, point, (steps,), "L-BFGS-B", jac=True, bounds=np.stack([low, high], axis=1),
                options={"maxcor": min(self.size, 10), "maxiter": 5000, "maxfun": 100 if rough else 10_000,
                         "ftol": 1e-15, "gtol": 1e-8},
            )  # fmt: skip
            gain = value - found.fun
            if gain > 0.0:
                point, value = found.x, float(found.fun)
            if self.bounded or ceiling <= self.stable or (found.success and not rough):
                break
            if gain <= 1e-6 and reach < 0.01:
                break
            if not rough:  # the line search came upon a cliff
                rough, reach = True, 0.5
            elif gain <= 1e-3:
                reach *= 0.3
        return point, value

    def best_of(
        self, starts: list[FloatArray], steps: float, goal: float | None, restarts: int, generator: np.random.Generator
    ) -> tuple[FloatArray, float]:
        """The lowest of the minima from ``starts``, then from around it; the first below ``goal`` will do."""
        best, lowest = starts[0], math.inf
        for i in range(len(starts) + (restarts if self.size else 0)):
            start = starts[i] if i < len(starts) else best + 0.3 * generator.standard_normal(self.size)
            point, value = self._descend(start, steps, 6)
            if value < lowest:
                best, lowest = point, value
            if goal is not None and lowest <= goal:
                break
        return self._descend(best, steps)

    def middle(self) -> FloatArray:
        """A point somewhere inside."""
        return np.repeat([-1.0, 0.5], [self.rates_free, len(self.names)])

    def starts(self, steps: float) -> list[FloatArray]:
        """Starting points: a decay from the limit, the best constant learning rate; for each of some momenta and
        decays; without a bound, Chebyshev's steps."""
        levels = [np.zeros(0)]
        if self.names:
            levels = [np.full(len(self.names), u) for u in (0.01, 2.0, max(0.5, math.log(steps) - 2.0))]
        if self.given is not None:
            return levels
        few_enough = self.size <= (FEW if self.bounded else FEW // 2) and self.shape is None
        scattered = 16 if few_enough and steps < SHORT * self.rates_free else 0
        few = np.random.default_rng(0).uniform(-4.0, 0.0, (scattered, self.size))
        starts = []
        levels_of_lr = self.stable + np.linspace(-36.0, -0.05, 80)
        for level in levels:
            flat = [np.concatenate([np.full(self.rates_free, u), level]) for u in levels_of_lr]
            best = min(flat, key=lambda p: self.value(p, steps)[0])
            tops = (-0.1,) if self.bounded else (-0.1, 1.5, 4.0)
            if self.shape is None:
                end = min(best[0] - 1.0, self.stable - 2.0)
                starts += [
                    np.concatenate([np.linspace(self.stable + top, end, self.rates_free), level]) for top in tops
                ]
            starts.append(best)
            if not self.bounded:
                starts.append(self._descend(best, steps, ceiling=self.stable)[0])
            if self.rough(steps):
                waves = [np.concatenate([self.stable + w, level]) for w in self._chebyshev()]
                starts += sorted(waves, key=lambda p: self.value(p, steps)[0])[:4]
        for start in few:
            start[self.rates_free :] *= -0.25 * levels[-1]
            start[: self.rates_free] += self.stable
        return [*few, *starts]

    def _chebyshev(self) -> Iterator[FloatArray]:
        """Log of steps 1 / h at Chebyshev's points of [low, h_1], relative to the limit 2 / h_1: falling, and in
        Leja's order."""
        k = np.arange(self.pieces)
        for low in np.geomspace(1e-4, 0.5, 30):
            h = 0.5 * (1.0 + low) + 0.5 * (1.0 - low) * np.cos(np.pi * (2 * k + 1) / (2 * self.pieces))
            yield np.log(0.5 / np.sort(h))
            yield np.log(0.5 / _leja(h))

    def guess(self, goal: float) -> float:
        """Steps to start from: what the best constant learning rate takes to log risk ``goal``."""
        if self.examples is not None:
            return self._scanned(goal)
        zero = dict.fromkeys(self.names, 0.0)
        size = self.batch if self.ramp is None else float(self.ramp.values[-1])
        plain = self.optimizer.with_values(**zero)
        tuned = tune(self.problem, plain, size, math.exp(goal)).steps
        return tuned if math.isfinite(tuned) else 2.0**30

    def _scanned(self, goal: float) -> float:
        """Of given examples, more steps are not always better: the first that do, or else those of the least risk.

        Looks at all numbers of steps up to 256, or at 64 from few to many; then closer around the lowest.
        """
        seen: dict[float, float] = {}

        def low(time: float) -> float:
            if time not in seen:
                seen[time] = self._descend(self.starts(time)[-1], time)[1]
            return seen[time]

        every = np.arange(1.0, self.most + 1.0) if self.most <= 256 else np.geomspace(1.0, self.most, 64).round()
        times = np.unique(every).tolist()
        for time in times:
            if low(time) <= goal:
                return float(time)
        at = times.index(min(times, key=low))
        below, above = times[max(at - 1, 0)], times[min(at + 1, len(times) - 1)]
        while above - below > 2.0:  # ternary search
            step = max(1.0, (above - below) // 3.0)
            left, right = below + step, above - step
            if min(low(left), low(right)) <= goal:
                return left if low(left) <= goal else right
            below, above = (below, right) if low(left) <= low(right) else (left, above)
        return min(seen, key=lambda time: (seen[time] > goal, seen[time]))

    @property
    def most(self) -> float:
        """Steps at most: one an example."""
        return 2.0**52 if self.examples is None else float(math.floor(self.examples))

    def refine(self, point: FloatArray, steps: float) -> bool:
        """Go to a finer rule for the spectrum where this one is too coarse to tell one T from the next."""
        tolerance, moved = min(1e-6, 0.02 / steps), False
        while not self.nodes._is_exact():
            here, nodes, finer = self.value(point, steps)[0], self.nodes, self.nodes._finer()
            if finer is None:
                break
            self.nodes = finer
            if abs(self.value(point, steps)[0] - here) <= tolerance:
                self.nodes = nodes
                break
            moved = True
        return moved

    def inverse_batches(self, values: dict[str, Any], rates: FloatArray, layout: Layout) -> FloatArray:
        if self.examples is not None:
            shares = self._slopes(values, rates, np.ones(rates.size), layout).by_log_inverse_batch_size
            sizes = self.batches(np.bincount(layout.owner, shares, self.pieces).astype(float), layout.lengths)
            return np.asarray(1.0 / sizes[layout.owner])
        if self.ramp is None:
            return np.full(rates.size, 1.0 / self.batch)
        return 1.0 / np.asarray(self.ramp(layout.begins))

    def _slopes(self, values: dict[str, Any], rates: FloatArray, inverse: FloatArray, layout: Layout) -> RiskGradient:
        return additive.slopes(
            self.nodes, self.optimizer, {**values, "lr": 1.0}, self.names, rates, inverse, layout.parts
        )


def _leja(points: FloatArray) -> FloatArray:
    """Each point as far as possible (in product) from all before: products of 1 - lr h then stay small on the way."""
    left, order = list(range(points.size)), [int(np.argmax(points))]
    left.remove(order[0])
    logs = np.zeros(points.size)
    while left:
        with np.errstate(divide="ignore"):
            logs += np.log(np.abs(points - points[order[-1]]))
        order.append(left.pop(int(np.argmax(logs[left]))))
    return points[order]
