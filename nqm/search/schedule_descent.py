"""Down to the minima of a :class:`ScheduleObjective`, and where to start from."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .._checks import FloatArray
from .schedule_objective import ScheduleObjective
from .tuning import tune

__all__ = ["best_of", "descend", "guess_steps", "starts"]

FEW = 12  # up to so many variables, starts all over the place are cheap
SHORT = 32  # pieces of fewer steps than these have several minima


def descend(
    objective: ScheduleObjective, point: FloatArray, steps: float, rounds: int = 40, ceiling: float = math.inf
) -> tuple[FloatArray, float]:
    """The minimum below ``point``, with learning rates below ``ceiling``, and log risk there."""
    from scipy.optimize import minimize

    highest = objective.high.copy()
    highest[: objective.rates_free] = np.minimum(highest[: objective.rates_free], ceiling)
    point = np.clip(point, objective.low, highest)
    rough = objective.rough(steps) and ceiling > objective.stable
    value = objective.value(point, steps)[0]
    reach = 0.5 if rough else math.inf  # line searches would jump over cliffs
    for _ in range(rounds if objective.size else 0):
        low, high = np.maximum(objective.low, point - reach), np.minimum(highest, point + reach)
        # A longer memory than 10 helps little, and makes BLAS start threads, which takes ten times as long.
        found = minimize(
            objective.value, point, (steps,), "L-BFGS-B", jac=True, bounds=np.stack([low, high], axis=1),
            options={"maxcor": min(objective.size, 10), "maxiter": 5000, "maxfun": 100 if rough else 10_000,
                     "ftol": 1e-15, "gtol": 1e-8},
        )  # fmt: skip
        gain = value - found.fun
        if gain > 0.0:
            point, value = found.x, float(found.fun)
        if objective.bounded or ceiling <= objective.stable or (found.success and not rough):
            break
        if gain <= 1e-6 and reach < 0.01:
            break
        if not rough:  # the line search came upon a cliff
            rough, reach = True, 0.5
        elif gain <= 1e-3:
            reach *= 0.3
    return point, value


def best_of(
    objective: ScheduleObjective,
    starts: list[FloatArray],
    steps: float,
    log_target: float | None,
    restarts: int,
    generator: np.random.Generator,
) -> tuple[FloatArray, float]:
    """The lowest of the minima from ``starts``, then from around it; the first below ``log_target`` will do."""
    best, lowest = starts[0], math.inf
    for i in range(len(starts) + (restarts if objective.size else 0)):
        start = starts[i] if i < len(starts) else best + 0.3 * generator.standard_normal(objective.size)
        point, value = descend(objective, start, steps, 6)
        if value < lowest:
            best, lowest = point, value
        if log_target is not None and lowest <= log_target:
            break
    return descend(objective, best, steps)


def starts(objective: ScheduleObjective, steps: float) -> list[FloatArray]:
    """Starting points: a decay from the limit, the best constant learning rate; for each of some momenta and decays;
    without a bound, Chebyshev's steps."""
    levels, rates = [np.zeros(0)], objective.rates_free
    if objective.names:
        memories = (0.01, 2.0, max(0.5, math.log(steps) - 2.0))
        levels = [np.array([one.start(u) for one in objective.described]) for u in memories]
    if objective.given_lr is not None:
        return levels
    few_enough = objective.size <= (FEW if objective.bounded else FEW // 2) and objective.profile is None
    scattered = 16 if few_enough and steps < SHORT * rates else 0
    found: list[FloatArray] = list(np.random.default_rng(0).uniform(-4.0, 0.0, (scattered, objective.size)))
    for start in found:
        start[rates:] *= -0.25 * levels[-1]
        start[:rates] += objective.stable
    for level in levels:
        found += _starts_at(objective, level, steps)
    return found


def _starts_at(objective: ScheduleObjective, level: FloatArray, steps: float) -> list[FloatArray]:
    """Starting points with momentum and decay at ``level``."""
    rates, stable = objective.rates_free, objective.stable
    flat = [np.concatenate([np.full(rates, u), level]) for u in stable + np.linspace(-36.0, -0.05, 80)]
    best = min(flat, key=lambda point: objective.value(point, steps)[0])
    found = []
    if objective.profile is None:
        end = min(best[0] - 1.0, stable - 2.0)
        tops = (-0.1,) if objective.bounded else (-0.1, 1.5, 4.0)
        found += [np.concatenate([np.linspace(stable + top, end, rates), level]) for top in tops]
    found.append(best)
    if not objective.bounded:
        found.append(descend(objective, best, steps, ceiling=stable)[0])
    if objective.rough(steps):
        waves = [np.concatenate([stable + wave, level]) for wave in _chebyshev(objective.pieces.count)]
        found += sorted(waves, key=lambda point: objective.value(point, steps)[0])[:4]
    return found


def _chebyshev(pieces: int) -> Iterator[FloatArray]:
    """Log of steps 1 / h at Chebyshev's points of [low, h_1], relative to the limit 2 / h_1: falling, and in Leja's
    order."""
    k = np.arange(pieces)
    for low in np.geomspace(1e-4, 0.5, 30):
        h = 0.5 * (1.0 + low) + 0.5 * (1.0 - low) * np.cos(np.pi * (2 * k + 1) / (2 * pieces))
        yield np.log(0.5 / np.sort(h))
        yield np.log(0.5 / _leja(h))


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


def guess_steps(objective: ScheduleObjective, log_target: float) -> float:
    """Steps to start from: what the best constant learning rate takes."""
    if objective.examples is not None:
        return _scanned(objective, log_target)
    plain = objective.optimizer.with_values(**objective.neutral())
    given = objective.batch_schedule
    size = objective.batch_size if given is None else float(given.values[-1])
    tuned = tune(objective.problem, plain, size, math.exp(log_target)).steps
    return tuned if math.isfinite(tuned) else 2.0**30


def _scanned(objective: ScheduleObjective, log_target: float) -> float:
    """Of given examples, more steps are not always better: the first that do, or else those of the least risk.

    Looks at all numbers of steps up to 256, or at 64 from few to many; then closer around the lowest.
    """
    seen: dict[float, float] = {}

    def low(steps: float) -> float:
        if steps not in seen:
            seen[steps] = descend(objective, starts(objective, steps)[-1], steps)[1]
        return seen[steps]

    most = objective.most_steps
    every = np.arange(1.0, most + 1.0) if most <= 256 else np.geomspace(1.0, most, 64).round()
    times = np.unique(every).tolist()
    for steps in times:
        if low(steps) <= log_target:
            return float(steps)
    at = times.index(min(times, key=low))
    below, above = times[max(at - 1, 0)], times[min(at + 1, len(times) - 1)]
    while above - below > 2.0:  # ternary search
        step = max(1.0, (above - below) // 3.0)
        left, right = below + step, above - step
        if min(low(left), low(right)) <= log_target:
            return left if low(left) <= log_target else right
        below, above = (below, right) if low(left) <= low(right) else (left, above)
    return min(seen, key=lambda steps: (seen[steps] > log_target, seen[steps]))
