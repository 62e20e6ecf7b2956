"""Power laws, bins and Gauss rules against sums over all eigenvalues."""

from __future__ import annotations

import pickle
from bisect import bisect_right
from functools import cache

import mpmath as mp
import numpy as np
import pytest
from cases import SETTINGS
from numpy.testing import assert_allclose

import nqm

PROMISED = 1e-8

OPTIMIZERS = {
    "SGD": nqm.SGD([1e-4, 0.1, 1.9]),
    "momentum": nqm.SGD([1e-4, 0.1, 3.0], momentum=0.9),
    "Nesterov": nqm.SGD([1e-4, 0.1, 1.2], momentum=0.9, nesterov=True),
    "EMA": nqm.EMA(nqm.SGD([1e-4, 0.1, 1.9]), decay=0.999),
    "EMA of momentum": nqm.EMA(nqm.SGD([1e-3, 0.1, 3.0], momentum=0.99), decay=0.999),
    "preconditioned": nqm.Preconditioned(nqm.SGD([1e-4, 0.1, 1.9]), power=0.5),
    "preconditioned momentum": nqm.Preconditioned(nqm.SGD([1e-4, 0.1, 3.0], momentum=0.99), power=0.25),
    "long underdamped": nqm.SGD([0.01, 1.0, 3.9], momentum=0.9999),
    "long underdamped EMA": nqm.EMA(nqm.SGD([0.01, 1.0], momentum=0.9999), decay=0.9),
    "long underdamped Nesterov": nqm.SGD([0.01, 1.0], momentum=0.9999, nesterov=True),
    "long underdamped preconditioned": nqm.Preconditioned(nqm.SGD([0.01, 1.0], momentum=0.9999), power=0.5),
}
STEPS = np.array([0, 1, 10, 300, 3000, 20_000, 100_000])[:, None]


@cache
def every_eigenvalue(dim, exponent=1.0):
    return nqm.NoisyQuadratic(np.arange(1.0, dim + 1.0) ** -exponent)


def assert_same_risk(found, expected, optimizer, steps=STEPS):
    for batch in (1.0, 1e4):
        risks = [nqm.risk(problem, optimizer, batch, steps) for problem in (found, expected)]
        assert_allclose(*risks, rtol=PROMISED)


# --- power laws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_power_law_is_the_explicit_sum(name):
    problem = nqm.NoisyQuadratic.power_law(10**4)
    assert problem.curvature.size < 200
    assert_same_risk(problem, every_eigenvalue(10**4), OPTIMIZERS[name])


@pytest.mark.parametrize("name", ["SGD", "long underdamped"])
def test_larger_power_law_is_the_explicit_sum(name):
    problem = nqm.NoisyQuadratic.power_law(10**5)
    assert problem.curvature.size < 200
    assert_same_risk(problem, every_eigenvalue(10**5), OPTIMIZERS[name], STEPS[2::2])


@pytest.mark.parametrize("nesterov", [False, True])
def test_random_long_momentum(nesterov):
    """Two coarse rules may agree by chance and both be wrong: many points are needed to see it."""
    rng = np.random.default_rng(5)
    momentum = 1.0 - 10.0 ** -rng.uniform(2.0, 5.0, 1500)
    stable = nqm.max_stable_lr(every_eigenvalue(10**4), nqm.SGD(nqm.FREE, momentum, nesterov))
    optimizer = nqm.SGD(stable * 10.0 ** -rng.uniform(0.0, 3.0, 1500), momentum, nesterov)
    batch, steps = 10.0 ** rng.uniform(0.0, 6.0, 1500), np.floor(10.0 ** rng.uniform(2.0, 5.5, 1500))
    problems = nqm.NoisyQuadratic.power_law(10**4), every_eigenvalue(10**4)
    assert_allclose(*(nqm.risk(p, optimizer, batch, steps) for p in problems), rtol=PROMISED)


@pytest.mark.parametrize("exponent", [0.5, 1.3, 2.0])
@pytest.mark.parametrize("name", ["SGD", "momentum", "EMA", "preconditioned", "long underdamped"])
def test_other_exponents(name, exponent):
    problem = nqm.NoisyQuadratic.power_law(10**4, exponent)
    assert_same_risk(problem, every_eigenvalue(10**4, exponent), OPTIMIZERS[name])


@pytest.mark.parametrize("dim", [1, 2, 3, 15, 16, 17, 100, 1000])
def test_small_dimensions(dim):
    problem = nqm.NoisyQuadratic.power_law(dim)
    assert problem.dim == dim
    assert_same_risk(problem, every_eigenvalue(dim), OPTIMIZERS["momentum"])
    assert nqm.max_stable_lr(problem, nqm.SGD(nqm.FREE)) == 2.0


@pytest.mark.parametrize("optimizer", [nqm.SGD(0.3), nqm.SGD(0.01, 0.99), nqm.EMA(nqm.SGD(1.0), 0.99)], ids=str)
def test_the_steady_state_too(optimizer):
    found, expected = nqm.NoisyQuadratic.power_law(10**4), every_eigenvalue(10**4)
    assert_allclose(*(nqm.steady_state_risk(p, optimizer, 16) for p in (found, expected)), rtol=PROMISED)


def power_sum(dim, exponent):
    """sum i^-exponent over i = 1 ... dim: a harmonic number or a difference of Hurwitz zeta functions."""
    return float(mp.harmonic(dim) if exponent == 1.0 else mp.zeta(exponent) - mp.zeta(exponent, dim + 1))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("dim", [10**4, 10**6, 10**12])
def test_initial_risk_of_any_dimension(dim, exponent):
    problem = nqm.NoisyQuadratic.power_law(dim, exponent)
    assert problem.dim == dim
    assert problem.multiplicity.sum() == pytest.approx(dim, rel=1e-12)
    assert problem.condition_number == pytest.approx(float(dim) ** exponent, rel=1e-14)
    expected = 0.5 * power_sum(dim, exponent)
    assert_allclose(problem.initial_risk, expected, rtol=PROMISED)
    assert_allclose(nqm.risk(problem, nqm.SGD(0.1), 1, 0), expected, rtol=PROMISED)


def euler_maclaurin(term, first, last):
    """sum of term(i) for i = first ... last; the remainder is of the order of the third derivative at first."""
    integral = mp.quad(lambda u: term(mp.exp(u)) * mp.exp(u), mp.linspace(mp.log(first), mp.log(last), 25))
    slope = mp.diff(term, last) - mp.diff(term, first)
    return integral + (term(mp.mpf(first)) + term(mp.mpf(last))) / 2 + slope / 12


@pytest.mark.parametrize("steps", [10, 10**4, 10**7])
def test_a_trillion_eigenvalues(steps):
    """zhang2019 eq. 4 summed: the first thousand terms one by one, the others by Euler and Maclaurin."""
    lr, batch = mp.mpf(0.5), 64

    def term(i):
        left = (1 - lr / i) ** (2 * steps)
        return left / i / 2 + (1 - left) * lr / i / (2 * batch * (2 - lr / i))

    with mp.workdps(25):
        expected = mp.fsum(term(mp.mpf(i)) for i in range(1, 1000)) + euler_maclaurin(term, 1000, 10**12)
    found = nqm.risk(nqm.NoisyQuadratic.power_law(10**12), nqm.SGD(0.5), batch, steps)
    assert_allclose(found, float(expected), rtol=PROMISED)


def test_the_answer_does_not_depend_on_its_company():
    """Rows are refined each for itself, so one call and many give the same bits."""
    problem = nqm.NoisyQuadratic.power_law(10**4)
    together = nqm.risk(problem, OPTIMIZERS["long underdamped"], 4, STEPS)
    for i, t in enumerate(STEPS[:, 0]):
        for j, lr in enumerate(OPTIMIZERS["long underdamped"].lr):
            assert nqm.risk(problem, nqm.SGD(lr, 0.9999), 4, t) == together[i, j]


# --- the bins of Zhang et al. ------------------------------------------------------------------------------


def naive_bins(curvature, bins):
    """{edge: count}: every eigenvalue goes to the next smaller of so many geometric edges."""
    edges = list(np.geomspace(min(curvature), max(curvature), bins))
    counts = {}
    for h in curvature:
        edge = edges[bisect_right(edges, h) - 1]
        counts[edge] = counts.get(edge, 0) + 1
    return counts


@pytest.mark.parametrize("dim", [100, 10**4])
@pytest.mark.parametrize("bins", [10, 100])
def test_bins_are_those_of_a_naive_loop(dim, bins):
    expected = sorted(naive_bins(every_eigenvalue(dim).curvature, bins).items())
    found = nqm.NoisyQuadratic.power_law(dim).binned(bins)
    order = np.argsort(found.curvature)
    assert found.dim == dim
    assert np.array_equal(found.multiplicity[order], [count for _, count in expected])
    assert_allclose(found.curvature[order], [edge for edge, _ in expected], rtol=1e-14)
    assert np.array_equal(found.noise, found.curvature)
    assert np.all(found.init == 1.0)


def test_the_bins_of_the_paper():
    exact = every_eigenvalue(10**4)
    for problem in (exact, nqm.NoisyQuadratic.power_law(10**4)):
        binned = problem.binned(100)
        assert binned.curvature.size == 84  # of 100; the others receive nothing
        assert binned.initial_risk / exact.initial_risk - 1.0 == pytest.approx(-0.039, abs=5e-4)


def test_bins_of_a_huge_power_law_hold_every_eigenvalue():
    """Beyond 2^22 they are counted by a formula; here, where a loop is still possible, it must agree with one."""
    problem = nqm.NoisyQuadratic.power_law(5 * 10**6).binned(60)
    index = np.arange(1.0, 5e6 + 1.0)
    edges = np.geomspace(1.0 / 5e6, 1.0, 60)
    counts = np.bincount(np.searchsorted(edges, 1.0 / index, side="right") - 1)
    order = np.argsort(problem.curvature)
    assert np.array_equal(problem.multiplicity[order], counts[counts > 0])
    assert nqm.NoisyQuadratic.power_law(10**12).binned(100).dim == 10**12


def test_bins_average_noise_and_start():
    problem = nqm.NoisyQuadratic([1.0, 1.1, 8.0], [2.0, 1.1, 8.0], [1.0, 4.0, 2.0], [2.0, 1.0, 5.0]).binned(2)
    assert problem.curvature == pytest.approx([1.0, 8.0])
    assert problem.multiplicity == pytest.approx([3.0, 5.0])
    assert problem.init == pytest.approx([(2 * 1.0 + 4.0) / 3, 2.0])
    assert problem.noise == pytest.approx([(2 * 2.0 + 1.0) / 3, 8.0])  # averages of noise / curvature


# --- measured spectra --------------------------------------------------------------------------------------


@cache
def measured(proportional):
    """3000 random eigenvalues over about 8 decades."""
    rng = np.random.default_rng(0)
    h = np.exp(rng.normal(-5.0, 2.5, size=3000))
    if proportional:
        return nqm.NoisyQuadratic(h, 3.0 * h, 0.5)
    return nqm.NoisyQuadratic(h, h * rng.exponential(size=3000), rng.exponential(size=3000), rng.integers(1, 9, 3000))


@pytest.mark.parametrize("proportional", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_compression_keeps_the_risk(name, proportional):
    source = measured(proportional)
    problem = source.compressed()
    assert problem.curvature.size < source.curvature.size / 4
    assert problem.dim == source.dim
    assert_allclose(problem.initial_risk, source.initial_risk, rtol=PROMISED)
    power = OPTIMIZERS[name].hyperparameters.get("power", 0.0)
    scaled = OPTIMIZERS[name].hyperparameters["lr"] / source.curvature.max() ** (1.0 - power)
    assert_same_risk(problem, source, OPTIMIZERS[name].with_values(lr=scaled))


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-12])
def test_more_accuracy_costs_more_nodes(rtol):
    source = measured(False)
    problem = source.compressed(rtol)
    assert_same_risk(problem, source, nqm.SGD(1.9 / source.curvature.max()))
    assert source.compressed(rtol / 100).curvature.size > problem.curvature.size


@pytest.mark.parametrize("problem", [nqm.NoisyQuadratic([2.0, 1.0]), nqm.NoisyQuadratic(np.full(5000, 0.3))], ids=str)
def test_spectra_with_little_to_compress(problem):
    assert_same_risk(problem.compressed(), problem, nqm.SGD(0.5, momentum=0.9))


def test_a_start_or_noise_in_few_directions_survives_compression():
    h = np.geomspace(1e-4, 1.0, 2000)
    init, noise = np.zeros(2000), np.zeros(2000)
    init[:3], noise[-3:] = 5.0, 0.1
    source = nqm.NoisyQuadratic(h, noise, init)
    assert_same_risk(source.compressed(), source, nqm.SGD([0.01, 1.5], momentum=0.5))


# --- the object itself -------------------------------------------------------------------------------------

PROBLEMS = [
    *(setting.problem for setting in SETTINGS.values()),
    nqm.NoisyQuadratic(2.0),
    nqm.NoisyQuadratic.power_law(10**12, 0.5),
    nqm.NoisyQuadratic.power_law(10**4).binned(100),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_arrays_are_read_only_and_of_one_shape(problem):
    arrays = [problem.curvature, problem.noise, problem.init, problem.multiplicity]
    assert all(a.shape == (problem.curvature.size,) and a.dtype == np.float64 for a in arrays)
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7.0


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_pickling_keeps_every_bit(problem):
    optimizer = nqm.SGD(0.3, momentum=0.9)
    expected = nqm.risk(problem, optimizer, 16, [0, 10, 1000])
    copy = pickle.loads(pickle.dumps(problem))
    assert np.array_equal(nqm.risk(copy, optimizer, 16, [0, 10, 1000]), expected)
    assert repr(copy) == repr(problem)
    assert (copy.dim, copy.condition_number) == (problem.dim, problem.condition_number)
    with pytest.raises(ValueError, match="read-only"):
        copy.curvature[0] = 7.0


def test_the_callers_arrays_stay_the_callers():
    h, noise = np.array([1.0, 0.5]), np.array([2.0, 3.0])
    problem = nqm.NoisyQuadratic(h, noise)
    h[0], noise[0] = 9.0, 9.0
    assert problem.curvature[0] == 1.0
    assert problem.noise[0] == 2.0
