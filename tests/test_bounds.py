"""Information bounds: against a posterior computed by hand. Theorems: against the exact risk, and as printed."""

from __future__ import annotations

import numpy as np
import pytest
import reference

import nqm
from nqm import EMA, FREE, SGD, NoisyQuadratic, Preconditioned, bounds

PROBLEM = nqm.NoisyQuadratic([1.0, 0.3, 0.02], noise=[0.5, 1.0, 0.1], init=[1.0, 0.2, 3.0], multiplicity=[1, 2, 4])


def test_bayes_is_the_risk_of_the_posterior_mean():
    """Gaussian conditioning on N gradients h theta + noise, written out with matrices: one coordinate at a time."""
    total = 0.0
    examples = 7
    for h, c, s, m in zip(PROBLEM.curvature, PROBLEM.noise, PROBLEM.init, PROBLEM.multiplicity, strict=True):
        observed = s * h * h * np.ones((examples, examples)) + c * np.eye(examples)
        gain = np.linalg.solve(observed, np.full(examples, s * h))
        total += 0.5 * m * h * (s - s * h * gain.sum())
    assert nqm.bounds.bayes(PROBLEM, examples) == pytest.approx(total, rel=1e-12)


def test_mle_with_unit_ratio_is_half_d_over_n():
    assert nqm.bounds.mle(nqm.NoisyQuadratic.power_law(10_000), [50, 500_000]) == pytest.approx(
        [100.0, 0.01], rel=1e-12
    )


def test_limits():
    assert nqm.bounds.bayes(PROBLEM, 0) == pytest.approx(PROBLEM.initial_risk, rel=1e-15)
    assert nqm.bounds.mle(PROBLEM, 0) == np.inf
    assert nqm.bounds.bayes(PROBLEM, 1e12) == pytest.approx(nqm.bounds.mle(PROBLEM, 1e12), rel=1e-6)
    still = nqm.NoisyQuadratic([1.0, 0.5], noise=0.0)
    assert nqm.bounds.bayes(still, [0, 1]) == pytest.approx([0.75, 0.0])


def test_no_optimizer_beats_bayes_and_shrinkage_beats_mle():
    random = np.random.default_rng(0)
    lr = 2.0 * random.random(500)
    momentum, decay, batch = random.random(500), random.random(500), 2.0 ** random.integers(0, 12, 500)
    steps = random.integers(1, 2000, 500)
    for optimizer in (nqm.SGD(lr), nqm.SGD(lr, momentum), nqm.EMA(nqm.SGD(lr, momentum), decay)):
        risk = nqm.risk(PROBLEM, optimizer, batch, steps)
        assert np.all(risk >= nqm.bounds.bayes(PROBLEM, batch * steps))
    # few examples: doing nothing is already better than the maximum-likelihood estimate
    assert nqm.bounds.mle(PROBLEM, 1) > PROBLEM.initial_risk > nqm.bounds.bayes(PROBLEM, 1)


@pytest.mark.parametrize("target", [0.5, 0.01, 1e-6])
def test_examples_to_target_inverts(target):
    for bound in ("bayes", "mle"):
        number = nqm.bounds.examples_to_target(PROBLEM, target, bound)
        assert getattr(nqm.bounds, bound)(PROBLEM, number) == pytest.approx(target, rel=1e-10)
    assert nqm.bounds.examples_to_target(PROBLEM, 10.0) == 0.0  # already there


CONSTANT = {"plain": bounds.momentum, "momentum": bounds.momentum, "ema": bounds.ema}
STEPS = np.arange(201)


def random_problem(random, nodes=4):
    h = 10.0 ** random.uniform(-3, 1, nodes)
    return NoisyQuadratic(h, random.exponential(size=nodes), random.exponential(size=nodes), 1 + random.random(nodes))


def random_optimizer(random, kind, problem, power, rows=30):
    """A column of ``rows`` hyperparameters, from slow learning rates up to 0.99 of the stability limit."""
    momentum = random.random((rows, 1)) ** 0.3 if kind == "momentum" else np.zeros((rows, 1))
    lr = random.choice([0.01, 0.3, 0.99], (rows, 1)) * random.uniform(0.5, 1.0, (rows, 1))
    lr *= nqm.max_stable_lr(problem, Preconditioned(SGD(FREE, momentum), power))
    optimizer = Preconditioned(SGD(lr, momentum), power)
    return EMA(optimizer, random.random((rows, 1)) ** 0.3) if kind == "ema" else optimizer


@pytest.mark.parametrize("kind", CONSTANT)
@pytest.mark.parametrize("seed", range(8))
def test_constant_rates_above_the_risk_and_tight(kind, seed):
    random = np.random.default_rng(seed)
    problem, power = random_problem(random), [0.0, 0.0, 0.5, 1.0][seed % 4]
    optimizer, batch = random_optimizer(random, kind, problem, power), 2.0 ** random.integers(-2, 8, (30, 1))
    bound, exact = CONSTANT[kind](problem, optimizer, batch, STEPS), nqm.risk(problem, optimizer, batch, STEPS)
    assert bound.shape == (30, 201)
    assert np.all(bound >= exact * (1.0 - 1e-12))
    # what is too much is the noise not yet let in: all of the steady state at first, never growing, nothing at last
    steady = bounds.steady_state(problem, optimizer, batch)
    slack = bound - exact
    assert np.all(np.abs(slack[:, :1] - steady) <= 1e-13 * bound[:, :1])
    assert np.all(np.diff(slack, axis=1) <= 1e-12 * bound[:, 1:])
    assert steady == pytest.approx(nqm.steady_state_risk(problem, optimizer, batch), rel=1e-10)
    late = CONSTANT[kind](problem, optimizer, batch, 2**40)
    assert late == pytest.approx(nqm.risk(problem, optimizer, batch, 2**40), rel=1e-10)
    assert late == pytest.approx(steady, rel=1e-10)
    # without noise, nothing is too much
    still = NoisyQuadratic(problem.curvature, 0.0, problem.init, problem.multiplicity)
    assert np.array_equal(CONSTANT[kind](still, optimizer, batch, STEPS), nqm.risk(still, optimizer, batch, STEPS))


def printed(problem, lr, momentum, decay, power, batch, t):
    """Right-hand sides of zhang2019 eq. 6 (decay None) and eq. 12, summed over coordinates, on eq. 9's problem."""
    total = 0.0
    for h, c, s, mult in zip(problem.curvature, problem.noise, problem.init, problem.multiplicity, strict=True):
        ah, ac = lr * h ** (1.0 - power), lr * c * h**-power
        if decay is None:
            b = 1.0 - ah + momentum
            root = np.sqrt(complex(b * b - 4.0 * momentum))
            r1, r2, last = (b + root) / 2.0, (b - root) / 2.0, momentum
            steady = (1.0 + momentum) * ac / (2.0 * batch * (2.0 * momentum + 2.0 - ah) * (1.0 - momentum))
        else:
            r1, r2, last = complex(1.0 - ah), complex(decay), decay * (1.0 - ah)
            steady = ac / (2.0 * batch * (2.0 - ah)) * (1.0 - decay) * (1.0 + (1.0 - ah) * decay)
            steady /= (1.0 + decay) * (1.0 - (1.0 - ah) * decay)
        rate = ((r1 ** (t + 1) - r2 ** (t + 1)) - last * (r1**t - r2**t)) / (r1 - r2)
        total += mult * ((rate**2).real * 0.5 * h * s + steady)
    return total


@pytest.mark.parametrize("seed", range(200))
def test_the_theorems_as_printed(seed):
    random = np.random.default_rng(seed)
    problem, power, batch = random_problem(random), random.choice([0.0, 0.3, 1.0]), 2.0 ** random.integers(-2, 8)
    lr = random.random() * nqm.max_stable_lr(problem, Preconditioned(SGD(FREE), power))
    momentum, decay, t = random.random(), random.random(), int(random.integers(0, 60))
    heavy, averaged = SGD(lr * (1.0 + momentum), momentum), EMA(SGD(lr), decay)
    if power:
        heavy, averaged = Preconditioned(heavy, power), Preconditioned(averaged, power)
    one = printed(problem, lr * (1.0 + momentum), momentum, None, power, batch, t)
    two = printed(problem, lr, 0.0, decay, power, batch, t)
    assert bounds.momentum(problem, heavy, batch, t) == pytest.approx(one, rel=1e-9)
    assert bounds.ema(problem, averaged, batch, t) == pytest.approx(two, rel=1e-9)


@pytest.mark.parametrize("x", [0.01, 0.5, 1.0])
def test_critical_damping_which_the_theorem_excludes(x):
    """r1 = r2 = sqrt(m); eq. 6's first factor is then its limit ((t + 1) - t sqrt(m)) m^(t/2)."""
    problem, root = NoisyQuadratic(2.0, noise=0.7, init=3.0), 1.0 - np.sqrt(x)
    found = bounds.momentum(problem, SGD(x / 2.0, root**2), 4, STEPS)
    free = 3.0 * ((STEPS + 1) * root**STEPS - STEPS * root ** (STEPS + 1.0)) ** 2
    steady = (1.0 + root**2) * (x / 2.0) * 0.7 / (8.0 * (2.0 * root**2 + 2.0 - x) * (1.0 - root**2))
    assert found == pytest.approx(free + steady, rel=1e-12)
    noiseless = reference.recursion_risk(reference.Rule(x / 2.0, root**2), [2.0], [0.0], [3.0], 4, 200)
    assert found - steady == pytest.approx(noiseless, rel=1e-9, abs=1e-14 * steady)


def test_plain_where_momentum_or_decay_is_zero():
    plain = bounds.momentum(PROBLEM, SGD(0.3), 2, STEPS)
    rate = (1.0 - 0.3 * PROBLEM.curvature[:, None]) ** (2 * STEPS)
    parts = PROBLEM.curvature * PROBLEM.init, 0.3 * PROBLEM.noise / (2.0 * (2.0 - 0.3 * PROBLEM.curvature))
    assert plain == pytest.approx(
        0.5 * PROBLEM.multiplicity @ (rate * parts[0][:, None] + parts[1][:, None]), rel=1e-13
    )
    assert bounds.ema(PROBLEM, EMA(SGD(0.3), 0.0), 2, STEPS) == pytest.approx(plain, rel=1e-14)
    both = [bounds.ema(PROBLEM, o, 2, STEPS) for o in (EMA(Preconditioned(SGD(0.3), 0.5), 0.9),
                                                       Preconditioned(EMA(SGD(0.3), 0.9), 0.5))]  # fmt: skip
    assert np.array_equal(*both)


@pytest.mark.parametrize("power", [0.0, 0.4])
@pytest.mark.parametrize("m", [0.0, 0.1234, 0.9999])
def test_up_to_the_stability_limit(m, power):
    problem = NoisyQuadratic([1.3, 0.3, 0.02], noise=[0.5, 1.0, 0.1])
    lr = nqm.max_stable_lr(problem, Preconditioned(SGD(FREE, m), power)) * np.array([1.0 - 1e-9, 1.0, 1.5, 1e300])
    optimizer = Preconditioned(SGD(lr, m), power)
    for wrapped in (optimizer, EMA(optimizer, 0.99)) if m == 0.0 else (optimizer,):
        bound = bounds.ema if isinstance(wrapped, EMA) else bounds.momentum
        steady = bounds.steady_state(problem, wrapped, 1)
        assert steady[0] == pytest.approx(nqm.steady_state_risk(problem, wrapped, 1)[0], rel=1e-10)
        assert np.array_equal(steady[1:], [np.inf] * 3)
        assert np.array_equal(bound(problem, wrapped, 1, [[0], [10], [10**9]])[:, 1:], np.full((3, 3), np.inf))


def test_one_rounding_from_the_stability_limit():
    for h, m in np.random.default_rng(0).uniform(0.1, 1.0, (300, 2)):
        problem = NoisyQuadratic([h, 0.05])
        limit = nqm.max_stable_lr(problem, SGD(FREE, m))
        assert bounds.steady_state(problem, SGD(limit, m), 1) == np.inf
        assert bounds.steady_state(problem, SGD(np.nextafter(limit, 0.0), m), 1) > 1e12


def test_spectra_that_are_refined():
    """On a Gauss rule of 20 000 eigenvalues as on all of them, to 1e-8."""
    law = NoisyQuadratic.power_law(20_000)
    explicit = NoisyQuadratic(1.0 / np.arange(1.0, 20_001.0))
    uneven = NoisyQuadratic(explicit.curvature, np.linspace(0.1, 2.0, 20_000), np.linspace(3.0, 1.0, 20_000))
    heavy, averaged = SGD([0.001, 0.1, 1.9], [0.0, 0.9, 0.999]), EMA(SGD([0.001, 0.1, 1.9]), [0.5, 0.9, 0.999])
    steps = [[0], [30], [3000]]
    for coarse, fine in ((law, explicit), (law.compressed(0.9), explicit), (uneven.compressed(0.9), uneven)):
        assert coarse.curvature.size < 1000
        for call in (
            lambda p: bounds.steady_state(p, heavy, 16),
            lambda p: bounds.steady_state(p, averaged, 16),
            lambda p: bounds.momentum(p, heavy, 16, steps),
            lambda p: bounds.ema(p, averaged, 16, steps),
            lambda p: bounds.decaying_sgd(p, [1e-9, 16, 1e9], steps),
        ):
            assert call(coarse) == pytest.approx(call(fine), rel=1e-8)


def decayed(problem, batch, gamma, steps, first_lr=None):
    """Risk after 0, 1, ... steps at lr_k = 2 / ((k + gamma) h_min): second moments, one step at a time."""
    h, second = problem.curvature, problem.init.copy()
    risks = []
    for k in range(steps + 1):
        risks.append(0.5 * np.sum(problem.multiplicity * h * second))
        lr = first_lr if k == 0 and first_lr is not None else 2.0 / ((k + gamma) * h.min())
        second = (1.0 - lr * h) ** 2 * second + lr**2 * problem.noise / batch
    return np.array(risks)


@pytest.mark.parametrize("seed", range(10))
def test_decaying_sgd_is_above_the_risk(seed):
    random = np.random.default_rng(seed)
    problem, k = random_problem(random), np.arange(2001)
    least = 2.0 * problem.condition_number
    for batch in (0.01, 1.0, 1e4):
        assert np.array_equal(bounds.decaying_sgd(problem, batch, k), bounds.decaying_sgd(problem, batch, k, least))
        for gamma in least * np.array([1.0, 1.1, 3.0, 100.0]):
            bound, exact = bounds.decaying_sgd(problem, batch, k, gamma), decayed(problem, batch, gamma, 2000)
            assert np.all(bound >= exact * (1.0 - 1e-12))


def test_decaying_sgd_as_printed_with_c_the_root_of_a():
    """wen2020: Tr(C^T A C) = Tr(A^2) for C = sqrt(A), which is noise c = h; at the optimum it alone sets the bound."""
    a = np.diag([3.0, 1.0, 0.2])
    c = np.sqrt(a)
    assert np.trace(c.T @ a @ c) == pytest.approx(np.linalg.norm(a, "fro") ** 2)
    nu = 2.0 * np.linalg.norm(a, "fro") ** 2 / 0.2**2
    found = bounds.decaying_sgd(NoisyQuadratic(np.diag(a), init=0.0), 1.0, STEPS, 40.0)
    assert found == pytest.approx(nu / (STEPS + 40.0), rel=1e-14)
    # from afar the start does
    far = NoisyQuadratic(np.diag(a), init=1e9)
    assert bounds.decaying_sgd(far, 1.0, STEPS, 40.0) == pytest.approx(
        40.0 * far.initial_risk / (STEPS + 40.0), rel=1e-14
    )


def test_how_tight_decaying_sgd_is():
    """One curvature: the bound is the risk at step 0 where gamma L(theta_0) = nu, 3 times the risk in the long run.

    With curvature 1, K = k + gamma and noise setting nu, L' = (1 - 2 / K)^2 L + nu / K^2, whose solution tends to
    nu / (3 K); the induction has 1 - 2 / K for its square. Measured: 1 at step 0, 4/3 at 1, 9/5 at 2, and 3 in the end.
    """
    problem = NoisyQuadratic(1.0, noise=1.0, init=2.0)  # 2 Tr / h^2 = 2 = gamma L(theta_0)
    ratio = bounds.decaying_sgd(problem, 1.0, np.arange(10_001)) / decayed(problem, 1.0, 2.0, 10_000)
    assert ratio[:3] == pytest.approx([1.0, 4.0 / 3.0, 9.0 / 5.0], rel=1e-14)
    assert np.all(ratio < 3.0)
    assert ratio[-1] == pytest.approx(3.0, rel=1e-3)
    # a second curvature, 10 times as large, has 1 / 39 instead of 1 / 3 of a part of the noise 100 times as large
    wide = NoisyQuadratic([1.0, 10.0])
    ratio = bounds.decaying_sgd(wide, 1.0, 10**5) / decayed(wide, 1.0, 20.0, 10**5)[-1]
    assert ratio == pytest.approx(101.0 / (1.0 / 3.0 + 100.0 / 39.0), rel=1e-2)


def test_decaying_sgd_needs_its_first_step():
    """After a first step at 1 / h_max, not 2 / (gamma h_min), the bound fails, though no lr_k is above 1 / h_max."""
    problem = NoisyQuadratic(1.0, init=0.0)
    assert decayed(problem, 1.0, 20.0, 1, first_lr=1.0)[1] > bounds.decaying_sgd(problem, 1.0, 1, 20.0)


def test_bounds_broadcast():
    lr, batch, steps = np.array([[0.1], [0.2]]), np.array([1.0, 2.0, 4.0]), np.array([3, 5, 9])
    for bound, optimizer in ((bounds.momentum, SGD), (bounds.ema, lambda a: EMA(SGD(a), 0.9))):
        found = bound(PROBLEM, optimizer(lr), batch, steps)
        single = [[bound(PROBLEM, optimizer(a), b, t) for b, t in zip(batch, steps, strict=True)] for a in (0.1, 0.2)]
        assert isinstance(single[0][0], float)
        assert np.array_equal(found, single)
    assert bounds.steady_state(PROBLEM, SGD(lr), batch).shape == (2, 3)
    gamma = np.array([[100.0], [200.0]])
    found = bounds.decaying_sgd(PROBLEM, batch, steps, gamma)
    single = [
        [bounds.decaying_sgd(PROBLEM, b, t, g) for b, t in zip(batch, steps, strict=True)] for g in (100.0, 200.0)
    ]
    assert isinstance(single[0][0], float)
    assert np.array_equal(found, single)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: nqm.bounds.mle([1.0], 1), TypeError, "problem: expected a nqm.NoisyQuadratic"),
        (lambda: nqm.bounds.bayes(PROBLEM, -1), ValueError, "examples"),
        (lambda: nqm.bounds.examples_to_target(PROBLEM, 0.0), ValueError, "target"),
        (lambda: nqm.bounds.examples_to_target(PROBLEM, 0.1, "best"), ValueError, "'best'"),
        (lambda: bounds.steady_state(PROBLEM, SGD(0.1, 0.9, nesterov=True), 1), ValueError, "nqm.steady_state_risk"),
        (lambda: bounds.steady_state(PROBLEM, EMA(SGD(0.1, 0.9), 0.9), 1), ValueError, "nqm.steady_state_risk"),
        (lambda: bounds.momentum(PROBLEM, nqm.LinearOptimizer(0.1, [[1]], [1]), 1, 1), ValueError, "LinearOptimizer"),
        (lambda: bounds.momentum(PROBLEM, EMA(SGD(0.1), 0.9), 1, 1), ValueError, "nqm.bounds.ema"),
        (lambda: bounds.ema(PROBLEM, SGD(0.1, [0.0, 0.9]), 1, 1), ValueError, "nqm.bounds.momentum"),
        (lambda: bounds.ema(PROBLEM, EMA(SGD(0.1, [0.0, 0.9]), 0.9), 1, 1), ValueError, "EMA of plain SGD"),
        (lambda: bounds.momentum(PROBLEM, SGD(FREE, 0.9), 1, 1), TypeError, "nqm.FREE"),
        (lambda: bounds.ema(PROBLEM, EMA(SGD(0.1), FREE), 1, 1), TypeError, "nqm.FREE"),
        (lambda: bounds.steady_state(PROBLEM, 0.1, 1), TypeError, "optimizer: expected an optimizer"),
        (lambda: bounds.steady_state([1.0], SGD(0.1), 1), TypeError, "problem: expected a nqm.NoisyQuadratic"),
        (lambda: bounds.steady_state(PROBLEM, SGD(0.1), 0), ValueError, "batch_size"),
        (lambda: bounds.momentum(PROBLEM, SGD(0.1), 1, -1), ValueError, "steps"),
        (lambda: bounds.momentum(PROBLEM, SGD([0.1, 0.2]), 1, [1, 2, 3]), ValueError, "broadcast"),
        (lambda: bounds.decaying_sgd([1.0], 1, 1), TypeError, "problem: expected a nqm.NoisyQuadratic"),
        (lambda: bounds.decaying_sgd(PROBLEM, -1.0, 1), ValueError, "batch_size"),
        (lambda: bounds.decaying_sgd(PROBLEM, 1, -1), ValueError, "steps"),
        (lambda: bounds.decaying_sgd(PROBLEM, 1, 0.5), ValueError, "steps"),
        (lambda: bounds.decaying_sgd(PROBLEM, 1, 1, "100"), TypeError, "gamma"),
        (lambda: bounds.decaying_sgd(PROBLEM, 1, 1, [100.0, 99.9]), ValueError, "at least 2 h_max / h_min = 100, so"),
        (lambda: bounds.decaying_sgd(PROBLEM, [1, 2], [1, 2, 3]), ValueError, "broadcast"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
