"""What no algorithm can beat, given the number of examples seen."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from . import _checks
from ._checks import FloatArray
from .problem import NoisyQuadratic
from .risk import refined


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

    found = refined(problem, evaluate).reshape(number.shape)
    return float(found) if found.ndim == 0 else found


def examples_to_target(problem: NoisyQuadratic, target: float, bound: Literal["bayes", "mle"] = "bayes") -> float:
    """The least number N of examples beyond which bound(N) <= target; over the batch size, the least steps of all.

    0 where the target is the initial risk or above, or where gradients have no noise; inf where float64 ends.

    >>> round(examples_to_target(NoisyQuadratic.power_law(10_000), 0.01, "mle"))
    500000
    """
    _checks.instance(problem, NoisyQuadratic, "problem", "a nqm.NoisyQuadratic")
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


def _examples(problem: NoisyQuadratic, examples: ArrayLike) -> FloatArray:
    _checks.instance(problem, NoisyQuadratic, "problem", "a nqm.NoisyQuadratic")
    return _checks.reals(examples, "examples", low=0.0, closed="low")
