"""What schedules and their shapes say to bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from step_values import TWO

from nqm import schedules
from nqm.schedules import Schedule, equal_lengths

nan, inf = math.nan, math.inf
BAD = [
    (lambda: Schedule([], 1), ValueError, "values: expected at least one number"),
    (lambda: Schedule([[1.0, 2.0]], 1), ValueError, "values: expected at most 1 dimension"),
    (lambda: Schedule([1.0, nan], 1), ValueError, "values: expected finite real numbers in [0, inf), got nan at index"),
    (lambda: Schedule(inf, 1), ValueError, "values: expected finite"),
    (lambda: Schedule([1.0, -0.1], 1), ValueError, "got -0.1 at index (1,)"),
    (lambda: Schedule("0.1", 1), TypeError, "values: expected finite real numbers"),
    (lambda: Schedule(TWO, 1), TypeError, "values: expected finite real numbers"),
    (lambda: Schedule([True], 1), TypeError, "values: expected"),
    (lambda: Schedule([1.0, 2.0], [1, 2, 3]), ValueError, "lengths: expected one for each of the 2 values, got shape"),
    (lambda: Schedule([1.0, 2.0], [1]), ValueError, "lengths: expected one for each of the 2 values, got shape (1,)"),
    (lambda: Schedule(1.0, [1, 2]), ValueError, "lengths: expected one for each of the 1 values, got shape (2,)"),
    (lambda: Schedule([1.0, 2.0], [[1, 2]]), ValueError, "lengths: expected one for each"),
    (lambda: Schedule([1.0, 2.0], [1, 0]), ValueError, "lengths: expected whole numbers from 1 to 9.007e+15, got 0"),
    (lambda: Schedule([1.0, 2.0], -1), ValueError, "lengths: expected whole numbers from 1"),
    (lambda: Schedule([1.0, 2.0], [1, 2.5]), ValueError, "got 2.5 at index (1,)"),
    (lambda: Schedule(1.0, nan), ValueError, "lengths: expected"),
    (lambda: Schedule(1.0, []), ValueError, "lengths: expected at least one number"),
    (lambda: Schedule(1.0, None), TypeError, "lengths: expected"),
    (lambda: Schedule([1.0, 2.0], [2**53, 1]), ValueError, "at most 2^53 steps in all, got 9007199254740993"),
    (lambda: Schedule(np.ones(5000), 2**53), ValueError, "at most 2^53 steps in all, got 4.503599627370496e+19"),
    (lambda: Schedule(1.0, 1, "cycle"), ValueError, 'beyond: expected "hold" or "error", got \'cycle\' (str)'),
    (lambda: Schedule(1.0, 1, None), ValueError, "beyond: expected"),
    (lambda: Schedule(1.0, 1, np.array(["hold"])), ValueError, "beyond: expected"),
    (lambda: TWO(-1), ValueError, "step: expected whole numbers from 0"),
    (lambda: TWO(0.5), ValueError, "step: expected whole numbers"),
    (lambda: TWO([0, nan]), ValueError, "step: expected"),
    (lambda: TWO("1"), TypeError, "step: expected"),
    (lambda: TWO.cut(0), ValueError, "steps: expected whole numbers from 1"),
    (lambda: TWO.cut(1.5), ValueError, "steps: expected whole numbers from 1"),
    (lambda: TWO.cut([1, 2]), ValueError, "steps: expected a single number"),
    (lambda: TWO.coarsened(0), ValueError, "pieces: expected whole numbers from 1"),
    (lambda: TWO.then(0.1), TypeError, "other: expected an nqm.Schedule, got 0.1 (float)"),
    (lambda: TWO * 0, ValueError, "factor: expected finite real numbers in (0, inf), got 0"),
    (lambda: -1.0 * TWO, ValueError, "factor: expected"),
    (lambda: TWO * inf, ValueError, "factor: expected"),
    (lambda: TWO * TWO, TypeError, "factor: expected"),
    (lambda: TWO * [1.0, 2.0], ValueError, "factor: expected a single number"),
    (lambda: np.array([1.0, 2.0]) * TWO, ValueError, "factor: expected a single number"),
    (lambda: Schedule(1e300, 1) * 1e300, ValueError, "expected a schedule whose values are finite"),
    (lambda: TWO.to_torch(0.0), ValueError, "lr: expected finite real numbers in (0, inf), got 0"),
    (lambda: TWO.to_torch()(-1), ValueError, "step: expected"),
    (lambda: equal_lengths(3, 4), ValueError, "expected at most as many pieces as steps, got 4 pieces and 3 steps"),
    (lambda: equal_lengths(0, 1), ValueError, "steps: expected whole numbers from 1"),
    (lambda: equal_lengths(3, 0), ValueError, "pieces: expected whole numbers from 1"),
    (lambda: equal_lengths(2**53, 10**9), ValueError, "pieces: expected whole numbers from 1 to 1e+08"),
    (lambda: Schedule.from_function(0.1, 5), TypeError, "f: expected a function of the step, got 0.1 (float)"),
    (lambda: Schedule.from_function(lambda t: t, 0), ValueError, "steps: expected whole numbers from 1"),
    (
        lambda: Schedule.from_function(lambda t: -1.0, 5),
        ValueError,
        "f(step): expected finite real numbers in [0, inf)",
    ),
    (lambda: Schedule.from_function(lambda t: 3.0 - t, 5), ValueError, "f(step): expected finite real numbers"),
    (lambda: Schedule.from_function(lambda t: nan, 5), ValueError, "f(step): expected"),
    (lambda: Schedule.from_function(lambda t: None, 5), TypeError, "f(step): expected"),
    (lambda: Schedule.from_function(lambda t: [1.0, 2.0], 5), ValueError, "f(step): expected at most 1 dimension"),
    (lambda: Schedule.from_function(lambda t: 1.0, 5, "stop"), ValueError, "beyond: expected"),
    (lambda: schedules.step(1.0, 10, 0), ValueError, "step_size: expected whole numbers from 1"),
    (lambda: schedules.step(1.0, 10, 2.5), ValueError, "step_size: expected whole numbers"),
    (lambda: schedules.step(1.0, 10, 2, 0.0), ValueError, "gamma: expected finite real numbers in (0, inf)"),
    (lambda: schedules.step(1.0, 10**10, 2), ValueError, "steps / step_size: expected whole numbers from 1 to 1e+08"),
    (lambda: schedules.step(1.0, 1000, 1, 10.0), ValueError, "finite in float64, got an overflow"),
    (lambda: schedules.multistep(1.0, 10, [-1]), ValueError, "milestones: expected whole numbers from 0"),
    (lambda: schedules.multistep(1.0, 10, [1.5]), ValueError, "milestones: expected whole numbers"),
    (lambda: schedules.multistep(1.0, 10, []), ValueError, "milestones: expected at least one number"),
    (lambda: schedules.multistep(1.0, 10, [[1, 2]]), ValueError, "milestones: expected at most 1 dimension"),
    (lambda: schedules.multistep(1.0, 10, 5, -0.1), ValueError, "gamma: expected"),
    (lambda: schedules.exponential(1.0, 10), TypeError, "exponential: expected gamma or end, got neither"),
    (lambda: schedules.exponential(1.0, 10, 0.9, end=0.1), TypeError, "exponential: expected gamma or end, got both"),
    (lambda: schedules.exponential(1.0, 10, 0.0), ValueError, "gamma: expected"),
    (lambda: schedules.exponential(1.0, 10, end=0.0), ValueError, "end: expected finite real numbers in (0, inf)"),
    (lambda: schedules.exponential(1.0, 1000, 10.0), ValueError, "finite in float64, got an overflow"),
    (lambda: schedules.linear(1.0, 10, -0.1), ValueError, "end: expected finite real numbers in [0, inf)"),
    (lambda: schedules.linear(1.0, 10, "0"), TypeError, "end: expected"),
    (lambda: schedules.cosine(1.0, 10, nan), ValueError, "end: expected"),
    (lambda: schedules.inverse_sqrt(1.0, 10, 0.0), ValueError, "timescale: expected finite real numbers in (0, inf)"),
    (lambda: schedules.wsd(1.0, 10, -1), ValueError, "warmup: expected finite real numbers in [0, inf), got -1"),
    (lambda: schedules.wsd(1.0, 10, 1.5), ValueError, "warmup: expected whole numbers from 0 to 1e+08, got 1.5"),
    (lambda: schedules.wsd(1.0, 10, decay=2.5), ValueError, "decay: expected whole numbers"),
    (lambda: schedules.wsd(1.0, 10, 5, 6), ValueError, "expected warmup + decay of at most 10 steps, got 5 + 6"),
    (lambda: schedules.wsd(1.0, 10, 0.6, 0.5), ValueError, "expected warmup + decay of at most 10 steps, got 6 + 5"),
    (lambda: schedules.wsd(1.0, 3, 0.6, 0.5), ValueError, "expected warmup + decay of at most 3 steps, got 2 + 2"),
    (lambda: schedules.wsd(1.0, 10**12), ValueError, "decay: expected whole numbers from 0 to 1e+08, got"),
    (
        lambda: schedules.wsd(1.0, 10, cooldown="cosine"),
        ValueError,
        'cooldown: expected one of "linear", "exponential", "1-sqrt", got \'cosine\' (str)',
    ),
    (lambda: schedules.wsd(1.0, 10, cooldown=None), ValueError, "cooldown: expected one of"),
    (lambda: schedules.wsd(1.0, 10, end=1.5), ValueError, "end: expected finite real numbers in [0, 1], got 1.5"),
    (lambda: schedules.wsd(1.0, 10, cooldown="exponential"), ValueError, "end: expected finite real numbers in (0, 1]"),
    (lambda: schedules.warmup(0.1, 10), TypeError, "schedule: expected an nqm.Schedule, got 0.1 (float)"),
    (lambda: schedules.warmup(TWO, -1), ValueError, "steps: expected whole numbers from 0"),
    (lambda: schedules.warmup(TWO, 10, 1.5), ValueError, "start: expected finite real numbers in [0, 1], got 1.5"),
    (lambda: schedules.decaying(0.0, 10, 1.0), ValueError, "min_curvature: expected finite real numbers in (0, inf)"),
    (lambda: schedules.decaying(1.0, 10, 0.0), ValueError, "gamma: expected finite real numbers in (0, inf), got 0"),
    (lambda: schedules.decaying(1e-300, 10, 1e-300), ValueError, "finite in float64, got an overflow"),
]


@pytest.mark.parametrize(("call", "kind", "says"), BAD)
def test_bad_input(call, kind, says):
    with pytest.raises(kind) as caught:
        call()
    assert says in str(caught.value)


TAKES_VALUE_AND_STEPS = {
    "constant": schedules.constant,
    "step": lambda value, steps: schedules.step(value, steps, 10),
    "multistep": lambda value, steps: schedules.multistep(value, steps, [3]),
    "exponential": lambda value, steps: schedules.exponential(value, steps, 0.9),
    "linear": schedules.linear,
    "cosine": schedules.cosine,
    "inverse_sqrt": lambda value, steps: schedules.inverse_sqrt(value, steps, 10),
    "wsd": schedules.wsd,
    "decaying": lambda value, steps: schedules.decaying(1.0, steps, 10.0 * value),
}


@pytest.mark.parametrize("steps", [0, -1, 1.5, nan, inf, "10", None, [10, 20], 2**54])
@pytest.mark.parametrize("name", TAKES_VALUE_AND_STEPS)
def test_bad_steps(name, steps):
    with pytest.raises((ValueError, TypeError), match=r"^steps: expected "):
        TAKES_VALUE_AND_STEPS[name](1.0, steps)


@pytest.mark.parametrize("value", [0.0, -1.0, nan, inf, "1", None, [1.0, 2.0], True])
@pytest.mark.parametrize("name", [name for name in TAKES_VALUE_AND_STEPS if name != "decaying"])
def test_bad_values(name, value):
    with pytest.raises((ValueError, TypeError), match=r"^value: expected "):
        TAKES_VALUE_AND_STEPS[name](value, 10)


@pytest.mark.parametrize("name", ["exponential", "linear", "cosine", "inverse_sqrt", "decaying"])
def test_too_many_steps_of_a_shape_that_always_changes(name):
    with pytest.raises(ValueError, match=r"steps: expected whole numbers from 1 to 1e\+08, got 200000000"):
        TAKES_VALUE_AND_STEPS[name](1.0, 2 * 10**8)
