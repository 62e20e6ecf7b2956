"""Monte Carlo of the very process whose expectation :func:`nqm.risk` gives: to check it, and to see the spread."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _checks, backends
from ._checks import FloatArray, IntArray
from ._risk import check_one_batch_size, check_problem, require_plain
from .backends.types import Word
from .dynamics.words import word_until
from .optimizers import Optimizer, step
from .problems.noise_models import NUMBERS_AT_ONCE, AdditiveNoise, noise_of
from .problems.quadratic import NoisyQuadratic
from .problems.spectra import EXPLICIT_LIMIT
from .schedules import Schedule

__all__ = ["Simulation", "simulate"]

NUMBERS_ON_DEVICE = 2**26
NUMBERS_IN_CACHE = 2**15
"""Numbers of a state that are stepped together: what the processor's cache holds."""


@dataclass(frozen=True, eq=False)
class Simulation:
    """Losses of independent runs: ``losses`` (runs, times) at ``steps`` (times,)."""

    steps: IntArray
    losses: FloatArray

    @property
    def mean(self) -> FloatArray:
        """Average loss at each time, (times,)."""
        return self.losses.mean(axis=0)

    @property
    def standard_error(self) -> FloatArray:
        """Standard error of the average, (times,); needs two runs."""
        return self.losses.std(axis=0, ddof=1) / np.sqrt(len(self.losses))

    def __repr__(self) -> str:
        return f"Simulation(runs={len(self.losses)}, times={self.steps.size}, last mean {self.mean[-1]:.6g})"


def simulate(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    batch_size: float | Schedule,
    steps: ArrayLike,
    runs: int = 1000,
    seed: int = 0,
) -> Simulation:
    """Losses 1/2 sum h theta^2 of ``runs`` simulated trainings with Gaussian start N(0, init) and Gaussian noise.

    With noise_model="gaussian-features" it is linear regression itself: each step draws batch_size examples x ~ N(0, H)
    with labels x . theta_* + N(0, label_noise) and averages their gradients.

    Args:
        problem: with whole multiplicities; power laws are simulated eigenvalue by eigenvalue.
        optimizer: with plain numbers as hyperparameters; lr may be a :class:`nqm.Schedule`.
        batch_size: examples per step, > 0, or a :class:`nqm.Schedule` of them; whole (or inf) with Gaussian features.
        steps: number of steps, or increasing whole numbers at which to record the loss.
        runs: independent repetitions.
        seed: of NumPy's generator, or CuPy's on a GPU (:func:`nqm.set_backend`), which draws other numbers; the same
            seed gives the same bits.

    Takes dim * runs * steps normal numbers, some 10 to 20 ns each with what is done with them, the more the more
    numbers the optimizer keeps; batch_size times as many with Gaussian features. Memory: some 2^21 numbers at a time
    for each that the optimizer keeps, or those of one run where they are more.

    >>> import nqm
    >>> problem = nqm.NoisyQuadratic([1.0, 0.1])
    >>> trials = simulate(problem, nqm.SGD(0.5), batch_size=4, steps=20, runs=4000)
    >>> abs(trials.mean[0] - nqm.risk(problem, nqm.SGD(0.5), 4, 20)) < 4 * trials.standard_error[0]
    np.True_
    """
    check_problem(problem, optimizer)
    require_plain(optimizer)
    size, batch_schedule = check_one_batch_size(batch_size)
    times = np.atleast_1d(_checks.step_numbers(steps))
    if times.ndim > 1 or np.any(np.diff(times) <= 0):
        raise ValueError(f"steps: expected a whole number or increasing whole numbers, got {_checks.describe(steps)}")
    count = _checks.whole(runs, "runs", low=1)
    _checks.room_for((count, times.size))
    chance = _checks.whole(seed, "seed")
    explicit = problem._explicit()
    if np.any(explicit.multiplicity != np.floor(explicit.multiplicity)):
        raise ValueError("problem: expected whole multiplicities to simulate, got fractional ones")
    if explicit.dim > EXPLICIT_LIMIT:
        raise ValueError(f"problem: expected at most {EXPLICIT_LIMIT} coordinates to simulate, got {explicit.dim:.4g}")
    copies = explicit.multiplicity.astype(np.int64)
    h, c, init = (np.repeat(a, copies) for a in (explicit.curvature, explicit.noise, explicit.init))
    word = word_until(optimizer.schedule or Schedule(optimizer.hyperparameters["lr"], 1), batch_schedule, times)
    word = word._replace(inverse_batch_size=word.inverse_batch_size / size)
    noise = noise_of(problem)
    largest = noise.examples_drawn(word.inverse_batch_size, batch_size)
    numbers = NUMBERS_ON_DEVICE if backends.on_device() else NUMBERS_AT_ONCE
    at_once = max(1, int(numbers // (h.size * largest)))
    losses = np.empty((count, times.size))
    with backends.array_module() as xp:
        generator = xp.random.default_rng(chance)
        h, c, init = (xp.asarray(a) for a in (h, c, init))
        for first in range(0, count, at_once):
            some = losses[first : first + at_once]
            some[...] = backends.to_numpy(_losses(xp, optimizer, h, c, noise, init, word, some.shape, generator))
    return Simulation(times, losses)


def _losses(
    xp: Any,
    optimizer: Optimizer,
    h: Any,
    c: Any,
    noise: AdditiveNoise,
    init: Any,
    word: Word,
    shape: tuple[int, ...],
    generator: Any,
) -> Any:
    """Losses (runs, columns), with the arrays of ``xp``: NumPy's or CuPy's; the state z is k arrays (runs, dim)."""
    runs = shape[0]
    scale = h ** -float(optimizer.hyperparameters.get("power", 0.0))
    parts = optimizer.map_at(optimizer.hyperparameters)
    readout = _weights(xp, np.asarray(parts.readout))
    origin = xp.sqrt(init) * generator.standard_normal((runs, h.size))
    state = [start * origin for start in parts.start]
    losses = xp.empty(shape)
    curvature, scales = backends.to_numpy(scale * h), backends.to_numpy(scale)
    block = max(1, NUMBERS_IN_CACHE // h.size) if xp is np else runs
    with np.errstate(over="ignore", invalid="ignore"):  # divergence
        for _, lr, share, length, column in zip(*word, strict=True):
            matrix, gain = step(optimizer, curvature, lr)
            taken = np.moveaxis(np.dstack([matrix, -scales[:, None] * gain]), 0, -1)  # (k, k + 1, dim)
            rows = [_weights(xp, row) for row in taken]
            queried = _weights(xp, np.asarray(parts.query) * lr ** np.array(parts.scaled))
            for _ in range(length):
                error = noise.draw(xp, h, c, share, partial(_sum, xp, queried, state), generator, runs)
                for first in range(0, runs, block):
                    few = [z[first : first + block] for z in (*state, error)]
                    new = [_sum(xp, row, few) for row in rows]
                    for z, values in zip(few, new, strict=False):
                        z[...] = values
            if column >= 0:
                losses[:, column] = 0.5 * _sum(xp, readout, state) ** 2 @ h
    losses[xp.isnan(losses)] = xp.inf  # inf - inf of a diverged state
    return losses


def _weights(xp: Any, weights: FloatArray) -> list[Any]:
    """Rows of ``weights`` as arrays of ``xp``, None where there is nothing to add."""
    return [xp.asarray(np.ascontiguousarray(w)) if np.any(w) else None for w in weights]


def _sum(xp: Any, weights: list[Any], arrays: list[Any]) -> Any:
    """sum_j weights[j] arrays[j], of those with a weight: the others may have overflowed."""
    total = None
    for weight, array in zip(weights, arrays, strict=True):
        if weight is not None:
            term = weight * array
            total = term if total is None else total + term
    return xp.zeros_like(arrays[0]) if total is None else total
