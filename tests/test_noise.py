"""nqm.noise against dense matrices in theta-space, enumerations and printed formulas."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import reference
from building import optimizer_of
from matrices import MATRICES, RULES, STEPS, psd, spd, within

import nqm
from nqm import SGD, NoisyQuadratic, Schedule, noise

# --- shape ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_excess(seed):
    """Frobenius norms, the inequality, rectangular factors, and that it is one step's noise in units of lr^2 / 2."""
    generator = np.random.default_rng(seed)
    d = 2 + seed % 5
    a = spd(generator, d)
    full, diagonal = np.linalg.cholesky(a), np.diag(np.sqrt(np.diag(a)))
    assert noise.excess(a, full) == pytest.approx(np.linalg.norm(a) ** 2, rel=1e-12)
    assert noise.excess(a, diagonal) == pytest.approx(np.sum(np.diag(a) ** 2), rel=1e-12)
    assert noise.excess(a, diagonal) < noise.excess(a, full)
    wide = generator.normal(size=(d, d + 3))
    for factor in (wide, wide[:, :1]):
        problem = NoisyQuadratic.from_matrices(a, factor @ factor.T, np.zeros(d))
        assert nqm.risk(problem, SGD(0.3), 1, 1) == pytest.approx(0.045 * noise.excess(a, factor), rel=1e-12)


@pytest.mark.parametrize("structure", noise.STRUCTURES)
def test_injected(structure):
    generator, large, small = np.random.default_rng(9), 4096.0, 128.0
    f, a, theta = psd(generator, 5), spd(generator, 5), generator.normal(size=5)
    c = noise.injected(f, large, small, structure, *([[2, 3]] if structure == "blocks" else []))
    assert c == pytest.approx(c.T, rel=1e-13)
    added = c @ c.T
    share, mask = 1.0 / small - 1.0 / large, np.kron(np.eye(2), np.ones((3, 3)))[1:, 1:]
    shapes = {
        "none": 0.0 * f,
        "full": f,
        "diagonal": np.diag(np.diag(f)),
        "trace": np.trace(f) / 5 * np.eye(5),
        "blocks": f * mask,
    }
    assert added == pytest.approx(share * shapes[structure], rel=1e-11, abs=1e-16)
    assert np.trace(added) == pytest.approx(0.0 if structure == "none" else share * np.trace(f), rel=1e-12)
    mixed = nqm.risk(NoisyQuadratic.from_matrices(a, f / large + added, theta), SGD(0.5, 0.7), 1, STEPS)
    batch = {"none": large, "full": small}.get(structure)
    whole = nqm.risk(NoisyQuadratic.from_matrices(a, f, theta), SGD(0.5, 0.7), batch or small, STEPS)
    if batch:
        assert mixed == pytest.approx(whole, rel=1e-11)
    else:  # equal variance, another shape: another risk
        assert np.all(np.abs(mixed[1:] / whole[1:] - 1.0) > 1e-3)


def test_blocks_between_diagonal_and_full():
    f = psd(np.random.default_rng(10), 4)
    assert noise.injected(f, 8, 2, "blocks", [4]) == pytest.approx(noise.injected(f, 8, 2, "full"), rel=1e-13)
    ones = noise.injected(f, 8, 2, "blocks", [1] * 4)
    assert ones == pytest.approx(noise.injected(f, 8, 2, "diagonal"), rel=1e-13)
    assert not noise.injected(f, 8, 8).any()
    assert noise.injected(np.zeros((2, 2)), 8, 2).tolist() == [[0, 0], [0, 0]]


# --- batches --------------------------------------------------------------------------------------------------------

DATA = np.random.default_rng(11).standard_t(3, size=(6, 2))  # gradients of six examples
COVARIANCE = np.cov(DATA.T, bias=True)


def covariance_of_means(batches):
    """Covariance of the mean over all the batches, each as likely."""
    return np.cov(DATA[np.array(batches)].mean(axis=1).T, bias=True)


@pytest.mark.parametrize("size", range(1, 7))
def test_without_replacement_is_the_covariance_over_all_subsets(size):
    found = covariance_of_means(list(itertools.combinations(range(6), size)))
    assert found == pytest.approx(COVARIANCE / noise.without_replacement(size, 6), rel=1e-12, abs=1e-15)


def test_a_whole_data_set_is_gradient_descent():
    problem = NoisyQuadratic([1.0, 0.3], noise=[0.5, 2.0], init=[1.0, 4.0])
    whole = noise.without_replacement(50, 50)
    assert whole == np.inf
    descent = 0.5 * ((1.0 - 0.8 * problem.curvature) ** (2 * STEPS[:, None])) @ (problem.curvature * problem.init)
    assert nqm.risk(problem, SGD(0.8), whole, STEPS) == pytest.approx(descent, rel=1e-13)
    assert nqm.steady_state_risk(problem, SGD(0.8), whole) == 0.0


def test_a_ramp_up_to_the_whole_data_set_is_refused():
    """Its batch size stands for inf, which no schedule holds."""
    with pytest.raises(ValueError, match="batch_size: expected a schedule below the whole data set"):
        noise.without_replacement(Schedule([10, 50], 20), 50)
    ramp = noise.without_replacement(Schedule([10, 49], 20), 50)
    assert ramp.values == pytest.approx([10 * 49 / 40, 49 * 49])


@pytest.mark.parametrize("a", [1.0, 1.5, 3.0])
def test_enhanced_is_the_covariance_over_all_pairs_of_batches(a):
    """Every pair of batches of two, drawn with replacement, and without (where the two factors multiply)."""
    for batches, size in (
        (list(itertools.product(range(6), repeat=2)), 2.0),
        (list(itertools.combinations(range(6), 2)), noise.without_replacement(2, 6)),
    ):
        means = DATA[np.array(batches)].mean(axis=1)
        pairs = a * means[:, None] + (1.0 - a) * means[None, :]
        assert pairs.mean(axis=(0, 1)) == pytest.approx(DATA.mean(axis=0), rel=1e-12)
        found = np.cov(pairs.reshape(-1, 2).T, bias=True)
        assert found == pytest.approx(COVARIANCE / noise.enhanced(size, a), rel=1e-12)


def test_enhancement_inverts():
    a = np.array([1.0, 1.0001, 1.5, 2.0, 11.0, 1e4])
    effective = noise.enhanced(5000.0, a)
    assert noise.enhancement(5000.0, effective) == pytest.approx(a, rel=1e-9)
    assert effective == pytest.approx(5000.0 / (a**2 + (1 - a) ** 2), rel=1e-15)
    assert noise.enhanced([[2.0], [4.0]], [1.0, 2.0]).tolist() == [[2.0, 0.4], [4.0, 0.8]]
    schedule = Schedule([10.0, 20.0], [3, 4], "error")
    assert noise.enhanced(schedule, 2.0) == Schedule([2.0, 4.0], [3, 4], "error")
    rarer = noise.without_replacement(schedule, 39)
    assert rarer.values == pytest.approx([10 * 38 / 29, 20 * 38 / 19], rel=1e-15)
    assert (rarer.lengths.tolist(), rarer.beyond) == ([3, 4], "error")


def test_two_minibatches_by_monte_carlo():
    """SGD on a g_B + (1 - a) g_B' with skewed noise, 20 000 runs: the risk at B_eff, within 4 standard errors."""
    generator, runs, lr, batch, a = np.random.default_rng(12), 20_000, 0.4, 8, 1.8
    h, c = np.array([1.0, 0.2]), np.array([0.5, 2.0])
    theta, losses = np.ones((runs, 2)), []
    for _ in range(20):
        means = [generator.gamma(batch, size=(runs, 2)) / batch - 1.0 for _ in range(2)]  # of exponential noise
        theta = theta - lr * (h * theta + np.sqrt(c) * (a * means[0] + (1.0 - a) * means[1]))
        losses.append(0.5 * np.sum(h * theta**2, axis=1))
    exact = nqm.risk(NoisyQuadratic(h, c), SGD(lr), noise.enhanced(batch, a), np.arange(1, 21))
    assert within(np.array(losses).T, exact)
    plain = nqm.risk(NoisyQuadratic(h, c), SGD(lr), batch, np.arange(1, 21))
    assert not within(np.array(losses).T, plain)


# --- Smith & Le's scale ---------------------------------------------------------------------------------------------


def test_scale_as_printed_and_its_inverse():
    generator = np.random.default_rng(13)
    lr, m, n = generator.uniform(1e-4, 2.0, 50), generator.random(50), 10.0 ** generator.uniform(2, 6, 50)
    batch = n * generator.random(50)
    g = noise.scale(lr, batch, n, m)
    assert g == pytest.approx(lr * (n / batch - 1.0) / (1.0 - m), rel=1e-9)
    positive = g > 0
    back = noise.scaled_batch_size(g[positive], lr[positive], n[positive], m[positive])
    assert back == pytest.approx(batch[positive], rel=1e-12)
    assert noise.scale(0.1, 100, 100) == 0.0
    # the scaling rules, at B << N: B ~ lr, B ~ 1 / (1 - m); B ~ N at any B
    at = noise.scaled_batch_size(1e9, [0.1, 0.2], 1e10) / noise.scaled_batch_size(1e9, 0.1, 1e10)
    assert at[1] == pytest.approx(2.0, rel=1e-9)
    at = noise.scaled_batch_size(1e9, 0.1, 1e10, [0.0, 0.9])
    assert at[1] / at[0] == pytest.approx(10.0, rel=1e-8)
    at = noise.scaled_batch_size(0.1, 0.1, [1e3, 1e4])
    assert noise.scaled_batch_size(0.0, 0.1, 1e3) == 1e3  # the whole data set
    assert at.tolist() == [500.0, 5000.0]


@pytest.mark.parametrize("m", [0.0, 0.9, 0.99])
def test_steady_states_of_equal_scale_meet_as_rates_go_to_0(m):
    """g c / (4 N) times N / (N - 1), times 1 / (1 - lr h / (2 (1 + m))): apart to first order in lr h, and no more."""
    h, c, n, g = 0.5, 2.0, 1000, 3.0
    lr = np.array([1e-5, 1e-3, 0.1, 1.0, 2.0])
    batch = noise.without_replacement(noise.scaled_batch_size(g, lr, n, m), n)
    found = nqm.steady_state_risk(NoisyQuadratic([h], noise=c), SGD(lr, m), batch)
    limit = g * c / (4 * n) * n / (n - 1)
    assert found == pytest.approx(limit / (1.0 - lr * h / (2 * (1 + m))), rel=1e-10)
    drift = found / limit - 1.0
    assert drift[1] / drift[0] == pytest.approx(100.0, rel=1e-3)


# --- noise scales to measure ----------------------------------------------------------------------------------------

PROBLEM = NoisyQuadratic([1.0, 0.3, 0.02], noise=[0.5, 1.0, 0.1], init=[1.0, 0.2, 3.0], multiplicity=[1, 2, 4])


def scales(h, c, second, multiplicity, power):
    """tr(P^-1 C) / E[G^T P^-1 G] and tr(H P^-2 C) / E[G^T H P^-2 G], G = H theta, for diagonal matrices."""
    p = h**power
    simple = np.sum(multiplicity * c / p) / np.sum(multiplicity * h**2 * second / p)
    return simple, np.sum(multiplicity * h * c / p**2) / np.sum(multiplicity * h**3 * second / p**2)


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 1.0])
def test_noise_scales_at_the_start(power):
    p = PROBLEM
    expected = scales(p.curvature, p.noise, p.init, p.multiplicity, power)
    assert noise.simple_noise_scale(p, power) == pytest.approx(expected[0], rel=1e-13)
    assert noise.hessian_noise_scale(p, power) == pytest.approx(expected[1], rel=1e-13)
    explicit = 1.0 / np.arange(1.0, 20_001.0)
    expected = scales(explicit, explicit, 1.0, 1.0, power)
    law = NoisyQuadratic.power_law(20_000)
    assert noise.simple_noise_scale(law, power) == pytest.approx(expected[0], rel=1e-9)
    assert noise.hessian_noise_scale(law, power) == pytest.approx(expected[1], rel=1e-9)


def test_noise_scales_of_matrices():
    """tr S / |A theta|^2 and tr(A S) / theta^T A^3 theta; with P, in its metric."""
    generator = np.random.default_rng(14)
    a, s, theta, p = spd(generator, 4), psd(generator, 4), generator.normal(size=4), spd(generator, 4, 9.0)
    problem, g = NoisyQuadratic.from_matrices(a, s, theta), a @ theta
    assert noise.simple_noise_scale(problem) == pytest.approx(np.trace(s) / (g @ g), rel=1e-11)
    assert noise.hessian_noise_scale(problem) == pytest.approx(np.trace(a @ s) / (g @ a @ g), rel=1e-11)
    problem, inverse = NoisyQuadratic.from_matrices(a, s, theta, p), np.linalg.inv(p)
    metric = inverse @ a @ inverse
    assert noise.simple_noise_scale(problem) == pytest.approx(np.trace(inverse @ s) / (g @ inverse @ g), rel=1e-11)
    assert noise.hessian_noise_scale(problem) == pytest.approx(np.trace(metric @ s) / (g @ metric @ g), rel=1e-11)


@pytest.mark.parametrize("power", [0.0, 0.5])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("along", [False, True], ids=["constant", "schedules"])
def test_noise_scales_along_the_way(name, power, along):
    """E[theta^2] of each coordinate from an explicit recursion."""
    rule, p = replace(RULES[name], power=power), PROBLEM
    pieces = [(0.7, 8.0, 5), (0.2, 3.0, 12)] if along else [(0.7, 8.0, 17)]
    second = []
    for h, c, init in zip(p.curvature, p.noise, p.init, strict=True):
        risks = reference.recursion_risk_along(rule, pieces, [h], [c], [init])
        second.append(2.0 * risks[-1] / h)
    rate, size = (Schedule([0.7, 0.2], [5, 12]), Schedule([8.0, 3.0], [5, 12])) if along else (0.7, 8.0)
    optimizer = optimizer_of(replace(rule, lr=rate))
    for measured in (0.0, power):
        expected = scales(p.curvature, p.noise, np.array(second), p.multiplicity, measured)
        found = (
            noise.simple_noise_scale(p, measured, optimizer, size, 17),
            noise.hessian_noise_scale(p, measured, optimizer, size, 17),
        )
        assert found == pytest.approx(expected, rel=1e-11)
    assert noise.simple_noise_scale(p, 0.0, optimizer, size, 0) == noise.simple_noise_scale(p)


def test_noise_scales_on_gaussian_features_and_at_the_optimum():
    h, init, labels = np.array([1.0, 0.3]), np.array([2.0, 0.5]), 0.7
    problem = NoisyQuadratic(h, init=init, noise_model="gaussian-features", label_noise=labels)
    c = h * (labels + h @ init) + h**2 * init
    expected = scales(h, c, init, 1.0, 0.0)
    assert noise.simple_noise_scale(problem) == pytest.approx(expected[0], rel=1e-13)
    assert noise.hessian_noise_scale(problem) == pytest.approx(expected[1], rel=1e-13)
    still = NoisyQuadratic(h, init=0.0)
    assert noise.simple_noise_scale(still) == np.inf
    assert np.isfinite(noise.simple_noise_scale(still, 0.0, SGD(0.1), 4, 1))


# --- bad input ------------------------------------------------------------------------------------------------------

I2, NAN = np.eye(2), float("nan")

BAD = {
    "asymmetric": (lambda: MATRICES([[1, 0.5], [0.4, 1]], I2, [1, 0]), r"hessian.*\(0, 1\).*differ by 0\.1 of"),
    "asymmetric S": (lambda: MATRICES(I2, [[1, 0.5], [0, 1]], [1, 0]), r"covariance.*differ by 0\.5 of"),
    "indefinite": (lambda: MATRICES([[1, 2], [2, 1]], I2, [1, 0]), "hessian.*eigenvalues from -1 to 3"),
    "singular": (lambda: MATRICES([[1, 1], [1, 1]], I2, [1, 0]), "hessian.*singular"),
    "indefinite, P": (lambda: MATRICES([[1, 2], [2, 1]], I2, [1, 0], I2), "hessian.*eigenvalues from -1 to 3"),
    "indefinite S": (lambda: MATRICES(I2, [[1, 2], [2, 1]], [1, 0]), "covariance.*semidefinite.*from -1 to 3"),
    "indefinite P": (lambda: MATRICES(I2, I2, [1, 0], [[1, 2], [2, 1]]), "preconditioner.*from -1 to 3"),
    "indefinite start": (lambda: MATRICES(I2, I2, [[1, 2], [2, 1]]), "start.*semidefinite.*from -1 to 3"),
    "shape of A": (lambda: MATRICES(np.ones((2, 3)), I2, [1, 0]), r"hessian.*\(d, d\).*\(2, 3\)"),
    "vector for A": (lambda: MATRICES([1.0, 2.0], I2, [1, 0]), r"hessian.*\(d, d\).*\(2,\)"),
    "shape of S": (lambda: MATRICES(I2, np.eye(3), [1, 0]), r"covariance.*\(2, 2\).*\(3, 3\)"),
    "shape of P": (lambda: MATRICES(I2, I2, [1, 0], np.eye(3)), r"preconditioner.*\(2, 2\).*\(3, 3\)"),
    "shape of start": (lambda: MATRICES(I2, I2, [1, 0, 0]), r"start.*\(2,\).*\(3,\)"),
    "NaN in A": (lambda: MATRICES([[1, NAN], [NAN, 1]], I2, [1, 0]), "hessian.*nan"),
    "NaN in start": (lambda: MATRICES(I2, I2, [1, NAN]), "start.*nan"),
    "S of features": (
        lambda: MATRICES(I2, I2, [1, 0], noise_model="gaussian-features", label_noise=1.0),
        "noise.*None",
    ),
    "B > N": (lambda: noise.without_replacement([3, 11], 10), "at most dataset_size.*11 of 10"),
    "B > N in a schedule": (lambda: noise.without_replacement(Schedule([3, 11], 2), 10), "at most dataset_size"),
    "N = 1": (lambda: noise.without_replacement(1, 1), "dataset_size"),
    "B = 0": (lambda: noise.without_replacement(0, 10), "batch_size"),
    "B = 0 in a schedule": (lambda: noise.enhanced(Schedule([1, 0], 2), 2), "batch_size.*positive"),
    "shapes": (lambda: noise.without_replacement([1, 2], [3, 4, 5]), "broadcast"),
    "a < 1": (lambda: noise.enhanced(10, 0.9), r"^a:.*\[1, inf\).*0\.9"),
    "a NaN": (lambda: noise.enhanced(10, NAN), "^a:.*nan"),
    "B_eff > B": (lambda: noise.enhancement(10, [5, 11]), "effective.*at most batch_size.*11"),
    "M_S > M_L": (lambda: noise.injected(I2, 128, 4096), "small.*at most large.*4096.*128"),
    "M_S = 0": (lambda: noise.injected(I2, 128, 0), "small"),
    "structure": (lambda: noise.injected(I2, 8, 2, "kfac"), "structure.*none, full, diagonal, trace, blocks.*kfac"),
    "structure of a list": (lambda: noise.injected(I2, 8, 2, ["full"]), "structure"),
    "blocks missing": (lambda: noise.injected(I2, 8, 2, "blocks"), "blocks.*None"),
    "blocks unasked": (lambda: noise.injected(I2, 8, 2, "full", [1, 1]), "blocks"),
    "blocks of 3": (lambda: noise.injected(I2, 8, 2, "blocks", [1, 2]), "blocks.*add up to 2"),
    "blocks of 0": (lambda: noise.injected(I2, 8, 2, "blocks", [0, 2]), "blocks"),
    "indefinite F": (lambda: noise.injected([[1, 2], [2, 1]], 8, 2), "fisher.*from -1 to 3"),
    "factor": (lambda: noise.excess(I2, np.ones((3, 2))), r"factor.*\(2, r\).*\(3, 2\)"),
    "factor of a vector": (lambda: noise.excess(I2, [1.0, 2.0]), r"factor.*\(2, r\)"),
    "A of excess": (lambda: noise.excess([[1, 2], [2, 1]], I2), "hessian.*from -1 to 3"),
    "scale, B > N": (lambda: noise.scale(0.1, 20, 10), "at most dataset_size.*20 of 10"),
    "scale, lr": (lambda: noise.scale(0.0, 2, 10), "lr"),
    "scale, m": (lambda: noise.scale(0.1, 2, 10, 1.0), "momentum"),
    "scale, NaN": (lambda: noise.scale(NAN, 2, 10), "lr.*nan"),
    "scale, shapes": (lambda: noise.scale([0.1, 0.2], [2, 3, 4], 10), "broadcast"),
    "g < 0": (lambda: noise.scaled_batch_size(-1.0, 0.1, 10), "scale"),
    "power": (lambda: noise.simple_noise_scale(PROBLEM, 1.5), "power"),
    "steps < 0": (lambda: noise.simple_noise_scale(PROBLEM, 0.0, SGD(0.1), 4, -1), "steps"),
    "no optimizer": (lambda: noise.simple_noise_scale(PROBLEM, steps=3), "optimizer and batch_size"),
    "many": (lambda: noise.simple_noise_scale(PROBLEM, 0.0, SGD([0.1, 0.2]), 4, 3), "optimizer.*plain numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types_are_type_errors():
    calls = (
        lambda: MATRICES([["a", "b"], ["c", "d"]], I2, [1, 0]),
        lambda: noise.without_replacement("8", 10),
        lambda: noise.enhanced(8, 2j),
        lambda: noise.simple_noise_scale([1.0, 0.5]),
        lambda: noise.simple_noise_scale(PROBLEM, 0.0, 0.1, 4, 3),
        lambda: noise.hessian_noise_scale(PROBLEM, 0.0, SGD(nqm.FREE), 4, 3),
    )
    for call in calls:
        with pytest.raises(TypeError, match="expected"):
            call()


def test_arguments_stay_as_they_are():
    a, s, theta = np.array([[2.0, 1.0], [1.0, 2.0]]), np.diag([1.0, 3.0]), np.array([1.0, 0.0])
    before = [x.copy() for x in (a, s, theta)]
    NoisyQuadratic.from_matrices(a, s, theta, s)
    noise.injected(a, 8, 2, "blocks", [1, 1])
    noise.excess(a, s)
    assert all(np.array_equal(x, y) for x, y in zip((a, s, theta), before, strict=True))
