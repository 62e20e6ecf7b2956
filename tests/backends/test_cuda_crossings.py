"""First and last crossings by the backend "cupy": those of the search along one row, and in few leaps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cuda_rows import FAMILIES, a_problem, rows_of

import nqm
from nqm.backends import cupy_backend as cuda
from nqm.backends import numba_backend


def assert_crossings(problem, optimizer, batch, targets):
    """First and last, as those of the search along one row."""
    row = rows_of(problem, optimizer, np.broadcast_to(batch, targets.shape))
    found = []
    for last, name in ((False, "first"), (True, "last")):
        here = cuda.first_passage(row, targets, last)
        np.testing.assert_array_equal(here, nqm.steps_to_target(problem, optimizer, batch, targets, name))
        found.append(here)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_crossings(device, family):
    rng = np.random.default_rng(11)
    problem = a_problem(rng, 20)
    lr, momentum, decay = 10.0 ** rng.uniform(-2.0, 0.0, 24), rng.choice([0.5, 0.9], 24), rng.choice([0.5, 0.9], 24)
    optimizer = FAMILIES[family](lr, momentum, decay, np.full(24, 0.2))
    risks = nqm.risk(problem, optimizer, 1e4, rng.choice([3, 20, 300, 5000], size=24))
    assert np.isfinite(assert_crossings(problem, optimizer, 1e4, risks * rng.uniform(0.9, 1.1, 24))).any()


def test_crossings_of_a_risk_that_oscillates(device):
    """The mean swings through zero: it is below the target long before it stays there."""
    problem = nqm.NoisyQuadratic([1.0, 1e-3], [0.0, 0.0], [1.0, 1e-6])
    first, last = assert_crossings(problem, nqm.SGD(0.05, 0.99), 1.0, np.geomspace(0.4, 1e-3, 12))
    assert np.all(first < last)


def test_targets_out_of_reach_and_reached_at_once(device):
    problem = nqm.NoisyQuadratic([1.0, 0.1], [1.0, 0.1])
    steady = float(nqm.steady_state_risk(problem, nqm.SGD(0.1), 4.0))
    first, last = assert_crossings(problem, nqm.SGD(0.1), 4.0, np.array([steady * 0.999, 1e3, steady * 1.001]))
    assert first[0] == last[0] == np.inf
    assert first[1] == last[1] == 0.0
    assert 0.0 < first[2] <= last[2] < np.inf


def test_crossings_of_a_risk_that_diverges(device):
    problem = nqm.NoisyQuadratic([1.0, 0.1], [1.0, 0.1])
    first, last = assert_crossings(problem, nqm.SGD(2.5), 1e6, np.array([0.5, 0.05, 1e5]))
    np.testing.assert_array_equal(last, np.inf)
    assert first[2] == 0.0
    assert first[1] == np.inf


@pytest.mark.parametrize("optimizer", [nqm.SGD(5.0), nqm.SGD(5.0, 0.9), nqm.EMA(nqm.SGD(5.0, 0.9), 0.9)])
def test_a_mean_that_overflows_is_above_every_target(device, optimizer):
    problem = nqm.NoisyQuadratic([1.0], [0.0], [1.0])
    first, last = assert_crossings(problem, optimizer, 1.0, np.array([1e-3, 1e-200]))
    np.testing.assert_array_equal(first, np.inf)
    np.testing.assert_array_equal(last, np.inf)


def test_crossings_far_ahead(device):
    problem = nqm.NoisyQuadratic([1.0], [1.0])
    lr = np.array([1e-3, 1e-6, 1e-9, 1e-12])
    first, last = assert_crossings(problem, nqm.SGD(lr), 1.0, np.full(4, 0.1))
    np.testing.assert_array_equal(first, last)
    assert np.all(np.diff(first) > 0.0)


def test_more_rows_than_blocks(device, monkeypatch):
    rng = np.random.default_rng(5)
    problem, lr = a_problem(rng, 20), 10.0 ** rng.uniform(-2.0, 0.0, 17)
    row = rows_of(problem, nqm.EMA(nqm.SGD(lr, 0.9), 0.9), np.full(17, 1e5))
    targets = numba_backend.risk(row, rng.integers(50, 1000, size=17))
    expected = cuda.first_passage(row, targets, True)
    assert np.unique(expected).size > 3
    monkeypatch.setattr(cuda, "BLOCKS", 3)
    np.testing.assert_array_equal(cuda.first_passage(row, targets, True), expected)
    monkeypatch.setattr(cuda, "SHARE", 1e-15)  # one block, whatever it takes
    np.testing.assert_array_equal(cuda.first_passage(row, targets, True), expected)


def test_a_search_that_takes_too_long_says_so(device, monkeypatch):
    row = rows_of(nqm.NoisyQuadratic([1.0]), nqm.SGD(np.array([1e-6, 1.0])), np.inf)
    monkeypatch.setattr(cuda, "LEAPS", 8)
    found = cuda.in_few_leaps(row, np.array([0.1, 0.1]), False)
    assert math.isnan(found[0])
    assert found[1] == 1.0


def test_what_barely_grows_takes_few_leaps(device, monkeypatch):
    """By 2e-9 a step: 0.5 > 0.1 for good."""
    monkeypatch.setattr(cuda, "LEAPS", 200)
    row = rows_of(nqm.NoisyQuadratic(1.0), nqm.SGD(np.array([2.0 * (1.0 + 1e-9)])), math.inf)
    for last in (False, True):
        assert cuda.first_passage(row, np.array([0.1]), last).tolist() == [math.inf]


def test_momentum_of_zero_among_others_takes_few_leaps(device, monkeypatch):
    """A root of exactly 0, which rounding makes -1e-17, is no oscillation."""
    monkeypatch.setattr(cuda, "LEAPS", 200)
    problem, lr = nqm.NoisyQuadratic(1.0 / np.arange(1.0, 101.0)), np.geomspace(1e-3, 1.9, 30)
    row = rows_of(problem, nqm.SGD(lr), 1e5)
    mixed = rows_of(problem, nqm.SGD(lr, np.append(np.zeros(29), 0.5)), 1e5)
    assert len(row.start) == 1
    assert len(mixed.start) == 2
    found = cuda.first_passage(mixed, np.full(30, 0.01), False)
    np.testing.assert_array_equal(found[:-1], cuda.first_passage(row, np.full(30, 0.01), False)[:-1])
