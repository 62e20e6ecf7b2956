"""Bayesian evidence at a minimum, and logistic regression on the toy task to see it at work: smith2018, sections 2, 3.

A model with a Gaussian prior of precision lambda on every parameter is held against the null model, which gives each
of the n classes probability 1 / n. All costs are in nats and summed over the N training examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks
from ._checks import FloatArray

__all__ = ["LogisticRegression", "Score", "ToyTask", "laplace", "logistic_regression", "toy_task"]

NEWTON_STEPS = 1000  # twenty are many
ASYMMETRY = 1e-8  # of a Hessian, relative to its largest entry, that passes for rounding


def laplace(cost: float, hessian: ArrayLike, regularization: float, examples: int, classes: int = 2) -> float:
    """Log evidence ratio in favour of the null model, in the Gaussian approximation: smith2018 eq. 11 and 12.

        E = C(w0) + 1/2 sum over lambda_i >= lambda of ln(lambda_i / lambda) - N ln n

    Below 0 the data speak for the model. Exact where the cost is quadratic.

    Args:
        cost: C(w0) = -ln likelihood + lambda |w0|^2 / 2 at its minimum, in nats, summed over the examples.
        hessian: of that cost at w0, with the prior's part lambda I: (P, P), or its eigenvalues lambda_i, (P,).
        regularization: lambda > 0, the precision of the prior of every one of the P parameters.
        examples: N, labels that the cost sums over.
        classes: n, that a label can take.

    Eigenvalues below lambda do not count, as the paper proposes for points that are not quite minima; those of a
    convex model never are. To leave out negative ones too, pass the eigenvalues that shall count.

    Raises:
        TypeError, ValueError: for wrong arguments; for lambda = 0, a flat prior, which spreads the evidence over
            infinitely many values: E grows without bound as lambda falls to 0; for a Hessian that is not symmetric to
            1e-8 of its largest entry, or not positive definite, where the Gaussian has no integral.

    >>> round(laplace(100.0, [[20.0, 0.0], [0.0, 5.0]], regularization=5.0, examples=200), 3)  # + ln 2 - 200 ln 2
    -37.936
    """
    least = _checks.real(cost, "cost")
    prior = _precision(regularization)
    number = _checks.whole(examples, "examples", low=1)
    kinds = _checks.whole(classes, "classes", low=2)
    eigenvalues = _eigenvalues(np.atleast_1d(_checks.reals(hessian, "hessian", ndim=2)))
    counted = eigenvalues[eigenvalues >= prior]
    return least + 0.5 * float(np.sum(np.log(counted) - np.log(prior))) - number * math.log(kinds)


class Score(NamedTuple):
    """How a fit does on labelled inputs: the share of labels it gets right, and the mean cross-entropy in nats."""

    accuracy: float
    cross_entropy: float


@dataclass(frozen=True, eq=False)
class LogisticRegression:
    """A fit by :func:`logistic_regression`: P(y = 1 | x) = sigmoid(weights . x + bias).

    weights: (dim,). bias: 0 where there is none. regularization: lambda.
    cost: C = H + lambda |w|^2 / 2, with H the cross-entropy summed over the examples; in nats.
    cross_entropy: H / N. gradient_norm: of C over all parameters; C is within gradient_norm^2 / (2 lambda) of its
    minimum. hessian: of C, (P, P), the bias last. log_evidence_ratio: in favour of the null model, by :func:`laplace`.
    """

    weights: FloatArray
    bias: float
    regularization: float
    cost: float
    cross_entropy: float
    gradient_norm: float
    hessian: FloatArray
    log_evidence_ratio: float

    def predict(self, inputs: ArrayLike) -> FloatArray:
        """P(y = 1 | x) of each of ``inputs`` (M, dim): (M,)."""
        from scipy.special import expit

        return expit(self._logits(inputs))

    def evaluate(self, inputs: ArrayLike, labels: ArrayLike) -> Score:
        """Accuracy and mean cross-entropy on ``inputs`` (M, dim) and ``labels`` (M,); a tie is called 0."""
        logits = self._logits(inputs)
        target = _labels(labels, logits.size)
        entropy = np.logaddexp(0.0, np.where(target, -logits, logits))
        return Score(float(np.mean((logits > 0.0) == target)), float(entropy.mean()))

    def _logits(self, inputs: ArrayLike) -> FloatArray:
        return _inputs(inputs, self.weights.size) @ self.weights + self.bias


def logistic_regression(
    inputs: ArrayLike, labels: ArrayLike, regularization: float, bias: bool = True
) -> LogisticRegression:
    """The minimum of the L2-regularised sigmoid cross-entropy, C = sum_i ln(1 + exp(-s_i z_i)) + lambda |w|^2 / 2.

    z_i = w . x_i + b are the logits, s_i = 2 y_i - 1. The bias b is one of the P = dim + 1 parameters in |w|^2: eq. 11
    has a prior on each of them, and with a flat one on the bias there would be no evidence to speak of.

    Newton's method from w = 0, each step cut to the minimum along it, so that C always falls, for separable labels and
    tiny lambda too. It ends where rounding ends its quadratic convergence.

    Args:
        inputs: (N, dim), finite, below 1e100.
        labels: (N,) of 0 and 1, or an array of booleans.
        regularization: lambda > 0; without it separable labels have no minimum.
        bias: whether there is one.

    Raises:
        TypeError, ValueError: for wrong arguments.
        RuntimeError: where the gradient stays above 1e-6 of its terms: scales of inputs and lambda too far apart, as
            1e60 and 1.

    >>> task = toy_task("informative", test=1000)
    >>> fit = logistic_regression(task.train_inputs, task.train_labels, regularization=10.0)
    >>> fit.gradient_norm < 1e-10, fit.evaluate(task.train_inputs, task.train_labels).accuracy
    (True, 1.0)
    >>> fit.log_evidence_ratio < 0.0  # better than the null model
    True
    """
    from scipy.linalg import svdvals

    x = _inputs(inputs)
    y = _labels(labels, len(x))
    prior = _precision(regularization)
    _checks.instance(bias, bool, "bias", "True or False")
    features = np.column_stack([x, np.ones(len(x))]) if bias else x
    w, margins, gradient, root = _newton(np.where(y, 1.0, -1.0)[:, None] * features, prior)
    entropy = float(np.sum(np.logaddexp(0.0, -margins)))
    cost = entropy + 0.5 * prior * float(w @ w)
    eigenvalues = np.full(w.size, prior)  # of root' root + lambda I, each to all its digits
    eigenvalues[: min(root.shape)] += svdvals(root) ** 2
    return LogisticRegression(
        weights=w[: x.shape[1]],
        bias=float(w[-1]) if bias else 0.0,
        regularization=prior,
        cost=cost,
        cross_entropy=entropy / len(x),
        gradient_norm=float(np.linalg.norm(gradient)),
        hessian=root.T @ root + prior * np.eye(w.size),
        log_evidence_ratio=laplace(cost, eigenvalues, prior, len(x)),
    )


def _newton(signed: FloatArray, prior: float) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Where sum_i ln(1 + exp(-signed_i . w)) + lambda |w|^2 / 2 is least: w, margins signed w, gradient, and the
    root of the cross-entropy's Hessian: root' root.
    """
    from scipy.linalg import cho_solve
    from scipy.special import expit

    w, before = np.zeros(signed.shape[1]), math.inf
    ridge = math.sqrt(prior) * np.eye(w.size)
    for _ in range(NEWTON_STEPS):
        margins = signed @ w
        wrong = expit(-margins)
        gradient = prior * w - wrong @ signed
        root = np.sqrt(wrong * expit(margins))[:, None] * signed
        with np.errstate(all="ignore"):  # what overflows ends as a NaN that the check below finds
            # the Hessian is R'R; R from its root keeps digits that the product loses
            triangle = np.linalg.qr(np.vstack([root, ridge]), mode="r")
            step = -cho_solve((triangle, False), gradient, check_finite=False)
            along, descent = signed @ step, -float(gradient @ step)
            moved = float(np.max(np.abs(along)))
            ended = not min(moved, descent) > 0.0 or (moved < 0.1 and descent >= before)
            if ended:
                break
            w = w + _share(margins, along, prior * (w @ step), prior * (step @ step)) * step
        before = descent
    if not ended or not np.linalg.norm(gradient) <= 1e-6 * np.linalg.norm(prior * np.abs(w) + wrong @ np.abs(signed)):
        raise RuntimeError(
            f"logistic_regression: expected a gradient of 0 but for rounding, got norm {np.linalg.norm(gradient):.3g}; "
            "regularization and inputs are too far apart in scale"
        )
    return w, margins, gradient, root


def _share(margins: FloatArray, along: FloatArray, pull: float, stiffness: float) -> float:
    """How far to go along a Newton step: until 0.1% of its slope is left, and never beyond the minimum.

    Each term's third derivative is at most m = max |along| times its second. So where the slope is -s and the curvature
    c, it stays negative for another ln(1 + m s / c) / m. The prior has the part pull = lambda w . step, stiffness =
    lambda |step|^2.
    """
    from scipy.special import expit

    moved, share, first = np.max(np.abs(along)), 0.0, 0.0
    for _ in range(30):
        wrong = expit(-margins - share * along)
        slope = wrong @ along - pull - share * stiffness
        first = first or slope
        if not slope > 1e-3 * first:
            break
        share += float(np.log1p(moved * slope / ((wrong * (1.0 - wrong)) @ along**2 + stiffness)) / moved)
    return share


class ToyTask(NamedTuple):
    """Labelled inputs: (train, dim) and (train,), (test, dim) and (test,); labels are 0 and 1."""

    train_inputs: FloatArray
    train_labels: FloatArray
    test_inputs: FloatArray
    test_labels: FloatArray


def toy_task(
    labels: Literal["random", "informative"] = "random",
    dim: int = 200,
    train: int = 200,
    test: int = 10_000,
    seed: int = 0,
) -> ToyTask:
    """The data of smith2018, section 3: Gaussian inputs, with labels that are coin flips or y = 1 if sum_i x_i > 0.

    Each component has mean 0 and mean square 1 over the training set exactly; the test inputs are shifted and scaled
    by the same numbers, so that nothing of the test set is known in training. Equal seeds have equal inputs for both
    kinds of labels.

    >>> task = toy_task("informative", dim=3, train=5, test=7)
    >>> task.train_inputs.shape, task.test_labels.shape
    ((5, 3), (7,))
    """
    if not isinstance(labels, str) or labels not in ("random", "informative"):
        raise ValueError(f'labels: expected "random" or "informative", got {_checks.describe(labels)}')
    size = _checks.whole(dim, "dim", low=1)
    here, there = _checks.whole(train, "train", low=2), _checks.whole(test, "test", low=1)
    number = _checks.whole(seed, "seed")
    random, coin = np.random.default_rng(number), np.random.default_rng([number, 1])
    inputs = random.standard_normal((here + there, size))
    inputs -= inputs[:here].mean(axis=0)
    inputs /= np.sqrt(np.mean(inputs[:here] ** 2, axis=0))
    coins = coin.integers(0, 2, here + there)
    y = (coins if labels == "random" else inputs.sum(axis=1) > 0.0).astype(np.float64)
    return ToyTask(inputs[:here], y[:here], inputs[here:], y[here:])


def _precision(regularization: float) -> float:
    value = _checks.real(regularization, "regularization", low=0.0, closed="low")
    if value == 0.0:
        raise ValueError(
            "regularization: expected a number above 0, the precision of a prior (without one there is no evidence, "
            "and separable labels have no best weights), got 0"
        )
    return value


def _eigenvalues(hessian: FloatArray) -> FloatArray:
    """Of a (P, P) matrix, or as given (P,); all positive, or a ValueError."""
    eigenvalues, floor = hessian, 0.0
    if hessian.ndim == 2:
        if hessian.shape[0] != hessian.shape[1]:
            raise ValueError(f"hessian: expected shape (P, P), or (P,) for eigenvalues, got shape {hessian.shape}")
        gap, largest = float(np.max(np.abs(hessian - hessian.T))), float(np.max(np.abs(hessian)))
        if gap > ASYMMETRY * largest:
            raise ValueError(f"hessian: expected a symmetric matrix, got entries {gap:.6g} apart from their mirrored")
        floor = len(hessian) * np.finfo(float).eps * largest  # the digits of an eigenvalue end here
        eigenvalues = np.linalg.eigvalsh(0.5 * hessian + 0.5 * hessian.T).astype(np.float64)
    smallest = float(eigenvalues.min())
    if smallest <= floor:
        raise ValueError(
            "hessian: expected a positive definite one, that of the regularised cost at a minimum, got smallest "
            f"eigenvalue {smallest:.6g}; regularization * I, the prior's part, makes that of a convex cost definite"
        )
    return eigenvalues


def _inputs(inputs: ArrayLike, dim: int | None = None) -> FloatArray:
    array = _checks.reals(inputs, "inputs", low=-1e100, high=1e100, ndim=2)
    if array.ndim != 2 or (dim is not None and array.shape[1] != dim):
        raise ValueError(f"inputs: expected shape (examples, {dim or 'dim'}), got shape {array.shape}")
    return array


def _labels(labels: ArrayLike, examples: int) -> NDArray[np.bool_]:
    if isinstance(labels, np.ndarray) and labels.dtype == bool:
        labels = labels.astype(np.float64)
    numbers = _checks.reals(labels, "labels", ndim=1)
    if numbers.shape != (examples,):
        raise ValueError(f"labels: expected one for each of the {examples} inputs, got shape {numbers.shape}")
    bad = np.flatnonzero((numbers != 0.0) & (numbers != 1.0))
    if bad.size:
        raise ValueError(f"labels: expected 0 or 1, got {numbers[bad[0]]:.16g} at index ({bad[0]},)")
    return numbers == 1.0
