"""Problems from matrices, against dense matrices in theta-space.

The oracle `course` knows of no eigenbasis: it carries the mean and the covariance of (theta, buffer, average), a vector
of 3 d entries, through `reference.update` with dense matrices.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference
from building import optimizer_of
from matrices import MATRICES, RULES, STEPS, psd, spd, within
from reference import Rule

import nqm
from nqm import SGD, NoisyQuadratic, Schedule


def course(hessian, covariance, start, pieces, rule, preconditioner=None, read=2):
    """Risk after 0, 1, ... steps along pieces (lr, batch, steps); start: a vector or a matrix of second moments.

    read: which of theta (0) and its average (2) is read out.
    """
    d = len(hessian)
    inverse = np.eye(d) if preconditioner is None else np.linalg.inv(preconditioner)
    place = np.kron([[1.0], [0.0], [1.0]], np.eye(d))  # theta and average start at theta_0, the buffer at 0
    vector = np.ndim(start) == 1
    mean = place @ (start if vector else np.zeros(d))
    spread = place @ (np.zeros((d, d)) if vector else start) @ place.T

    def risk():
        moment = (spread + np.outer(mean, mean))[read * d : (read + 1) * d, read * d : (read + 1) * d]
        return 0.5 * np.sum(hessian * moment)

    risks = [risk()]
    for lr, batch, steps in pieces:
        now, zero = replace(rule, lr=lr), np.zeros((d, 3 * d))
        theta, buffer, average = np.eye(3 * d).reshape(3, d, 3 * d)
        matrix = np.concatenate(reference.update(now, (theta, buffer, average), inverse @ hessian @ theta))
        gain = np.concatenate(reference.update(now, (zero[:, :d],) * 3, inverse))
        for _ in range(steps):
            mean = matrix @ mean
            spread = matrix @ spread @ matrix.T + gain @ covariance @ gain.T / batch
            risks.append(risk())
    return np.array(risks)


@pytest.mark.parametrize("preconditioned", [False, True], ids=["", "P"])
@pytest.mark.parametrize("along", ["constant", "lr", "batch", "both"])
@pytest.mark.parametrize("name", RULES)
def test_risk_is_that_of_dense_matrices(name, along, preconditioned):
    for d, seed in ((3, 0), (4, 1), (6, 2)):
        generator = np.random.default_rng(seed)
        hessian, covariance = spd(generator, d), psd(generator, d, d - 1 if d == 4 else d)
        matrix = spd(generator, d, 9.0) if preconditioned else None
        whole = hessian if matrix is None else np.linalg.solve(matrix, hessian)
        rate = RULES[name].lr / np.linalg.eigvals(whole).real.max()
        rates, sizes = (rate, 0.3 * rate, 0.8 * rate), (5.0, 40.0, 2.0)
        if along in ("constant", "batch"):
            rates = (rate,) * 3
        if along in ("constant", "lr"):
            sizes = (5.0,) * 3
        lengths = (3, 7, 30)
        lr = Schedule(rates, lengths) if along in ("lr", "both") else rate
        batch = Schedule(sizes, lengths) if along in ("batch", "both") else sizes[0]
        optimizer = optimizer_of(replace(RULES[name], lr=lr))
        read = 2 if RULES[name].decay is not None else 0
        pieces = list(zip(rates, sizes, lengths, strict=True))
        for start in (generator.normal(size=d), psd(generator, d, 2)):
            problem = NoisyQuadratic.from_matrices(hessian, covariance, start, matrix)
            expected = course(hessian, covariance, start, pieces, RULES[name], matrix, read)
            assert nqm.risk(problem, optimizer, batch, STEPS) == pytest.approx(expected[STEPS], rel=1e-11)


def test_attributes_of_a_problem_from_matrices():
    """Traces that no change of basis touches; a diagonal matrix is the plain constructor's, sorted."""
    generator = np.random.default_rng(3)
    a, s, theta = spd(generator, 5), psd(generator, 5), generator.normal(size=5)
    problem = NoisyQuadratic.from_matrices(a, s, theta)
    assert problem.initial_risk == pytest.approx(0.5 * theta @ a @ theta, rel=1e-13)
    assert problem.noise.sum() == pytest.approx(np.trace(s), rel=1e-13)
    assert problem.curvature @ problem.noise == pytest.approx(np.trace(a @ s), rel=1e-13)
    assert problem.curvature**2 @ problem.init == pytest.approx(np.sum((a @ theta) ** 2), rel=1e-12)
    assert np.all(np.diff(problem.curvature) > 0)
    plain = NoisyQuadratic.from_matrices(np.diag([3.0, 1.0]), np.diag([0.2, 0.5]), [1.0, 2.0])
    assert (plain.curvature.tolist(), plain.noise.tolist(), plain.init.tolist()) == ([1, 3], [0.5, 0.2], [4, 1])
    same = NoisyQuadratic.from_matrices(a, None, theta)
    assert np.array_equal(same.noise, same.curvature)
    given = NoisyQuadratic.from_matrices(a, a, theta)
    assert given.noise == pytest.approx(same.noise, rel=1e-12)


def test_asymmetry_from_rounding_is_averaged_out():
    a, s = np.array([[2.0, 1.0 + 1e-11], [1.0, 2.0]]), np.array([[1.0, 0.5], [0.5 - 1e-12, 1.0]])
    one, other = (MATRICES(x, y, [1.0, 2.0]) for x, y in ((a, s), (a.T, s.T)))
    for name in ("curvature", "noise", "init"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_identity_as_preconditioner_and_a_scaled_one():
    generator = np.random.default_rng(4)
    a, s, theta = spd(generator, 4), psd(generator, 4), generator.normal(size=4)
    plain = nqm.risk(NoisyQuadratic.from_matrices(a, s, theta), SGD(0.4), 3, STEPS)
    for factor in (1.0, 5.0):
        problem = NoisyQuadratic.from_matrices(a, s, theta, factor * np.eye(4))
        assert nqm.risk(problem, SGD(0.4 * factor), 3, STEPS) == pytest.approx(plain, rel=1e-12)


def test_a_power_of_the_hessian_as_preconditioner():
    generator = np.random.default_rng(5)
    a, s, theta = spd(generator, 4), psd(generator, 4), generator.normal(size=4)
    h, v = np.linalg.eigh(a)
    dense = NoisyQuadratic.from_matrices(a, s, theta, (v * h**0.4) @ v.T)
    power = nqm.Preconditioned(SGD(0.5, 0.6), 0.4)
    expected = nqm.risk(NoisyQuadratic.from_matrices(a, s, theta), power, 3, STEPS)
    assert nqm.risk(dense, SGD(0.5, 0.6), 3, STEPS) == pytest.approx(expected, rel=1e-12)


def twins(seed, d=4):
    """A, and two covariances with the same diagonal in A's eigenbasis, far apart off it; start; P."""
    generator = np.random.default_rng(seed)
    a, s, theta = spd(generator, d), psd(generator, d), generator.normal(size=d)
    v = np.linalg.eigh(a)[1]
    bare = (v * np.sum(v * (s @ v), axis=0)) @ v.T
    assert np.linalg.norm(s - bare) > 0.3 * np.linalg.norm(s)
    return a, s, bare, theta, spd(generator, d, 9.0)


@pytest.mark.parametrize("name", RULES)
def test_off_diagonal_noise_does_not_matter(name):
    """Neither in theta-space nor here; what does not touch the diagonal changes no risk."""
    a, s, bare, theta, _ = twins(6)
    read = 2 if RULES[name].decay is not None else 0
    dense = [course(a, c, theta, [(0.7, 2.0, 40)], RULES[name], read=read)[STEPS] for c in (s, bare)]
    assert dense[0] == pytest.approx(dense[1], rel=1e-12)
    problems = [NoisyQuadratic.from_matrices(a, c, theta) for c in (s, bare)]
    found = [nqm.risk(problem, optimizer_of(RULES[name]), 2.0, STEPS) for problem in problems]
    assert found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_but_it_does_under_a_preconditioner_that_does_not_commute(momentum):
    a, s, bare, theta, p = twins(6)
    rate, rule = 0.5 / np.linalg.eigvals(np.linalg.solve(p, a)).real.max(), Rule(0.0, momentum)
    dense = [course(a, c, theta, [(rate, 2.0, 40)], rule, p, read=0)[STEPS] for c in (s, bare)]
    assert np.all(np.abs(dense[0] / dense[1] - 1.0)[1:] > 0.02)
    for covariance, expected in zip((s, bare), dense, strict=True):
        problem = NoisyQuadratic.from_matrices(a, covariance, theta, p)
        assert nqm.risk(problem, SGD(rate, momentum), 2.0, STEPS) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("preconditioned", [False, True], ids=["", "P"])
@pytest.mark.parametrize("labels", [0.0, 0.5])
def test_gaussian_features_from_matrices(labels, preconditioned):
    """Isserlis: E[x x^T D x x^T] = 2 H D H + H tr(H D), a recursion in theta-space."""
    generator = np.random.default_rng(7)
    h, lr, batch = spd(generator, 4), 0.1, 3.0
    p = spd(generator, 4, 9.0) if preconditioned else np.eye(4)
    for start in (generator.normal(size=4), psd(generator, 4)):
        moment, risks = np.outer(start, start) if start.ndim == 1 else start, []
        for _ in range(41):
            risks.append(0.5 * np.sum(h * moment))
            once = h @ moment @ h
            extra = (once + h * np.sum(h * moment) + labels * h) / batch
            drift = np.linalg.solve(p, h @ moment)
            kick = np.linalg.solve(p, np.linalg.solve(p, once + extra).T)
            moment = moment - lr * (drift + drift.T) + lr**2 * kick
        problem = NoisyQuadratic.from_matrices(
            h, None, start, p if preconditioned else None, noise_model="gaussian-features", label_noise=labels
        )
        assert problem.noise == pytest.approx(labels * problem.curvature, rel=1e-12)
        assert nqm.risk(problem, SGD(lr), batch, STEPS) == pytest.approx(np.array(risks)[STEPS], rel=1e-11)


def test_eq_2_by_monte_carlo():
    """20 000 runs of wen2020 eq. 2 with a C that is not symmetric; at every time within 4 standard errors."""
    generator, runs, lr = np.random.default_rng(8), 20_000, 0.4
    a, c, start = spd(generator, 3), generator.normal(size=(3, 3)), np.array([1.0, -2.0, 0.5])
    theta, losses = np.tile(start, (runs, 1)), []
    for _ in range(30):
        theta = theta - lr * theta @ a + lr * generator.normal(size=(runs, 3)) @ c.T
        losses.append(0.5 * np.sum(theta @ a * theta, axis=1))
    exact = nqm.risk(NoisyQuadratic.from_matrices(a, c @ c.T, start), SGD(lr), 1, np.arange(1, 31))
    assert within(np.array(losses).T, exact)
    assert not within(np.array(losses).T, 1.05 * exact)  # the test can tell 5%


@pytest.mark.parametrize(
    "arguments",
    [([[1e200]], [[1.0]], [1e200]), ([[1e-200]], [[1e200]], [1.0]), ([[1e200]], [[1.0]], [1.0], [[1e-200]])],
    ids=["init", "noise", "curvature"],
)
def test_overflow_is_refused(arguments):
    with pytest.raises(ValueError, match="overflow"):
        MATRICES(*arguments)
