"""Which schedule reaches the target first, or gets lowest in the steps there are?

The exact risk over the log learning rates of all pieces, with its exact gradient, goes to BFGS with bounds (SciPy's
L-BFGS-B). The fewest steps are bracketed around that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import _backend, _checks
from .._checks import FloatArray, IntArray
from .._engines.arguments import Slopes
from ..optimizers import FREE, SGD, Optimizer
from ..problem import NoisyQuadratic
from ..risk import one_batch, risk, stable_lr
from ..schedules import Schedule, equal_lengths
from .crossing import searchable
from .tuning import bracket, check_tunable, examples_seen, require_held, tune

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..plotting import Drawn

CONVERGED = 1e-4
"""Largest slope of log risk by any log learning rate that counts as flat."""

ROOM = 40.0  # how far below the bound a log learning rate may go
LEAST, MOST = 1e-6, 18.0  # -log(1 - value) of a momentum or decay
MOST_PIECES = 10_000
MOST_ASKED = 10**6  # steps of a shape
FEW = 12  # up to so many variables, starts all over the place are cheap


@dataclass(frozen=True)
class OptimizedSchedule:
    """The best schedule found.

    schedule: what was optimised: the learning rate, or the batch size where lr was given. steps: int, or inf.
    risk: after those, exact, in units of loss. gradient_norm: largest slope of log risk along a variable that is not at
    a bound. status: "converged" (that norm is at most 1e-4), "stalled" (it is not: this is the best found, not a
    minimum), "already there" (steps = 0), "unreachable" (then schedule and risk are the best found).
    optimizer, batch_size: with the schedules in place, ready for :func:`nqm.risk`. target: None where steps were given.
    """

    schedule: Schedule
    steps: float
    risk: float
    gradient_norm: float
    status: str
    optimizer: Optimizer = field(repr=False)
    batch_size: float | Schedule = field(repr=False)
    target: float | None = None

    @property
    def examples(self) -> float:
        """Training examples seen."""
        return examples_seen(self.batch_size, self.steps)

    def plot(self, ax: Axes | None = None) -> Drawn:
        """The schedule against the step; returns the axes."""
        from ..plotting import plot_schedule

        drawn = plot_schedule(self.schedule, ax)
        drawn.set_ylabel("learning rate" if self.schedule is self.optimizer.schedule else "batch size (examples)")
        return drawn


def optimize_schedule(
    problem: NoisyQuadratic,
    batch_size: float | Schedule | Any,
    *,
    target: float | None = None,
    steps: int | None = None,
    pieces: int | ArrayLike = 50,
    optimizer: Optimizer | None = None,
    shape: Callable[[float, int], Schedule] | None = None,
    max_lr: float | Literal["stable"] | None = "stable",
    examples: float | None = None,
    restarts: int = 4,
    seed: int = 0,
) -> OptimizedSchedule:
    """The piecewise-constant schedule of least risk after ``steps``, or that of the fewest steps to ``target``.

    Minimises log of the exact risk of :func:`nqm.risk` over the log learning rates of all pieces (zhang2019, section
    3.7.2, footnote 3), and momentum and decay where they are FREE, as one number each.

    Args:
        problem: the noisy quadratic.
        batch_size: examples a step, a schedule of them, or ``nqm.FREE``: then it is a schedule too, of at least one
            example a step and ``examples`` in all. For given learning rates the best one has a closed form: batch
            sizes proportional to the root of what a step's noise still weighs at the end.
        target, steps: one of them.
        pieces: number of pieces of equal length (to one step), at most ``steps``; or their relative lengths. With a
            target that takes fewer steps, each step is a piece.
        optimizer: the SGD family, with lr ``nqm.FREE``; default ``SGD(nqm.FREE)``. A given lr is kept: then batch_size
            must be FREE.
        shape: a function (value, steps) -> Schedule, such as ``nqm.schedules.cosine``: then only its peak is free, and
            the schedule is the shape in so many ``pieces``, each with the shape's mean over it.
        max_lr: bound of all learning rates. "stable": the largest stable one, 2 / h_1 for plain SGD, as in the paper.
            None: no bound; with few steps a piece, steps beyond 2 / h_1 then help (Chebyshev's), at the price of a
            landscape with cliffs and many minima. The same holds for numbers above that.
        restarts: random restarts from around the best, on top of the fixed starting points.
        seed: of those.

    Plain SGD with 50 pieces takes a tenth of a second. Momentum, more so if FREE, takes seconds to a minute: there are
    several minima, and a gradient costs ten times as much.

    Raises:
        TypeError, ValueError: for wrong arguments, before any work.

    >>> import nqm
    >>> problem = nqm.NoisyQuadratic.power_law(10_000)
    >>> best = nqm.optimize_schedule(problem, batch_size=256, target=0.01)
    >>> best.steps, best.status, nqm.tune(problem, nqm.SGD(nqm.FREE), 256, 0.01).steps
    (8933, 'converged', 25778)
    """
    optimizer = SGD(FREE) if optimizer is None else optimizer
    course = _checked(problem, batch_size, optimizer, max_lr, examples, pieces, shape)
    rounds = _checks.whole(restarts, "restarts", high=10_000)
    generator = np.random.default_rng(_checks.whole(seed, "seed"))
    if (target is None) == (steps is None):
        raise ValueError("expected exactly one of target and steps, got " + ("none" if target is None else "both"))
    if steps is not None:
        time = _checks.whole(steps, "steps", low=1)
        course.check_steps(time)
        point, _ = course.best_of(course.starts(time), time, None, rounds, generator)
        if course.refine(point, time):
            point = course.minimise(point[None, :], time)[0][0]
        return course.result(point, time, None)
    goal = _checks.real(target, "target", low=0.0)
    require_held(course.given, course.ramp)
    if problem.initial_risk <= goal:
        return course.result(course.middle(), 0, goal)
    point, found = _fewest_steps(course, goal, rounds, generator)
    best = course.result(point, found, goal)
    for _ in range(64):  # the exact risk has the last word
        if not math.isfinite(found) or best.risk <= goal or found >= course.most:
            break
        course.refine(point, found)
        excess = math.log(best.risk / goal) if math.isfinite(best.risk) else 1.0
        found = min(found + max(1.0, math.floor(0.5 * excess * found)), course.most)
        point = course.minimise(point[None, :], found)[0][0]
        best = course.result(point, found, goal)
    return best


def _fewest_steps(course: Course, target: float, restarts: int, generator: np.random.Generator) -> tuple[Any, float]:
    goal = math.log(target)
    guess = course.guess(target)
    point, value = course.best_of(course.starts(guess), guess, goal, 0, generator)
    if course.examples is not None and value > goal:
        course.farthest = guess
        return point, math.inf
    while True:
        point, steps = bracket(course, point, guess, goal)
        if math.isinf(steps):
            return course.best_of(course.starts(course.farthest), course.farthest, None, 0, generator)[0], steps
        if course.refine(point, steps):
            guess = steps
            continue
        sooner = steps - 1.0
        if sooner < 1.0:
            break
        other, value = course.best_of([point, *course.starts(sooner)], sooner, goal, restarts, generator)
        if value > goal:
            break
        point, guess = other, sooner
    points, _ = course.minimise(np.stack([point, other]) if sooner >= 1.0 else point[None, :], steps)
    return min(points, key=lambda p: course.value(p, steps)[0]), steps


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
        found = self._slopes(values, rates, self._inverse_batches(values, rates, layout), layout)
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
            if not rough or (gain <= 1e-6 and reach < 0.01):
                break
            if gain <= 1e-3:
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
        few = np.random.default_rng(0).uniform(
            -4.0, 0.0, (16 if self.size <= FEW and self.shape is None else 0, self.size)
        )
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

    def guess(self, target: float) -> float:
        """Steps to start from: what the best constant learning rate takes."""
        if self.examples is not None:
            return self._scanned(math.log(target))
        zero = dict.fromkeys(self.names, 0.0)
        size = self.batch if self.ramp is None else float(self.ramp.values[-1])
        plain = self.optimizer.with_values(**zero)
        tuned = tune(self.problem, plain, size, target).steps
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

    def result(self, point: FloatArray, steps: float, target: float | None) -> OptimizedSchedule:
        time = steps if math.isfinite(steps) else self.farthest
        if time == 0.0:
            time = min(float(self.pieces), self.most)
        values, rates, layout = self.values(point), self.rates(point, time), self.layout(time)
        inverse = self._inverse_batches(values, rates, layout)
        first = np.unique(layout.owner, return_index=True)[1]  # of each piece that has steps
        lengths = layout.lengths[layout.lengths > 0]
        lr: Any = Schedule(rates[first], lengths) if self.given is None else self.given
        chosen: Any = self.optimizer.with_values(lr=lr, **{name: values[name] for name in self.names})
        batch: Any = self.batch if self.ramp is None else self.ramp
        if self.examples is not None:
            batch = Schedule(1.0 / inverse[first], lengths)
        height, slope = self.value(point, time)
        slope[(point >= self.high) & (slope < 0.0)] = 0.0
        least = slope[self.rates_free :]  # a learning rate at its floor is no minimum, a momentum of 0 may be
        least[(point[self.rates_free :] <= LEAST) & (least > 0.0)] = 0.0
        norm = float(np.abs(slope).max(initial=0.0)) if height < 1e9 else math.inf
        norm = 0.0 if steps == 0 else norm
        status = "converged" if norm <= CONVERGED else "stalled"
        if steps == 0:
            status = "already there"
        elif math.isinf(steps):
            status = "unreachable"
        reached = float(risk(self.problem, chosen, batch, 0 if steps == 0 else int(time)))
        return OptimizedSchedule(
            lr if self.given is None else batch, int(steps) if math.isfinite(steps) else steps, reached, norm, status,
            chosen, batch, target,
        )  # fmt: skip

    def _inverse_batches(self, values: dict[str, Any], rates: FloatArray, layout: Layout) -> FloatArray:
        if self.examples is not None:
            shares = self._slopes(values, rates, np.ones(rates.size), layout).by_log_inverse_batch
            sizes = self.batches(np.bincount(layout.owner, shares, self.pieces).astype(float), layout.lengths)
            return np.asarray(1.0 / sizes[layout.owner])
        if self.ramp is None:
            return np.full(rates.size, 1.0 / self.batch)
        return 1.0 / np.asarray(self.ramp(layout.begins))

    def _slopes(self, values: dict[str, Any], rates: FloatArray, inverse: FloatArray, layout: Layout) -> Slopes:
        return _backend.slopes(
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


def _checked(
    problem: Any, batch_size: Any, optimizer: Any, max_lr: Any, examples: Any, pieces: Any, shape: Any
) -> Course:
    check_tunable(problem, optimizer)
    if problem.label_noise is not None:
        raise ValueError(
            f'problem: expected noise_model="additive", for which gradients by a schedule are known, got {problem}; '
            "nqm.risk and nqm.steps_to_target take Gaussian features along a given schedule"
        )
    free_batch = batch_size is FREE
    if (examples is not None) != free_batch:
        raise ValueError(
            f"expected examples together with batch_size=nqm.FREE, got examples {examples} and batch_size {batch_size}"
        )
    if "lr" not in optimizer.free and not free_batch:
        raise ValueError(f"optimizer: expected lr nqm.FREE (or batch_size nqm.FREE), got {optimizer}")
    batch, ramp = (1.0, None) if free_batch else one_batch(batch_size)
    limit = max_lr
    if max_lr is not None and not (isinstance(max_lr, str) and max_lr == "stable"):
        if isinstance(max_lr, str):
            raise ValueError(f'max_lr: expected a number > 0, "stable" or None, got {max_lr!r}')
        limit = _checks.real(max_lr, "max_lr", low=0.0)
    if np.ndim(pieces) == 0:
        weights: Any = _checks.whole(pieces, "pieces", low=1, high=MOST_PIECES)
    else:
        weights = _checks.reals(pieces, "pieces", low=0.0, ndim=1)
        if weights.size > MOST_PIECES:
            raise ValueError(f"pieces: expected at most {MOST_PIECES}, got {weights.size}")
    if shape is not None and (not callable(shape) or "lr" not in optimizer.free):
        raise TypeError(
            f"shape: expected a function (value, steps) -> Schedule, for an optimizer with lr nqm.FREE, got {shape!r}"
        )
    total = None if examples is None else _checks.real(examples, "examples", low=1.0, closed="low")
    return Course(problem, optimizer, batch, ramp, total, limit, weights, shape)
