"""The papers' bounds: below, what no algorithm can beat given the examples seen; above, what theorems promise."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from . import _checks
from ._checks import FloatArray
from ._double_double import two_product, two_sum
from ._risk import check_problem, row_chunks
from .dynamics.select import dynamics_of
from .optimizers import EMA, SGD, Optimizer, Preconditioned
from .problems.noise_models import noise_of
from .problems.quadratic import NoisyQuadratic
from .problems.refinement import refine_until_agree

__all__ = ["bayes", "decaying_sgd", "ema", "examples_to_target", "mle", "momentum", "steady_state"]


def mle(problem: NoisyQuadratic, examples: ArrayLike) -> float | FloatArray:
    """Risk of the maximum-likelihood estimate after ``examples`` examples: 1/2 sum mult c / (h N).

    With C = H this is d / 2N (zhang2019, section 3.6). It is the least risk of an unbiased estimate, not a bound
    for all algorithms: shrinking towards the start beats it, as :func:`bayes` shows. inf at 0 examples. Units of loss.

    >>> round(mle(NoisyQuadratic.power_law(10_000), 500_000), 12)
    0.01
    """
    number = _examples(problem, examples)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 0.5 * float(np.sum(problem.multiplicity * problem.noise / problem.curvature)) / number
    found = np.where(number == 0.0, math.inf, found)
    return float(found) if found.ndim == 0 else found


def bayes(problem: NoisyQuadratic, examples: ArrayLike) -> float | FloatArray:
    """Least risk of any algorithm after ``examples`` examples: 1/2 sum mult h / (1 / init + N h^2 / c).

    The posterior mean of theta_0 ~ N(0, init) from N gradients with noise N(0, c) has this risk, and nothing has
    less on average over that prior. Gradients are informative about h (theta - optimum) with variance c each.

    >>> problem = NoisyQuadratic.power_law(10_000)
    >>> bayes(problem, 500_000) < mle(problem, 500_000)
    True
    """
    number = _examples(problem, examples)
    flat = number.reshape(-1)

    def evaluate(nodes: NoisyQuadratic, rows: Any) -> FloatArray:
        h, weight = nodes.curvature, 0.5 * nodes.multiplicity
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            known, told = 1.0 / nodes.init, h / (nodes.noise / h)  # precision of the start, and of an example
            # one row at a time bounds the memory; 0 examples of infinite precision (noise 0) still tell nothing
            return np.array([np.sum(weight * h / (known + (told * n if n > 0.0 else 0.0))) for n in flat[rows]])

    found = refine_until_agree(problem, evaluate).reshape(number.shape)
    return float(found) if found.ndim == 0 else found


def examples_to_target(problem: NoisyQuadratic, target: float, bound: Literal["bayes", "mle"] = "bayes") -> float:
    """The least number N of examples beyond which bound(N) <= target; over the batch size, the least steps of all.

    0 where the target is the initial risk or above, or where gradients have no noise; inf where float64 ends.

    >>> round(examples_to_target(NoisyQuadratic.power_law(10_000), 0.01, "mle"))
    500000
    """
    _additive(problem)
    goal = _checks.real(target, "target", low=0.0)
    if not isinstance(bound, str) or bound not in ("bayes", "mle"):
        raise ValueError(f'bound: expected "bayes" or "mle", got {_checks.describe(bound)}')
    at_one = float(mle(problem, 1.0))
    if bound == "mle" or at_one == 0.0:
        return at_one / goal
    if problem.initial_risk <= goal:
        return 0.0
    if math.isinf(at_one / goal):
        return math.inf
    from scipy.optimize import brentq

    low, high = -700.0, math.log(at_one / goal) + 1e-9  # bayes < mle, which meets the goal at N = at_one / goal
    return math.exp(brentq(lambda u: float(bayes(problem, math.exp(u))) - goal, low, high, xtol=1e-14, rtol=1e-14))


def steady_state(problem: NoisyQuadratic, optimizer: Optimizer, batch_size: ArrayLike) -> float | FloatArray:
    """Risk as the steps go to infinity, by the papers' closed forms; inf at or beyond the stability limit.

    With x = lr h^(1-p), p the power of the preconditioner (0 without), the sum over nodes of mult times

        lr c h^-p / (2 B (2 - x))                                       plain SGD (zhang2019 eq. 4, 9)
        lr c h^-p (1 + m) / (2 B (1 - m) (2 + 2 m - x))                 heavy-ball momentum m (eq. 6)
        plain SGD's, times
            (1 - g) (1 + (1 - x) g) / ((1 + g) (1 - (1 - x) g))         EMA of it with decay g (eq. 12)

    Broadcasts like :func:`nqm.risk`; units of loss. TypeError or ValueError for wrong arguments, and for optimizers
    without a closed form (Nesterov, EMA on momentum, LinearOptimizer): :func:`nqm.steady_state_risk` takes them all.

    >>> import nqm
    >>> round(steady_state(NoisyQuadratic([1.0]), nqm.SGD(1.0), batch_size=4), 12)
    0.125
    """
    _is_averaged(problem, optimizer)
    return _noise_free_and_steady(problem, optimizer, batch_size, None)


def momentum(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: ArrayLike, steps: ArrayLike
) -> float | FloatArray:
    """Upper bound on the risk of SGD with heavy-ball momentum after ``steps`` steps: zhang2019 Theorem 1 (eq. 6).

        bound = risk without noise after t steps + steady state

    Exact at noise 0 and as t goes to infinity; at t = 0 the steady state too high; inf from the stability limit on.
    Momentum 0 gives the bound of eq. 4 and 9. Critical damping m = (1 - sqrt(x))^2, where eq. 6 reads 0 / 0, is no
    exception here. The optimizer may be Preconditioned. Broadcasts and raises like :func:`steady_state`.

    >>> import nqm
    >>> problem, heavy = NoisyQuadratic.power_law(100), nqm.SGD(0.1, momentum=0.9)
    >>> momentum(problem, heavy, 16, [0, 100, 10_000]) >= nqm.risk(problem, heavy, 16, [0, 100, 10_000])
    array([ True,  True,  True])
    """
    if _is_averaged(problem, optimizer):
        raise ValueError(f"expected SGD without EMA, got {optimizer}; nqm.bounds.ema bounds its risk")
    return _noise_free_and_steady(problem, optimizer, batch_size, steps)


def ema(problem: NoisyQuadratic, optimizer: Optimizer, batch_size: ArrayLike, steps: ArrayLike) -> float | FloatArray:
    """Upper bound on the risk of an EMA of plain SGD after ``steps`` steps: zhang2019 Theorem 2 (eq. 12).

    As :func:`momentum`: the risk without noise plus the steady state. The optimizer may be Preconditioned.

    >>> import nqm
    >>> problem, averaged = NoisyQuadratic.power_law(100), nqm.EMA(nqm.SGD(1.0), decay=0.9)
    >>> ema(problem, averaged, 16, [0, 100, 10_000]) >= nqm.risk(problem, averaged, 16, [0, 100, 10_000])
    array([ True,  True,  True])
    """
    if not _is_averaged(problem, optimizer):
        raise ValueError(f"expected EMA of plain SGD, got {optimizer}; nqm.bounds.momentum bounds its risk")
    return _noise_free_and_steady(problem, optimizer, batch_size, steps)


def decaying_sgd(
    problem: NoisyQuadratic, batch_size: ArrayLike, steps: ArrayLike, gamma: ArrayLike | None = None
) -> float | FloatArray:
    """Upper bound on the risk of plain SGD with learning rates that decay as 1 / k: wen2020 Theorem 4.1.

        bound after k steps = nu / (k + gamma),   nu = max(2 Tr(C^T A C) / h_min^2, gamma L(theta_0))

    for lr_k = 2 / ((k + gamma) h_min) in the step from k to k + 1, k = 0, 1, ...; here Tr(C^T A C) =
    sum mult h c / B, and L(theta_0) is ``problem.initial_risk``. Induction, with K = k + gamma: as lr_k h_max <= 1,
    L' <= (1 - lr_k h_min) L + lr_k^2 Tr / 2 <= (1 - 2 / K) nu / K + nu / K^2 = nu (K - 1) / K^2 <= nu / (K + 1).
    The theorem lists lr_k for k > 0; the first step has to follow the same rule, for after a step with another
    lr_0 <= 1 / h_max the bound can fail. Noise alone is overestimated 3 times in the long run where all curvatures are
    equal (the induction has 1 - lr_k h_min for its square), and more elsewhere.

    ``gamma`` is at least 2 h_max / h_min, its default, where lr_0 = 1 / h_max. batch_size, steps and gamma broadcast;
    units of loss.

    Raises:
        TypeError, ValueError: for wrong arguments; also for a gamma too small for the theorem.

    >>> decaying_sgd(NoisyQuadratic([1.0, 0.5]), batch_size=10, steps=[0, 96])
    array([0.75, 0.03])
    """
    _additive(problem)
    batch = _checks.reals(batch_size, "batch_size", low=0.0)
    times = _checks.wholes(steps, "steps")
    largest, smallest = problem._extremes()
    least = 2.0 * largest / smallest
    offset = _checks.reals(least if gamma is None else gamma, "gamma", low=0.0)
    if np.any(offset < least * (1.0 - 1e-12)):  # a rounded 2 h_max / h_min will do
        raise ValueError(
            f"gamma: expected at least 2 h_max / h_min = {least:.16g}, so that no learning rate is above 1 / h_max, "
            f"got {offset.min():.16g}"
        )
    _checks.broadcast(batch_size=batch.shape, steps=times.shape, gamma=offset.shape)

    def evaluate(nodes: NoisyQuadratic, rows: Any) -> FloatArray:
        """Tr(C^T A C) / h_min at batch size 1, and L(theta_0)."""
        h, mult = nodes.curvature, nodes.multiplicity
        return np.array([np.sum(mult * (h / smallest) * nodes.noise), nodes.initial_risk])[rows]

    with np.errstate(over="ignore"):
        noise, start = refine_until_agree(problem, evaluate)
        bound = np.maximum(2.0 * noise / smallest / batch, offset * start) / (times + offset)
    return float(bound) if bound.ndim == 0 else bound


def _is_averaged(problem: NoisyQuadratic, optimizer: Optimizer) -> bool:
    """Whether this is EMA of plain SGD, not SGD with heavy-ball momentum; an error if neither."""
    check_problem(problem, optimizer)
    _additive(problem)
    core, averaged = optimizer, "decay" in optimizer.hyperparameters
    while isinstance(core, (EMA, Preconditioned)):
        core = core.optimizer
    if not isinstance(core, SGD) or (np.any(core.momentum) and (core.nesterov or averaged)):
        raise ValueError(
            f"expected SGD with heavy-ball momentum or EMA of plain SGD, got {optimizer}; the papers have no closed "
            "form for it, but nqm.steady_state_risk finds its steady state and nqm.risk its risk"
        )
    _checks.instance(core.lr, (float, np.ndarray), "lr", "numbers, for a bound at a constant learning rate")
    return averaged


def _noise_free_and_steady(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: ArrayLike, steps: ArrayLike | None
) -> float | FloatArray:
    """Risk without noise after ``steps`` steps (None: forever) plus the steady state of the noise."""
    batch = _checks.reals(batch_size, "batch_size", low=0.0)
    times = _checks.wholes(0 if steps is None else steps, "steps")
    shape = _checks.broadcast(optimizer=optimizer.shape, batch_size=batch.shape, steps=times.shape)
    out = np.empty(shape)
    flat = out.reshape(-1)
    for part, values, (b, t) in row_chunks(optimizer.hyperparameters, shape, batch, times):
        stable = values["lr"] < dynamics_of(problem, optimizer).stability_limit(values)

        def evaluate(
            nodes: NoisyQuadratic, rows: Any, values: Any = values, b: Any = b, t: Any = t, stable: Any = stable
        ) -> FloatArray:
            chosen = {k: v[rows] for k, v in values.items()}
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # where unstable
                found = _steady(nodes, **chosen) / b[rows]
            if steps is not None:
                found += dynamics_of(nodes, optimizer).risk(chosen, np.inf, t[rows].astype(np.int64))
            return np.where(stable[rows], found, np.inf)

        flat[part] = refine_until_agree(problem, evaluate)
    return float(out) if shape == () else out


def _steady(
    nodes: NoisyQuadratic, lr: FloatArray, momentum: FloatArray, power: Any = 0.0, decay: Any = 0.0
) -> FloatArray:
    """Steady state at batch size 1, one per row of hyperparameters; momentum or decay is 0. inf where unstable."""
    out = np.empty(lr.size)
    weight = 0.5 * nodes.multiplicity * (nodes.noise / nodes.curvature)
    columns = [v[:, None] for v in np.broadcast_arrays(lr, momentum, power, decay)]
    count = 1 + 2**18 // weight.size  # rows at once, to bound the memory
    for some in (slice(first, first + count) for first in range(0, lr.size, count)):
        a, m, p, g = (v[some] for v in columns)
        # gap = 2 + 2 m - x and x as exact sums: near the stability limit a rounded x would lose gap's digits
        fraction, exponent = np.frexp(nodes.curvature ** (1.0 - p))
        x, x_low = two_product(fraction, np.ldexp(a, exponent))
        limit, limit_low = two_sum(2.0, 2.0 * m)
        gap = (limit - x) + (limit_low - x_low)
        averaging = (1.0 - g) * (1.0 - g + gap * g) / ((1.0 + g) * (1.0 - g + x * g))
        found = np.sum(weight * x * (1.0 + m) / ((1.0 - m) * gap) * averaging, axis=1)
        out[some] = np.where(np.all(gap > 0.0, axis=1), found, np.inf)
    return out


def _additive(problem: Any) -> None:
    """Refuse what is not a problem with additive noise: the papers' bounds are about nothing else."""
    _checks.instance(problem, NoisyQuadratic, "problem", "a nqm.NoisyQuadratic")
    if noise_of(problem).grows_with_loss:
        raise ValueError(f'problem: expected noise_model="additive" for the bounds, got {problem}')


def _examples(problem: NoisyQuadratic, examples: ArrayLike) -> FloatArray:
    _additive(problem)
    return _checks.reals(examples, "examples", low=0.0, closed="low")
