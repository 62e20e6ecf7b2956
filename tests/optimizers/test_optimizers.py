"""Step maps against the update rules they stand for, and what is found from them where no formula is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import mpmath as mp
import numpy as np
import pytest
from reference import Rule, step_matrix

import nqm
from nqm import FREE
from nqm.optimizers import LR, MOMENTUM, Pair, StepMap, one_step, step, transition_matrix
from nqm.optimizers.stability import long_run_noise, stability_limit

RULES = {
    "plain": (nqm.SGD(0.3), Rule(0.3)),
    "momentum": (nqm.SGD(0.3, 0.9), Rule(0.3, 0.9)),
    "nesterov": (nqm.SGD(0.3, 0.9, nesterov=True), Rule(0.3, 0.9, nesterov=True)),
    "ema": (nqm.EMA(nqm.SGD(0.3), 0.99), Rule(0.3, decay=0.99)),
    "ema of momentum": (nqm.EMA(nqm.SGD(0.3, 0.9), 0.99), Rule(0.3, 0.9, decay=0.99)),
    "ema of nesterov": (nqm.EMA(nqm.SGD(0.3, 0.9, nesterov=True), 0.99), Rule(0.3, 0.9, nesterov=True, decay=0.99)),
}

GENERATOR = np.random.default_rng(0)


def random_optimizer(k, lr=0.1):
    """k states, stable for learning rates up to about 1."""
    matrix = GENERATOR.standard_normal((k, k)) / k
    matrix[0, 0] = 1.0
    matrix[1:, 0] = 0.0
    matrix[1:, 1:] *= 0.9 / max(1.0, np.abs(np.linalg.eigvals(matrix[1:, 1:])).max() if k > 1 else 1.0)
    gain = np.append(1.0, GENERATOR.uniform(0.0, 0.5, k - 1))
    readout = np.append(1.0, GENERATOR.uniform(-0.1, 0.1, k - 1))
    return nqm.LinearOptimizer(lr, matrix, gain, query=np.eye(k)[0], readout=readout, start=np.eye(k)[0])


def full(entry):
    """An entry with all its digits."""
    return mp.mpf(float(entry.high)) + mp.mpf(float(entry.low)) if isinstance(entry, Pair) else mp.mpf(float(entry))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("h", [1.0, 0.01])
def test_one_step_is_the_update_rules(name, h):
    """Eigenvalues, and readouts of a few steps of the start and of noise."""
    optimizer, rule = RULES[name]
    expected, noise = (np.array(x, dtype=float) for x in step_matrix(rule, h))
    matrix, gain = step(optimizer, h, 0.3)
    parts = optimizer.step_map(optimizer.hyperparameters)
    states = [(np.array(parts.start), np.array([1.0, 0.0, 1.0])), (-gain, noise)]
    for own, theirs in states:
        for _ in range(5):
            assert own @ parts.readout == pytest.approx(theirs[2], rel=1e-12, abs=1e-15)
            own, theirs = matrix @ own, expected @ theirs


@pytest.mark.parametrize("k", range(1, 8))
def test_an_average_of_any_states_is_one_row_more(k):
    """average' = decay average + (1 - decay) readout (A z - lr gain g), with 30 digits."""
    inner = random_optimizer(k)
    optimizer, decay = nqm.EMA(inner, 0.9), mp.mpf(0.9)
    parts = optimizer.step_map(optimizer.hyperparameters)
    assert (optimizer.states, parts.states) == (k + 1, k + 1)
    assert parts.start == (*np.eye(k)[0], inner.readout[0])
    weights = [(1 - decay) * mp.mpf(float(r)) for r in inner.readout]
    if k == 2:  # which the backends know as such
        assert full(parts.averaging_weight) == 1 - decay
        assert parts.averaged == [*inner.readout, 0.0]
        return
    row, gain = [full(entry) for entry in parts.transition[-1]], full(parts.gain[-1])
    expected = [sum(w * mp.mpf(float(inner.transition[i, j])) for i, w in enumerate(weights)) for j in range(k)]
    assert all(abs(x - y) <= mp.mpf(10) ** -29 for x, y in zip(row, [*expected, decay], strict=True))
    assert abs(gain - sum(w * mp.mpf(float(g)) for w, g in zip(weights, inner.gain, strict=True))) <= mp.mpf(10) ** -29
    matrix = transition_matrix(optimizer, 0.3)
    step_of_it = transition_matrix(inner, 0.3)
    assert matrix[:k, :k] == pytest.approx(step_of_it, abs=1e-15)
    assert matrix[k, :k] == pytest.approx((1.0 - 0.9) * inner.readout @ step_of_it, abs=1e-15)


def test_states_up_to_eight():
    assert random_optimizer(8).states == 8
    with pytest.raises(ValueError, match=r"k = 1, 2 \.\.\. 8, got shape \(9, 9\)"):
        random_optimizer(9)
    with pytest.raises(ValueError, match=r"EMA: expected an optimizer of at most 7 state variables, got .* with 8"):
        nqm.EMA(random_optimizer(8), 0.9)


@pytest.mark.parametrize("name", RULES)
def test_one_step_of_pairs_has_32_digits(name):
    optimizer, _ = RULES[name]
    parts = optimizer.step_map(optimizer.hyperparameters)
    average = None if parts.averaged is None else (parts.averaging_weight, parts.averaged)
    shared = parts.query, parts.scaled
    lr, h = Pair(0.3), Pair(0.7)
    matrix, kick = one_step(parts.transition, parts.gain, *shared, lr, h, average)
    in_60_digits = ([[full(entry) for entry in row] for row in parts.transition], [full(entry) for entry in parts.gain])
    average = None if average is None else (full(average[0]), [mp.mpf(x) for x in average[1]])
    expected, noise = one_step(*in_60_digits, *shared, mp.mpf(0.3), mp.mpf(0.7), average)
    found, rounded = step(optimizer, 0.7, 0.3)
    for i in range(parts.states):
        assert abs(full(kick[i]) - noise[i]) <= mp.mpf(10) ** -30
        assert rounded[i] == pytest.approx(float(noise[i]), rel=1e-14, abs=1e-16)
        for j in range(parts.states):
            assert abs(full(matrix[i][j]) - expected[i][j]) <= mp.mpf(10) ** -30
            assert found[i, j] == pytest.approx(float(expected[i][j]), rel=1e-14, abs=1e-16)


def test_shapes_of_steps():
    x = np.linspace(0.1, 1.0, 6).reshape(2, 3)
    assert transition_matrix(nqm.SGD(0.1, 0.5), x).shape == (2, 3, 2, 2)
    assert transition_matrix(nqm.SGD(0.1), 0.5).shape == (1, 1)
    matrix, kick = step(nqm.SGD(0.1, [0.1, 0.5, 0.9]), x)
    assert (matrix.shape, kick.shape) == ((2, 3, 2, 2), (2, 3, 2))
    assert np.array_equal(matrix[1, 2], transition_matrix(nqm.SGD(0.1, 0.9), x[1, 2]))


def test_packed_arrays():
    values = {"lr": 0.1, "momentum": np.array([0.5, 0.9]), "decay": 0.3}
    packed = nqm.EMA(nqm.SGD(0.1, FREE), FREE).step_map(values).packed
    assert packed.transition.shape == (2, 2, 3, 3)
    high, low = packed.averaging_weight.T
    assert high.tolist() == [0.7, 0.7]
    assert np.all(low != 0.0)
    assert mp.mpf(high[0]) + mp.mpf(low[0]) == 1 - mp.mpf(0.3)
    assert packed.readout.tolist() == [1.0, 0.0, 0.0]
    assert packed.lr_scaled.tolist() == [0, 1, 0]
    assert packed.transition[1, 0].tolist() == [[1.0, 0.9, 0.0], [0.0, 0.9, 0.0], [0.0, 0.0, 0.3]]


def test_what_rests_at_a_learning_rate_of_zero():
    def rests(optimizer):
        return optimizer.step_map(optimizer.hyperparameters).decay_at_zero_lr

    assert rests(nqm.SGD(0.1)) == rests(nqm.SGD(0.1, 0.9)) == rests(nqm.EMA(nqm.SGD(0.1), 0.0)) == 0.0
    assert rests(nqm.Preconditioned(nqm.EMA(nqm.SGD(0.1, 0.9), 0.7), 0.5)) == 0.7
    assert rests(nqm.LinearOptimizer(0.1, [[1.0, 0.9], [0.0, 0.9]], [1.0, 1.0])) is None
    assert rests(nqm.EMA(nqm.LinearOptimizer(0.1, [[1.0]], [1.0]), 0.5)) is None


def test_a_momentum_by_that_name_is_not_taken_for_sgd():
    """Its iterate moves on while lr = 0: steps to a target along a schedule that rests are those of the risk."""

    @dataclass(frozen=True, eq=False, repr=False)
    class Coasting(nqm.Optimizer[Any]):
        """theta' = theta - lr g + momentum (theta - theta before)"""

        lr: Any
        momentum: Any = 0.0
        declared: ClassVar = (LR, MOMENTUM)

        def step_map(self, values):
            m = values["momentum"]
            return StepMap([[1.0, m], [0.0, m]], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0], (1.0, 0.0))

    problem = nqm.NoisyQuadratic([1.0, 0.1])
    optimizer = Coasting(nqm.Schedule([0.05, 0.0, 0.05], [5, 40, 200]), 0.97)
    course = nqm.risk(problem, optimizer, 1e6, np.arange(246))
    assert np.ptp(course[5:45]) > 0.1
    for share in (0.3, 0.1, 0.05):
        target = share * course[0]
        assert nqm.steps_to_target(problem, optimizer, 1e6, target) == np.argmax(course <= target)


# --- where no formula is given -------------------------------------------------------------------------------------

FORMULAS = [nqm.SGD(FREE), nqm.SGD(FREE, 0.5), nqm.SGD(FREE, 0.999), nqm.SGD(FREE, 0.5, nesterov=True),
            nqm.SGD(FREE, 0.99, nesterov=True)]  # fmt: skip


@pytest.mark.parametrize("optimizer", FORMULAS, ids=repr)
def test_stability_from_the_step_map(optimizer):
    values = {**optimizer.hyperparameters, "lr": 1.0}
    assert stability_limit(optimizer.step_map(values)) == pytest.approx(optimizer.stability_limit(values), rel=1e-12)


def test_stability_of_many_at_once():
    momentum = np.concatenate([[0.0], 1.0 - np.geomspace(1.0, 1e-6, 30)])
    for nesterov in (False, True):
        optimizer = nqm.SGD(FREE, momentum, nesterov=nesterov)
        values = {"lr": 1.0, "momentum": momentum}
        found = stability_limit(optimizer.step_map(values))
        assert found == pytest.approx(optimizer.stability_limit(values), rel=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_stability_as_by_bisection(k):
    for _ in range(10):
        optimizer = random_optimizer(k)
        values = optimizer.hyperparameters
        limit = stability_limit(optimizer.step_map(values))
        assert limit == pytest.approx(optimizer.stability_limit(values), rel=1e-9)


def test_always_and_never_stable():
    assert stability_limit(StepMap([[0.5]], [0.0], [1.0], [1.0], (1.0,))) == np.inf
    assert stability_limit(StepMap([[1.5]], [0.1], [1.0], [1.0], (1.0,))) == 0.0
    assert stability_limit(StepMap([[1.0]], [-1.0], [1.0], [1.0], (1.0,))) == 0.0


@pytest.mark.parametrize("optimizer", FORMULAS, ids=repr)
def test_noise_from_the_step_map(optimizer):
    values = {**optimizer.hyperparameters, "lr": 1.0}
    limit = optimizer.stability_limit(values)
    x = np.append(limit * np.geomspace(1e-3, 0.99, 20), 1.1 * limit)
    parts = optimizer.step_map(values).packed
    found = long_run_noise(parts.transition[0], parts.gain[0], parts.query, x, limit)
    assert found == pytest.approx(optimizer.noise_gain(x, values), rel=1e-9)
