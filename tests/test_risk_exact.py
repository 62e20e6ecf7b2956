"""`nqm.risk` against 60-digit arithmetic, at random points and at those where arithmetic is hardest."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from decimal import Decimal

import mpmath as mp
import numpy as np
import pytest
from building import optimizer_of
from reference import Rule, exact_decimal, exact_risk, exact_risk_along

import nqm

TOLERANCE = 1e-12

FAMILIES = ("SGD", "heavy ball", "Nesterov")
COMBINATIONS = list(itertools.product(FAMILIES, (0.0, 0.25, 0.5), (False, True)))
combinations = pytest.mark.parametrize(("family", "power", "averaged"), COMBINATIONS)


def limit_of(rule):
    """The x = lr h^(1-p) at which a root of the optimizer reaches -1."""
    limit = 2.0 * (1.0 + rule.momentum)
    return limit / (1.0 + 2.0 * rule.momentum) if rule.nesterov else limit


def relative_error(rule, h, c, init, batch, steps):
    """Error of nqm.risk in units of what is allowed: 1 is just allowed.

    h^(1-p) cannot be told from its neighbouring float64. Where p > 0, ten times what one unit in the last place of lr
    does to the exact risk is allowed too.
    """
    exact = exact_decimal(rule, [(rule.lr, batch, steps)], h, c, init)
    allowed = TOLERANCE
    if rule.power:
        beside = replace(rule, lr=float(np.nextafter(rule.lr, 0.0)))
        moved = exact_decimal(beside, [(beside.lr, batch, steps)], h, c, init)
        allowed = max(allowed, 10.0 * float(abs(moved - exact) / exact))
    found = nqm.risk(nqm.NoisyQuadratic([h], [c], init), optimizer_of(rule), batch, steps)
    return float(abs(Decimal(found) - exact) / exact) / allowed


def assert_exact(points):
    errors = [relative_error(*point) for point in points]
    worst = int(np.argmax(errors))
    assert errors[worst] <= 1.0, f"{errors[worst]:.3g} times the allowed error at {points[worst]}"


def random_points(family, power, averaged, count, rng):
    """Curvatures over 7 decades, learning rates up to the limit, 0 to 10^9 steps; some without noise or start."""
    points = []
    for i in range(count):
        momentum = 0.0 if family == "SGD" else 1.0 - 10.0 ** -rng.uniform(0.0, 6.0)
        decay = 1.0 - 10.0 ** -rng.uniform(0.0, 6.0) if averaged else None
        rule = Rule(1.0, momentum, family == "Nesterov", power, decay)
        h = 10.0 ** rng.uniform(-7.0, 0.0)
        rule = replace(rule, lr=limit_of(rule) * 10.0 ** -rng.uniform(0.0, 6.0) / h ** (1.0 - power))
        steps = int(10.0 ** rng.uniform(0.0, 9.0)) if i % 8 else int(rng.integers(0, 4))
        c = h * 10.0 ** rng.uniform(-2.0, 2.0) if i % 9 != 1 else 0.0
        init = 10.0 ** rng.uniform(-2.0, 1.0) if i % 9 != 2 or steps == 0 else 0.0
        point = (rule, h, c, init, 10.0 ** rng.uniform(0.0, 6.0), steps)
        if (
            exact_decimal(rule, [(rule.lr, *point[-2:])], h, c, init) > 1e-280
        ):  # without noise the start fades below what a float64 can hold
            points.append(point)
    assert len(points) > count / 2
    return points


@combinations
def test_random_points(family, power, averaged):
    seed = COMBINATIONS.index((family, power, averaged))
    assert_exact(random_points(family, power, averaged, 32, np.random.default_rng(seed)))


def hard_settings(family):
    """(momentum, x, decay): critical damping, averages as slow as the iterate, and the ends of every range."""
    yield 0.0, 1e-14, 0.9
    yield 0.0, 1.0, 0.5  # SGD forgets its start in one step
    yield 0.0, 2.0**-10, 1.0 - 2.0**-10  # decay == 1 - lr h exactly: the filter is defective
    yield 0.0, 0.1, 1.0 - 0.1  # and but for one rounding
    yield 0.0, 2.0 * (1.0 - 1e-9), 1.0 - 1e-6
    yield 0.0, 1e-6, 0.0
    if family == "SGD":
        return
    nesterov = family == "Nesterov"
    for momentum in (0.5625, (1.0 - 2.0**-7) ** 2, 1.0 - 1e-6):  # the first two have exact square roots
        # double roots of M: where (trace / 2)^2 = det
        root = math.sqrt(momentum)
        slow = ((1.0 - momentum) / (1.0 + momentum)) ** 2 if nesterov else (1.0 - root) ** 2
        fast = 1.0 if nesterov else (1.0 + root) ** 2
        limit = limit_of(Rule(1.0, momentum, nesterov))
        for critical, offset in itertools.product((slow, fast), (0.0, 1e-15, -1e-15, 1e-11, -1e-11, 1e-7, -1e-7)):
            if critical * (1.0 + offset) < limit:  # with much momentum the two are close
                yield momentum, critical * (1.0 + offset), 0.99
        yield momentum, slow, root  # the average decays like the double root
        yield momentum, limit * (1.0 - 1e-9), 1.0 - 1e-6
        yield momentum, 1e-14, 0.0
        yield momentum, 0.3, 1.0 - 1e-6
    yield 0.25, 0.1, 1.0 - 0.1


@combinations
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.thorough)])
def test_hard_points(family, power, averaged, every):
    rng = np.random.default_rng(100)
    points = []
    for momentum, x, decay in hard_settings(family):
        # 2^-12: lr and h^(1-p) are exact, so that critical damping is met to the last bit; 0.3: both are rounded
        for h, most in ((2.0**-12, 9.0), (0.3, 6.0)):
            rule = Rule(x / h ** (1.0 - power), momentum, family == "Nesterov", power, decay if averaged else None)
            points.append((rule, h, h, 1.0, 100.0, int(10.0 ** rng.uniform(0.0, most))))
    assert_exact(points[::every])


def test_the_oracle_in_decimals_is_the_oracle_in_mpmath():
    for rule in (Rule(0.3), Rule(0.3, 0.9, True, 0.5, 0.99), Rule(0.25, 0.25, decay=0.5)):
        pieces = [(rule.lr, 8.0, 1000), (0.1 * rule.lr, 3.0, 0), (0.0, 2.0, 7), (0.5 * rule.lr, 64.0, 10**9)]
        exact = exact_risk_along(rule, pieces, 0.3, 2.0, 5.0)
        assert abs(mp.mpf(str(exact_decimal(rule, pieces, 0.3, 2.0, 5.0))) - exact) < exact * mp.mpf(10) ** -50


@pytest.mark.parametrize("excess", [1e-9, 0.5, 10.0])
def test_growth_before_the_overflow_is_exact(excess):
    rule = Rule(2.0 * (1.9 + excess), momentum=0.9, decay=0.5)
    steps = [1, 10, 100, 1000]
    found = nqm.risk(nqm.NoisyQuadratic([1.0], [3.0], 2.0), optimizer_of(rule), 4, steps)
    for t, value in zip(steps, found, strict=True):
        exact = exact_risk(rule, 1.0, 3.0, 2.0, 4, t)
        if exact > np.finfo(float).max:
            assert value == np.inf
        else:
            assert abs(value - exact) <= TOLERANCE * exact


def test_a_problem_at_its_optimum_without_noise_has_no_risk():
    problem = nqm.NoisyQuadratic([1.0, 0.1], noise=0.0, init=0.0)
    assert np.all(nqm.risk(problem, nqm.SGD([0.1, 1.9, 50.0], momentum=0.5), 1, [[1], [10**9]]) == 0.0)
