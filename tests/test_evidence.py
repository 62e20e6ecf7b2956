"""Evidence: against integrals done on a grid and a Gaussian in closed form. Fits: against other methods and digits."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from nqm import evidence
from nqm.evidence import laplace, logistic_regression, toy_task
from nqm.papers import smith2018

LAMBDAS = [1e-6, 1e-3, 1.0, 1e3, 1e6]


def cost(w, features, labels, regularization):
    """C(w) as written in the paper, -ln of each label's probability; complex w welcome. w (P,) or (P, points)."""
    logits = features @ w
    signs = (2.0 * labels - 1.0).reshape((-1,) + (1,) * (np.ndim(logits) - 1))
    return np.sum(np.log(1.0 + np.exp(-signs * logits)), axis=0) + 0.5 * regularization * np.sum(w * w, axis=0)


def gradient(w, *problem):
    """Complex steps: no difference of close numbers, so no digit is lost."""
    return np.array([cost(w + 1e-30j * e, *problem).imag / 1e-30 for e in np.eye(len(w))])


def data(examples, dim, seed=0):
    """Labels that follow the inputs, but not strictly: not separable where examples are many."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((examples, dim))
    return x, (x.sum(axis=1) + random.logistic(size=examples) > 0.3).astype(float)


def parameters(fit):
    return np.append(fit.weights, fit.bias)


def with_ones(x):
    return np.column_stack([x, np.ones(len(x))])


# --- the evidence -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regularization", [1e-3, 1.0, 30.0])
def test_exact_for_linear_regression(regularization):
    """Unit noise, weights of variance 1 / lambda: then y ~ N(0, I + X X' / lambda), with no integral left to do."""
    random = np.random.default_rng(1)
    x, y = random.standard_normal((12, 5)), random.standard_normal(12)
    hessian = x.T @ x + regularization * np.eye(5)
    w = np.linalg.solve(hessian, x.T @ y)
    least = 0.5 * np.sum((y - x @ w) ** 2) + 6 * math.log(2 * math.pi) + 0.5 * regularization * w @ w
    covariance = np.eye(12) + x @ x.T / regularization
    log_evidence = -0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(2 * math.pi * covariance)[1])
    for classes in (2, 10):
        expected = -log_evidence - 12 * math.log(classes)
        assert laplace(least, hessian, regularization, 12, classes) == pytest.approx(expected, rel=1e-12)
        assert laplace(least, np.linalg.eigvalsh(hessian), regularization, 12, classes) == pytest.approx(
            expected, rel=1e-12
        )


def integrated(x, y, regularization, centre, hessian):
    """-ln of the evidence, less N ln 2: eq. 7 as a sum over a grid of 12 deviations each way, 5 points in each."""
    axes, spread = np.linspace(-12.0, 12.0, 121), np.linalg.inv(np.linalg.cholesky(hessian)).T
    grid = np.stack(np.meshgrid(*[axes] * len(centre))).reshape(len(centre), -1)
    values = -cost(np.array(centre)[:, None] + spread @ grid, x, y, regularization)
    values += 0.5 * len(centre) * math.log(regularization / (2 * math.pi))
    volume = abs(np.linalg.det(spread)) * (axes[1] - axes[0]) ** len(centre)
    return -(values.max() + math.log(np.sum(np.exp(values - values.max())) * volume)) - len(y) * math.log(2)


@pytest.mark.parametrize("bias", [False, True])  # one parameter, and two
@pytest.mark.parametrize("regularization", [0.01, 1.0, 100.0])
def test_the_integral_where_examples_are_many(bias, regularization):
    """What the Gaussian leaves out falls as 1 / N."""
    errors = []
    for examples in (30, 120, 480):
        x, y = data(examples, 1)
        fit = logistic_regression(x, y, regularization, bias=bias)
        features, centre = (with_ones(x), parameters(fit)) if bias else (x, fit.weights)
        errors.append(abs(fit.log_evidence_ratio - integrated(features, y, regularization, centre, fit.hessian)))
    assert errors[0] < 0.1
    assert errors[2] < 0.01
    assert errors[2] < max(0.1 * errors[0], 1e-3)


def test_every_labelling_together_is_as_likely_as_under_the_null_model():
    """Probabilities of all 2^N labellings sum to 1: evidence ratios are 1 on average, so some favour the model."""
    x = np.random.default_rng(2).standard_normal((8, 2))
    ratios = [
        math.exp(-logistic_regression(x, np.array(y, float), 30.0).log_evidence_ratio)
        for y in itertools.product((0, 1), repeat=8)
    ]
    assert np.mean(ratios) == pytest.approx(1.0, abs=2e-3)
    assert 0.3 < np.mean(np.array(ratios) > 1.0) < 0.7


@pytest.mark.parametrize("factor", [1e-3, 0.1, 7.0, 1e4])
def test_units_of_the_parameters_do_not_matter(factor):
    """Weights in other units, and their prior with them: curvature changes by any factor, the evidence does not."""
    x, y = data(40, 3)
    one = logistic_regression(with_ones(x), y, 0.5, bias=False)
    other = logistic_regression(with_ones(x) / factor, y, 0.5 / factor**2, bias=False)
    assert other.weights == pytest.approx(factor * one.weights, rel=1e-10)
    assert other.hessian == pytest.approx(one.hessian / factor**2, rel=1e-10)
    assert other.log_evidence_ratio == pytest.approx(one.log_evidence_ratio, abs=1e-11)
    mixed = laplace(other.cost, other.hessian, 0.5, 40)  # the new curvature with the old prior
    assert abs(mixed - one.log_evidence_ratio) > 1.0


def test_rotation_does_not_matter():
    random = np.random.default_rng(3)
    q, _ = np.linalg.qr(random.standard_normal((4, 4)))
    diagonal = np.array([0.2, 0.5, 3.0, 100.0])
    expected = 7.0 + 0.5 * (math.log(3.0 / 0.4) + math.log(100.0 / 0.4) + math.log(0.5 / 0.4)) - 9 * math.log(3)
    assert laplace(7.0, q @ np.diag(diagonal) @ q.T, 0.4, 9, 3) == pytest.approx(expected, rel=1e-13)


def test_eigenvalues_below_lambda_do_not_count():
    assert laplace(7.0, [8.0, 1.9999, 1e-300], 2.0, 1) == pytest.approx(7.0 + math.log(2) - math.log(2), rel=1e-15)
    assert laplace(7.0, [8.0], 2.0, 1) == laplace(7.0, 8.0, 2.0, 1) == laplace(7.0, [[8.0]], 2.0, 1)
    # at lambda itself there is no step
    below, above = (laplace(0.0, [2.0 * (1.0 + sign * 1e-9)], 2.0, 1) for sign in (-1, 1))
    assert above - below == pytest.approx(0.0, abs=1e-9)


def test_the_null_model_against_itself():
    for classes in (2, 10):
        assert laplace(30 * math.log(classes), np.full(5, 0.7), 0.7, 30, classes) == 0.0
    nothing = logistic_regression(np.zeros((30, 4)), np.arange(30) % 2, 0.7, bias=False)
    assert nothing.log_evidence_ratio == pytest.approx(0.0, abs=1e-13)
    assert not nothing.weights.any()


# --- the fit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("regularization", [0.01, 1.0, 100.0])
def test_another_method_from_another_start(bias, regularization):
    x, y = data(60, 4)
    features = with_ones(x) if bias else x
    start = np.random.default_rng(4).standard_normal(features.shape[1])
    problem = (features, y, regularization)
    found = minimize(cost, start, problem, method="BFGS", jac=gradient, options={"gtol": 1e-9})
    fit = logistic_regression(x, y, regularization, bias=bias)
    assert (parameters(fit) if bias else fit.weights) == pytest.approx(found.x, rel=1e-7, abs=1e-9)
    assert fit.bias == 0.0 or bias
    assert fit.cost == pytest.approx(found.fun, rel=1e-13)
    assert fit.cross_entropy == pytest.approx(cost(found.x, features, y, 0.0) / 60, rel=1e-8)
    # derivatives: by complex steps, and by differences of those
    w = parameters(fit) if bias else fit.weights
    assert np.linalg.norm(gradient(w, *problem)) == pytest.approx(fit.gradient_norm, abs=1e-12)
    differences = [(gradient(w + 1e-5 * e, *problem) - gradient(w - 1e-5 * e, *problem)) / 2e-5 for e in np.eye(len(w))]
    assert fit.hessian == pytest.approx(np.array(differences), rel=1e-7, abs=1e-7)
    assert fit.log_evidence_ratio == pytest.approx(laplace(fit.cost, differences, regularization, 60), abs=1e-6)


@pytest.mark.parametrize("x", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("regularization", LAMBDAS)
def test_one_example(regularization, x):
    """lambda w = x sigmoid(-x w); in u = ln w the root is well-conditioned at any scale."""

    def pull(u):
        return u + math.log(regularization / x) + np.logaddexp(0.0, x * math.exp(u))

    for label, sign in ((1, 1.0), (0, -1.0)):
        w = logistic_regression([[x]], [label], regularization, bias=False).weights[0]
        assert math.log(sign * w) == pytest.approx(brentq(pull, -60.0, 40.0, xtol=1e-14), abs=1e-10)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("regularization", LAMBDAS)
def test_forty_digits(separable, regularization):
    """Newton's method of mpmath, from the answer: it stays there. And the evidence in 40 digits."""
    x, y = data(15, 2, seed=5)
    y = (x.sum(axis=1) > 0.0).astype(float) if separable else y
    fit = logistic_regression(x, y, regularization)
    with mpmath.workdps(40):
        rows = mpmath.matrix(with_ones(x) * (2 * y - 1)[:, None])
        w, prior = mpmath.matrix(parameters(fit)), mpmath.mpf(regularization)
        for _ in range(4):
            wrong = [1 / (1 + mpmath.exp(m)) for m in rows * w]
            hessian = rows.T * mpmath.diag([p * (1 - p) for p in wrong]) * rows + prior * mpmath.eye(3)
            w -= mpmath.lu_solve(hessian, prior * w - rows.T * mpmath.matrix(wrong))
        least = mpmath.fsum(mpmath.log(1 + mpmath.exp(-m)) for m in rows * w) + prior / 2 * mpmath.fdot(w, w)
        ratio = least + mpmath.log(mpmath.det(hessian / prior)) / 2 - 15 * mpmath.log(2)
        assert parameters(fit) == pytest.approx([float(v) for v in w], rel=1e-9)
        assert fit.cost == pytest.approx(float(least), rel=1e-13)
        assert fit.log_evidence_ratio == pytest.approx(float(ratio), rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("labels", ["random", "informative"])
def test_how_far_from_the_minimum(labels):
    """C is lambda-convex, so a gradient g leaves at most |g|^2 / (2 lambda) above the minimum."""
    task = toy_task(labels, dim=60, train=60, test=10)
    for regularization in LAMBDAS:
        fit = logistic_regression(task.train_inputs, task.train_labels, regularization)
        g = gradient(parameters(fit), with_ones(task.train_inputs), task.train_labels, regularization)
        assert fit.gradient_norm == pytest.approx(np.linalg.norm(g), abs=1e-11)
        assert fit.gradient_norm**2 / (2 * regularization) < 1e-20 * fit.cost
        assert np.linalg.eigvalsh(fit.hessian).min() > 0.99 * regularization


HARD = {
    "one class": (np.random.default_rng(6).standard_normal((20, 3)), np.ones(20)),
    "an outlier on the wrong side": (np.append(np.ones(5000), 1e3)[:, None], np.append(np.ones(5000), 0.0)),
    "copies of a column": (np.repeat(data(20, 2)[0], 5, axis=1), data(20, 2)[1]),
    "more weights than examples": data(5, 40),
    "far from the origin": (data(50, 2)[0] + 1e4, data(50, 2)[1]),
    "large": (1e6 * data(20, 30)[0], data(20, 30)[1]),
    "columns of all scales": (data(50, 4)[0] * [1e-6, 1.0, 1e3, 1e6], data(50, 4)[1]),
}


@pytest.mark.parametrize("regularization", LAMBDAS)
@pytest.mark.parametrize("case", HARD)
def test_hard_cases_settle(case, regularization):
    x, y = HARD[case]
    fit = logistic_regression(x, y, regularization)
    # rounded logits put a floor under the gradient, relative to its terms
    terms = np.abs(with_ones(x)).sum() + regularization * np.abs(parameters(fit)).max()
    assert fit.gradient_norm < 1e-12 * terms
    assert 0.0 < fit.cost <= len(y) * math.log(2)
    # lower than its neighbours, whether or not they share its scale
    for step in np.diag(1e-3 * np.abs(parameters(fit)) + 1e-9):
        for w in (parameters(fit) + step, parameters(fit) - step):
            margins = (2 * y - 1) * (with_ones(x) @ w)
            near = np.sum(np.logaddexp(0.0, -margins)) + 0.5 * regularization * w @ w
            assert near >= fit.cost * (1.0 - 1e-12)


def test_what_is_the_same_fit():
    x, y = data(30, 3)
    fit = logistic_regression(x, y, 0.3)
    column = logistic_regression(with_ones(x), y, 0.3, bias=False)
    assert column.weights == pytest.approx(parameters(fit), rel=1e-12)
    flipped = logistic_regression(x, 1 - y, 0.3)
    assert parameters(flipped) == pytest.approx(-parameters(fit), rel=1e-12)
    order = np.random.default_rng(7).permutation(30)
    assert logistic_regression(x[order], y[order], 0.3).cost == pytest.approx(fit.cost, rel=1e-14)
    twice = logistic_regression(np.vstack([x, x]), np.append(y, y), 0.6)
    assert twice.weights == pytest.approx(fit.weights, rel=1e-12)
    assert twice.cost == pytest.approx(2 * fit.cost, rel=1e-13)
    padded = logistic_regression(np.column_stack([x, np.zeros(30)]), y, 0.3)  # a weight that nothing depends on
    assert padded.log_evidence_ratio == pytest.approx(fit.log_evidence_ratio, abs=1e-12)
    as_booleans = logistic_regression(x.tolist(), y == 1.0, 0.3)
    assert as_booleans.log_evidence_ratio == fit.log_evidence_ratio


def test_predictions_and_scores():
    x, y = data(50, 3)
    fit = logistic_regression(x[:30], y[:30], 0.1)
    probability = 1 / (1 + np.exp(-(x[30:] @ fit.weights + fit.bias)))
    assert fit.predict(x[30:]) == pytest.approx(probability, rel=1e-14)
    accuracy, entropy = fit.evaluate(x[30:], y[30:])
    assert accuracy == np.mean((probability > 0.5) == (y[30:] == 1))
    expected = -np.mean(np.log(np.where(y[30:] == 1, probability, 1 - probability)))
    assert entropy == pytest.approx(expected, rel=1e-13)
    assert fit.evaluate(x[:30], y[:30]).cross_entropy == pytest.approx(fit.cross_entropy, rel=1e-13)
    # logits of a million: probabilities of 0 and 1, the cross-entropy still finite
    far = fit.weights / np.sum(fit.weights**2) * 1e6
    assert fit.predict([far, -far]).tolist() == [1.0, 0.0]
    assert fit.evaluate([far, -far], [0, 0]).cross_entropy == pytest.approx(5e5, rel=1e-5)


def test_toy_task():
    one, other = toy_task("random", dim=20, train=30, test=50), toy_task("informative", dim=20, train=30, test=50)
    assert np.array_equal(one.train_inputs, other.train_inputs)
    assert np.array_equal(one.test_inputs, other.test_inputs)
    assert one.train_inputs.mean(axis=0) == pytest.approx(0.0, abs=1e-14)
    assert np.mean(one.train_inputs**2, axis=0) == pytest.approx(1.0, rel=1e-14)
    assert np.abs(one.test_inputs.mean(axis=0)).max() > 0.1  # nothing of the test set goes into the scaling
    assert np.array_equal(other.test_labels, other.test_inputs.sum(axis=1) > 0)
    assert np.array_equal(other.train_labels, other.train_inputs.sum(axis=1) > 0)
    assert not np.array_equal(one.train_inputs, toy_task("random", dim=20, train=30, test=50, seed=1).train_inputs)
    shapes = [part.shape for part in toy_task()]
    assert shapes == [(200, 200), (200,), (10_000, 200), (10_000,)]
    labels = toy_task().test_labels
    assert set(labels.tolist()) == {0.0, 1.0}
    assert abs(labels.mean() - 0.5) < 0.02  # four standard deviations


# --- what the paper says ------------------------------------------------------------------------------------------


def test_what_the_paper_says():
    """Its settings but for 2,000 test examples; two data sets. Each claim, and where it ends."""
    found = smith2018.measured(seeds=2, test=2000)
    chance, grid = math.log(2.0), smith2018.REGULARIZATION
    random, informative = (
        {name: column[found["labels"] == kind] for name, column in found.items()} for kind in smith2018.LABELS
    )
    weak = grid <= 1.0
    for one in (random, informative):
        assert np.all(one["train_accuracy"][weak] == 1.0)  # memorised, whatever they are
        assert np.all(np.diff(one["train_cross_entropy"]) > 0)
        assert one["train_cross_entropy"][0] < 1e-4
        assert one["log_evidence_ratio"][0] > 30
        assert np.abs(one["log_evidence_ratio"][-1]) < 1
        assert one["test_cross_entropy"][-1] == pytest.approx(chance, abs=0.01)
    assert np.all(np.abs(random["test_accuracy"] - 0.5) < 0.05)
    assert random["test_cross_entropy"][0] > 5.0
    assert np.all(random["test_cross_entropy"] > chance - 0.002)
    assert np.all(random["log_evidence_ratio"] > -1)
    assert np.all(informative["test_accuracy"] > 0.7)
    # both cross their lines at nearly the same lambda, and have their minima a factor of 3 apart or less
    entropy, ratio = informative["test_cross_entropy"], informative["log_evidence_ratio"]
    first = [np.argmax(entropy < chance), np.argmax(ratio < 0.0)]
    assert abs(first[0] - first[1]) <= 1
    assert 0.3 < grid[first[0]] < 1.5
    assert ratio.min() < -5
    assert entropy.min() < 0.6
    assert max(grid[entropy.argmin()] / grid[ratio.argmin()], grid[ratio.argmin()] / grid[entropy.argmin()]) < 3


def test_random_labels_can_favour_the_model_a_little():
    """Where regularization is strong, the ratio is below 0 for nearly half of them, and 1 on average as it must be."""
    ratios = []
    for seed in range(60):
        task = toy_task(dim=30, train=30, test=1, seed=seed)
        ratios.append(logistic_regression(task.train_inputs, task.train_labels, 1000.0).log_evidence_ratio)
    assert 0.25 < np.mean(np.array(ratios) < 0.0) < 0.75
    assert np.mean(np.exp(-np.array(ratios))) == pytest.approx(1.0, abs=0.01)
    assert np.abs(ratios).max() < 0.2


# --- bad input ----------------------------------------------------------------------------------------------------

X, Y = data(6, 2)
FIT = logistic_regression(X, Y, 1.0)
EYE = np.eye(2)
SAYS = [
    (lambda: laplace("a", EYE, 1.0, 5), TypeError, "cost: expected finite real numbers in (-inf, inf), got 'a' (str)"),
    (lambda: laplace(math.nan, EYE, 1.0, 5), ValueError, "cost: expected finite real numbers"),
    (lambda: laplace([1.0], EYE, 1.0, 5), ValueError, "cost: expected a single number"),
    (lambda: laplace(1.0, EYE, 0.0, 5), ValueError, "regularization: expected a number above 0, the precision of a"),
    (
        lambda: laplace(1.0, EYE, -1.0, 5),
        ValueError,
        "regularization: expected finite real numbers in [0, inf), got -1",
    ),
    (lambda: laplace(1.0, EYE, math.nan, 5), ValueError, "regularization: expected"),
    (lambda: laplace(1.0, EYE, [1.0], 5), ValueError, "regularization: expected a single number"),
    (lambda: laplace(1.0, EYE, 1.0, 0), ValueError, "examples: expected whole numbers from 1"),
    (lambda: laplace(1.0, EYE, 1.0, 2.5), ValueError, "examples: expected whole numbers from 1"),
    (lambda: laplace(1.0, EYE, 1.0, 5, 1), ValueError, "classes: expected whole numbers from 2"),
    (lambda: laplace(1.0, [[1.0, math.nan], [0.0, 1.0]], 1.0, 5), ValueError, "hessian: expected finite real numbers"),
    (lambda: laplace(1.0, None, 1.0, 5), TypeError, "hessian: expected"),
    (lambda: laplace(1.0, [], 1.0, 5), ValueError, "hessian: expected at least one number"),
    (
        lambda: laplace(1.0, np.ones((2, 3)), 1.0, 5),
        ValueError,
        "hessian: expected shape (P, P), or (P,) for eigenvalues",
    ),
    (lambda: laplace(1.0, np.ones((2, 2, 2)), 1.0, 5), ValueError, "hessian: expected at most 2 dimension"),
    (lambda: laplace(1.0, [[2.0, 0.5], [0.25, 2.0]], 1.0, 5), ValueError, "symmetric matrix, got entries 0.25 apart"),
    (lambda: laplace(1.0, np.diag([1.0, -3.0]), 1.0, 5), ValueError, "positive definite one, that of the regularised"),
    (lambda: laplace(1.0, np.diag([1.0, -3.0]), 1.0, 5), ValueError, "got smallest eigenvalue -3; regularization * I"),
    (lambda: laplace(1.0, [1.0, 0.0], 1.0, 5), ValueError, "got smallest eigenvalue 0; regularization * I"),
    (lambda: laplace(1.0, X @ X.T, 1.0, 5), ValueError, "hessian: expected a positive definite one"),  # rank 2 of 6
    (lambda: logistic_regression(X, Y, 0.0), ValueError, "regularization: expected a number above 0"),
    (lambda: logistic_regression(X, Y, -1e-9), ValueError, "regularization: expected finite real numbers in [0, inf)"),
    (lambda: logistic_regression(X, Y, "1"), TypeError, "regularization: expected"),
    (lambda: logistic_regression(X, Y, 1.0, bias=1), TypeError, "bias: expected True or False, got 1 (int)"),
    (lambda: logistic_regression(X[0], Y, 1.0), ValueError, "inputs: expected shape (examples, dim), got shape (2,)"),
    (lambda: logistic_regression("ab", Y, 1.0), TypeError, "inputs: expected"),
    (lambda: logistic_regression(X * math.nan, Y, 1.0), ValueError, "inputs: expected finite real numbers"),
    (lambda: logistic_regression(X * 1e101, Y, 1.0), ValueError, "inputs: expected finite real numbers in (-1e+100"),
    (
        lambda: logistic_regression(X, Y[:5], 1.0),
        ValueError,
        "labels: expected one for each of the 6 inputs, got shape",
    ),
    (lambda: logistic_regression(X, 2 * Y - 1, 1.0), ValueError, "labels: expected 0 or 1, got -1 at index ("),
    (lambda: logistic_regression(X, ["a"] * 6, 1.0), TypeError, "labels: expected"),
    (lambda: logistic_regression(X, Y[:, None], 1.0), ValueError, "labels: expected at most 1 dimension"),
    (lambda: FIT.predict(np.ones((3, 5))), ValueError, "inputs: expected shape (examples, 2), got shape (3, 5)"),
    (lambda: FIT.predict([1.0, 2.0]), ValueError, "inputs: expected shape (examples, 2), got shape (2,)"),
    (lambda: FIT.evaluate(X, Y[:3]), ValueError, "labels: expected one for each of the 6 inputs, got shape (3,)"),
    (lambda: toy_task("real"), ValueError, 'labels: expected "random" or "informative", got \'real\' (str)'),
    (lambda: toy_task(dim=0), ValueError, "dim: expected whole numbers from 1"),
    (lambda: toy_task(train=1), ValueError, "train: expected whole numbers from 2"),
    (lambda: toy_task(test=0.5), ValueError, "test: expected whole numbers from 1"),
    (lambda: toy_task(seed=-1), ValueError, "seed: expected whole numbers from 0"),
]


@pytest.mark.parametrize(("call", "kind", "words"), SAYS, ids=[words for _, _, words in SAYS])
def test_what_was_expected_and_what_came(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)


@pytest.mark.parametrize("regularization", [1e-100, 1e300])
def test_scales_beyond_float64_are_an_error_not_a_wrong_answer(regularization):
    x, y = data(20, 30)
    with pytest.raises(RuntimeError, match="too far apart in scale"):
        logistic_regression(x, y, regularization)


def test_no_step_is_taken_for_granted(monkeypatch):
    """Too few steps are an error, however near they came."""
    errors = 0
    for steps in range(1, 12):
        monkeypatch.setattr(evidence, "NEWTON_STEPS", steps)
        try:
            fit = logistic_regression(X, Y, 1.0)
        except RuntimeError:
            errors += 1
        else:
            assert (fit.cost, fit.gradient_norm) == (FIT.cost, FIT.gradient_norm)
    assert 2 <= errors < 11


@pytest.mark.parametrize("seed", range(10))
def test_a_singular_hessian_is_seen_through_rounding(seed):
    """A zero comes out as 1e-16 of either sign."""
    x = np.random.default_rng(seed).standard_normal((6, 7))
    with pytest.raises(ValueError, match="expected a positive definite one"):
        laplace(1.0, x.T @ x, 1e-20, 5)
    assert math.isfinite(laplace(1.0, x.T @ x + 1e-6 * np.eye(7), 1e-6, 5))
