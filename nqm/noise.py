"""Gradient noise: how large it is, what shape it has, and what it does.

Batches: :func:`without_replacement` and :func:`enhanced` give the batch size that stands for another way to sample, to
use wherever a batch size is asked for. Shape: :func:`excess` and :func:`injected` are for matrices
(:meth:`nqm.NoisyQuadratic.from_matrices`). Noise scales: :func:`scale` is Smith & Le's g,
:func:`simple_noise_scale` and :func:`hessian_noise_scale` those that predict critical batch sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from . import _checks
from ._checks import FloatArray
from ._risk import check_one_batch_size, check_problem, require_plain, take_out_schedule
from .dynamics.select import dynamics_of
from .dynamics.words import word_until
from .optimizers import Optimizer
from .problems.noise_models import noise_of
from .problems.quadratic import NoisyQuadratic
from .problems.refinement import refine_until_agree
from .schedules import Schedule

__all__ = [
    "STRUCTURES",
    "enhanced",
    "enhancement",
    "excess",
    "hessian_noise_scale",
    "injected",
    "scale",
    "scaled_batch_size",
    "simple_noise_scale",
    "without_replacement",
]

STRUCTURES = ("none", "full", "diagonal", "trace", "blocks")

# --- batches ------------------------------------------------------------------------------------------------------


def without_replacement(batch_size: ArrayLike | Schedule, dataset_size: ArrayLike) -> Any:
    """The batch size with replacement that is as noisy as B examples drawn without, from a data set of N.

        C (N - B) / (B (N - 1)) = C / B',   B' = B (N - 1) / (N - B)

    (mori2021 eq. 4; wen2020 eq. 3 in proportion), exact for the average of any B of N gradients with covariance C,
    taken over the data set. B' = B at B = 1, and inf at B = N: gradient descent without noise. Arrays broadcast; a
    :class:`nqm.Schedule` of batch sizes below N gives one.

    Raises:
        TypeError, ValueError: for what is not 0 < B <= N, N > 1.

    >>> without_replacement([1, 50, 99, 100], 100)
    array([1.000e+00, 9.900e+01, 9.801e+03,       inf])
    """
    n = _checks.reals(dataset_size, "dataset_size", low=1.0)

    def equivalent(b: FloatArray) -> FloatArray:
        if np.any(b > n):
            raise ValueError(f"batch_size: expected at most dataset_size, got batch size {b.max():g} of {n.min():g}")
        with np.errstate(divide="ignore", over="ignore"):
            return b * ((n - 1.0) / (n - b))

    return _mapped(equivalent, batch_size, dataset_size=n)


def enhanced(batch_size: ArrayLike | Schedule, a: ArrayLike) -> Any:
    """Effective batch size of the two-minibatch gradient a g_B + (1 - a) g_B' of noise enhancement: mori2021 eq. 11.

        B_eff = B / (a^2 + (1 - a)^2),   a >= 1

    On the model the equivalence is exact: two independent gradients of covariance C / B each have
    (a^2 + (1 - a)^2) C / B together (eq. 10, whose first line has a misprint: the second weight is (1 - a)^2), with
    Gaussian features too. It is about second moments alone, which is all the risk depends on; higher moments of real
    noise differ. A step takes 2 B examples.
    Arrays broadcast; a :class:`nqm.Schedule` of batch sizes gives one.

    >>> enhanced(5000, [1.0, 2.0, 3.0])
    array([5000.        , 1000.        ,  384.61538462])
    """
    strength = _checks.reals(a, "a", low=1.0, closed="low")
    with np.errstate(over="ignore"):
        factor = 1.0 / (strength**2 + (1.0 - strength) ** 2)
    return _mapped(lambda b: b * factor, batch_size, a=strength)


def enhancement(batch_size: ArrayLike, effective: ArrayLike) -> float | FloatArray:
    """The a >= 1 with which batches of B are as noisy as batches of ``effective`` <= B: the inverse of
    :func:`enhanced`, a = (1 + sqrt(2 B / B_eff - 1)) / 2.

    >>> enhancement(5000, [5000, 1000])
    array([1., 2.])
    """
    b = _checks.reals(batch_size, "batch_size", low=0.0)
    wanted = _checks.reals(effective, "effective", low=0.0)
    _checks.broadcast(batch_size=b.shape, effective=wanted.shape)
    if np.any(wanted > b):
        raise ValueError(
            f"effective: expected at most batch_size, since enhancement only adds noise, got {wanted.max():g} for "
            f"batch size {b.min():g}"
        )
    with np.errstate(over="ignore"):
        return _plain(0.5 * (1.0 + np.sqrt(2.0 * (b / wanted) - 1.0)))


# --- shape --------------------------------------------------------------------------------------------------------


def excess(hessian: ArrayLike, factor: ArrayLike) -> float:
    """Tr(C^T A C): what one step with noise C xi adds to the risk, in units of lr^2 / 2 (wen2020 Theorem 4.1).

    How much of it is left in the long run is another matter: the steady state of SGD at a small constant lr is
    lr Tr(C^T C) / 4, whatever A, and Tr(C^T A C) only comes next, as lr^2 / 8 (figure ``wen2020-table1``).

    hessian: A, (d, d), symmetric positive definite. factor: C, (d, d) or any (d, r). For C = A^1/2 it is ||A||_F^2, for
    C = diag(A)^1/2 it is ||diag A||_F^2, never more; both have the same Tr(C^T C) = Tr A.

    >>> A = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> round(excess(A, np.linalg.cholesky(A)), 12), round(excess(A, np.diag(np.sqrt(np.diag(A)))), 12)
    (10.0, 8.0)
    """
    a = _checks.symmetric(hessian, "hessian")
    _checks.definite(np.linalg.eigvalsh(a), "hessian")
    c = _checks.reals(factor, "factor")
    if c.ndim != 2 or len(c) != len(a):
        raise ValueError(f"factor: expected a ({len(a)}, r) matrix, got shape {c.shape}")
    return float(np.sum(c * (a @ c)))


def injected(
    fisher: ArrayLike,
    large: float,
    small: float,
    structure: Literal["none", "full", "diagonal", "trace", "blocks"] = "full",
    blocks: Sequence[int] | None = None,
) -> FloatArray:
    """The C of wen2020 eq. 2 whose noise C xi makes batches of M_L as noisy as batches of M_S, in one of five shapes.

        C = sqrt((M_L - M_S) / (M_L M_S)) root,   root root^T = F                   "full"      (eq. 5)
                                                                diag(F)             "diagonal"  (eq. 6)
                                                                Tr(F) / d I         "trace"     (section 5.4)
                                                                diagonal blocks     "blocks"
                                                                0                   "none"

    All but "none" have the same variance Tr(C C^T). Blocks are those of F in full: K-FAC's (appendix A.8) are Kronecker
    products (:class:`nqm.validation.Injected`). With "full", large batches have noise of covariance
    F / M_L + C C^T = F / M_S: the small batch's, so that its risk is had exactly.

    Args:
        fisher: F, (d, d), symmetric positive semidefinite: covariance of one example's gradient.
        large, small: M_L >= M_S > 0, examples.
        structure: which.
        blocks: sizes of the diagonal blocks, which add up to d; with "blocks" only.

    Returns C, (d, d), symmetric. Raises TypeError, ValueError for wrong arguments, M_S > M_L among them.

    >>> F = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> C = injected(F, large=4096, small=128)
    >>> np.allclose(F / 4096 + C @ C.T, F / 128)
    True
    """
    f = _checks.symmetric(fisher, "fisher")
    _checks.definite(np.linalg.eigvalsh(f), "fisher", semi=True)
    big, little = _checks.real(large, "large", low=0.0), _checks.real(small, "small", low=0.0)
    if little > big:
        raise ValueError(f"small: expected at most large, since noise is added, got small {little:g}, large {big:g}")
    if not isinstance(structure, str) or structure not in STRUCTURES:
        raise ValueError(f"structure: expected one of {', '.join(STRUCTURES)}, got {_checks.describe(structure)}")
    if (blocks is not None) != (structure == "blocks"):
        raise ValueError(f'blocks: expected sizes with structure="blocks" and only then, got {blocks}')
    if structure == "none":
        root = np.zeros_like(f)
    elif structure == "full":
        root = _root(f)
    elif structure == "diagonal":
        root = np.diag(np.sqrt(np.diag(f)))
    elif structure == "trace":
        root = np.sqrt(np.trace(f) / len(f)) * np.eye(len(f))
    else:
        sizes = np.atleast_1d(_checks.wholes(blocks, "blocks", low=1))
        if sizes.ndim > 1 or sizes.sum() != len(f):
            raise ValueError(f"blocks: expected sizes that add up to {len(f)}, got {_checks.describe(blocks)}")
        root, ends = np.zeros_like(f), np.cumsum(sizes)
        for part in (slice(end - size, end) for size, end in zip(sizes, ends, strict=True)):
            root[part, part] = _root(f[part, part])
    return np.sqrt((big - little) / big / little) * root


# --- noise scales ---------------------------------------------------------------------------------------------------


def scale(
    lr: ArrayLike, batch_size: ArrayLike, dataset_size: ArrayLike, momentum: ArrayLike = 0.0
) -> float | FloatArray:
    """Smith & Le's noise scale of the stochastic differential equation behind SGD (smith2018 eq. 15, 26):

        g = lr (N / B - 1) / (1 - m)

    lr in units of 1 / curvature of the mean loss, B <= N examples. As lr -> 0, settings of equal g have equal steady
    states, lr Tr(C) / (4 B (1 - m)) = g Tr(C) / (4 N) for N >> B; at finite lr h they drift apart, each
    coordinate by 1 / (1 - lr h / (2 (1 + m))). :func:`scaled_batch_size` is the inverse.

    >>> round(scale(0.1, batch_size=100, dataset_size=50_000, momentum=0.9), 9)
    499.0
    """
    given = _checks.reals(batch_size, "batch_size", low=0.0)
    rate, b, n, m = _scale_arguments(lr, dataset_size, momentum, batch_size=given)
    if np.any(b > n):
        raise ValueError(f"batch_size: expected at most dataset_size, got batch size {b.max():g} of {n.min():g}")
    with np.errstate(over="ignore"):
        return _plain(rate * ((n - b) / b) / (1.0 - m))


def scaled_batch_size(
    scale: ArrayLike, lr: ArrayLike, dataset_size: ArrayLike, momentum: ArrayLike = 0.0
) -> float | FloatArray:
    """The batch size at which the noise scale is g: B = N / (1 + g (1 - m) / lr), of smith2018 eq. 26 with
    the - 1 of eq. 15.

    So B grows as lr N and as 1 / (1 - m) while B << N: the scaling rules of smith2018, section 5.

    >>> scaled_batch_size(499.0, lr=[0.1, 0.2], dataset_size=50_000, momentum=0.9).round(1)
    array([100. , 199.6])
    """
    given = _checks.reals(scale, "scale", low=0.0, closed="low")
    rate, g, n, m = _scale_arguments(lr, dataset_size, momentum, scale=given)
    with np.errstate(over="ignore"):
        return _plain(n / (1.0 + g * (1.0 - m) / rate))


def simple_noise_scale(
    problem: NoisyQuadratic,
    power: float = 0.0,
    optimizer: Optimizer | None = None,
    batch_size: float | Schedule | None = None,
    steps: int = 0,
) -> float:
    """tr(C) / E|G|^2, in examples: the batch size whose noise is as large as the gradient (McCandlish et al., 2018).

    ``power`` p measures both in the preconditioner's metric, tr(P^-1 C) / E[G^T P^-1 G] with P = H^p. At the start, or
    after ``steps`` steps of ``optimizer`` at ``batch_size``, where the gradient G = H theta is that at the
    iterate whose risk is reported. A ratio of expectations over starts and noise. inf at the optimum.

    It is what people measure for a critical batch size; how far that can be trusted: figure ``nqm-scales``.

    Raises:
        TypeError, ValueError: for wrong arguments; for steps > 0 on Gaussian features.

    >>> simple_noise_scale(NoisyQuadratic([1.0, 0.1]))
    1.0891089108910892
    """
    p = _checks.real(power, "power", low=0.0, high=1.0, closed="both")
    return _noise_scale(problem, -p, optimizer, batch_size, steps)


def hessian_noise_scale(
    problem: NoisyQuadratic,
    power: float = 0.0,
    optimizer: Optimizer | None = None,
    batch_size: float | Schedule | None = None,
    steps: int = 0,
) -> float:
    """tr(H C) / E[G^T H G], in examples: the batch size at which the best single step gains half of what it would
    without noise (McCandlish et al., 2018, eq. 2.8).

    With ``power`` p, that of a step along P^-1 G: tr(H P^-1 C P^-1) / E[G^T P^-1 H P^-1 G], P = H^p. Else as
    :func:`simple_noise_scale`.

    >>> round(hessian_noise_scale(NoisyQuadratic([1.0, 0.1])), 6)
    1.008991
    """
    p = _checks.real(power, "power", low=0.0, high=1.0, closed="both")
    return _noise_scale(problem, 1.0 - 2.0 * p, optimizer, batch_size, steps)


def _noise_scale(problem: NoisyQuadratic, exponent: float, optimizer: Any, batch_size: Any, steps: Any) -> float:
    """sum mult h^w c / sum mult h^(w + 2) E[theta^2] for w = exponent.

    E[theta^2] after some steps comes from the risk: multiplicities times h^(w + 1) make it half the denominator.
    """
    _checks.instance(problem, NoisyQuadratic, "problem", "a nqm.NoisyQuadratic")
    times = np.array([_checks.whole(steps, "steps")])
    if times[0] > 0:
        if optimizer is None or batch_size is None:
            raise ValueError("steps: expected optimizer and batch_size with steps > 0")
        if noise_of(problem).grows_with_loss:
            raise ValueError("steps: expected 0 on Gaussian features, whose coordinates do not evolve on their own")
        check_problem(problem, optimizer)
        require_plain(optimizer)
        size, batch_schedule = check_one_batch_size(batch_size)
        schedule, values = take_out_schedule(optimizer)
        word = word_until(schedule, batch_schedule, times)

    def evaluate(nodes: NoisyQuadratic, rows: Any) -> FloatArray:
        h, m = nodes.curvature, nodes.multiplicity
        weight = m * h**exponent
        signal = np.sum(weight * h**2 * nodes.init)
        noise = noise_of(nodes).weighted_variance(weight, nodes, signal)
        if times[0] > 0:
            weighted = nodes._replaced(nodes._nodes._replace(multiplicity=weight * h))
            signal = 2.0 * dynamics_of(weighted, optimizer).risk_along(values, size, 1, word, 1)[0, 0]
        return np.array([noise, signal])[rows]

    with np.errstate(divide="ignore", invalid="ignore"):
        noise, signal = refine_until_agree(problem, evaluate)
        return float(noise / signal) if signal > 0.0 else float("inf")


def _scale_arguments(lr: Any, dataset_size: Any, momentum: Any, **checked_one: FloatArray) -> list[FloatArray]:
    """lr, the named one, dataset_size, momentum: checked, and of shapes that broadcast."""
    checked = {
        "lr": _checks.reals(lr, "lr", low=0.0),
        **checked_one,
        "dataset_size": _checks.reals(dataset_size, "dataset_size", low=0.0),
        "momentum": _checks.reals(momentum, "momentum", low=0.0, high=1.0, closed="low"),
    }
    _checks.broadcast(**{name: value.shape for name, value in checked.items()})
    return list(checked.values())


def _mapped(function: Callable[[FloatArray], FloatArray], batch_size: Any, **other: FloatArray) -> Any:
    """``function`` of batch sizes given as numbers or as a schedule; of numbers that broadcast with the ``other``."""
    if isinstance(batch_size, Schedule):
        for name, value in other.items():
            if value.ndim > 0:
                raise ValueError(f"{name}: expected a single number with a schedule, got shape {value.shape}")
        if not np.all(batch_size.values > 0.0):
            raise ValueError(f"batch_size: expected a schedule of positive numbers, got {batch_size}")
        values = function(batch_size.values)
        if np.any(np.isinf(values)):
            raise ValueError(
                f"batch_size: expected a schedule below the whole data set, whose gradient has no noise (a batch size "
                f"of inf, which a schedule cannot hold), got {batch_size}"
            )
        return Schedule(values, batch_size.lengths, batch_size.beyond)
    given = _checks.reals(batch_size, "batch_size", low=0.0, high=np.inf, closed="high")
    _checks.broadcast(batch_size=given.shape, **{name: value.shape for name, value in other.items()})
    return _plain(function(given))


def _plain(value: Any) -> float | FloatArray:
    found = np.asarray(value)
    return float(found) if found.ndim == 0 else found


def _root(matrix: FloatArray) -> FloatArray:
    """The symmetric root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    half = vectors * np.maximum(values, 0.0) ** 0.25
    return half @ half.T
