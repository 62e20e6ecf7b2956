"""Schedules against plain lists of values: the class, schedules from schedules, and from functions of the step."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_values import ROUNDING, TWO, every_step, python_steps, spelled

from nqm import schedules
from nqm.schedules import Schedule, equal_lengths

pieces_of_schedules = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 1.0, 1e-3, 7.5]) | st.floats(0.0, 1e6), st.integers(1, 9)),
    min_size=1,
    max_size=12,
)
any_schedule = pieces_of_schedules.map(lambda pairs: Schedule(*zip(*pairs, strict=True)))

# ---- the class


def test_what_it_holds():
    schedule = Schedule([0.5, 0.25, 0.125], [1, 5, 10**6])
    assert (schedule.pieces, schedule.steps, schedule.beyond) == (3, 10**6 + 6, "hold")
    assert schedule.values.tolist() == [0.5, 0.25, 0.125]
    assert schedule.lengths.tolist() == [1, 5, 10**6]
    assert schedule.ends.tolist() == [1, 6, 10**6 + 6]
    assert schedule.values.dtype == np.float64
    assert schedule.lengths.dtype == schedule.ends.dtype == np.int64


def test_single_numbers():
    assert Schedule(0.5, 10) == Schedule([0.5], [10])
    assert Schedule([1, 2, 3], 4) == Schedule([1.0, 2.0, 3.0], [4, 4, 4])
    assert Schedule(2, 1e3).steps == 1000


@pytest.mark.parametrize("name", ["values", "lengths", "ends"])
@pytest.mark.parametrize("make", [lambda s: s, lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy])
def test_arrays_are_read_only(name, make):
    with pytest.raises(ValueError, match="read-only"):
        getattr(make(TWO), name)[0] = 1


@pytest.mark.parametrize("name", ["values", "lengths", "beyond", "ends", "steps"])
def test_attributes_cannot_be_set(name):
    with pytest.raises(AttributeError):
        setattr(Schedule(1.0, 1), name, 1)


def test_callers_arrays_are_neither_changed_nor_kept():
    values, lengths = np.array([-0.0, 1.0]), np.array([2, 3])
    schedule = Schedule(values, lengths)
    assert np.signbit(values[0])
    assert values.flags.writeable
    assert lengths.flags.writeable
    values[1], lengths[1] = 5.0, 50
    assert spelled(schedule) == [0.0, 0.0, 1.0, 1.0, 1.0]
    milestones = np.array([3, 1])
    schedules.multistep(1.0, 5, milestones)
    assert milestones.tolist() == [3, 1]
    asked = np.array([4, 0])
    schedule(asked)
    assert asked.tolist() == [4, 0]


def test_what_it_returns_is_no_view_of_it():
    found = TWO(np.arange(2))
    found[0] = 9.0
    assert TWO(0) == 0.1


def test_equality_and_hash():
    same = Schedule(np.array([0.1, 0.01]), [3.0, 2.0])
    others = [Schedule([0.1, 0.02], [3, 2]), Schedule([0.1, 0.01], [2, 3]), Schedule([0.1, 0.01], [3, 2], "error")]
    assert same == TWO
    assert hash(same) == hash(TWO)
    assert len({TWO, same, *others}) == 4
    assert all(other != TWO for other in [*others, 0.1, None, Schedule(0.1, 5)])
    assert hash(Schedule(-0.0, 1)) == hash(Schedule(0.0, 1))


@pytest.mark.parametrize("beyond", ["hold", "error"])
def test_pickles(beyond):
    schedule = Schedule([0.5, 0.25], [3, 4], beyond)
    assert schedule.ends.tolist() == [3, 7]  # what is cached does not travel
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert again.beyond == beyond
    assert copy.deepcopy(schedule) == copy.copy(schedule) == schedule


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Schedule(np.geomspace(2, 0.01, 50), 200), "Schedule(50 pieces, 10000 steps, 0.01 to 2)"),
        (Schedule(0.1, 1), "Schedule(1 piece, 1 step, 0.1)"),
        (Schedule([0.1, 0.1], 5, "error"), "Schedule(2 pieces, 10 steps, 0.1, error beyond)"),
    ],
)
def test_repr(schedule, text):
    assert repr(schedule) == text


@given(any_schedule, st.lists(st.integers(0, 150), min_size=1, max_size=20))
def test_value_at_a_step(schedule, steps):
    values = spelled(schedule)
    expected = [values[min(t, len(values) - 1)] for t in steps]
    assert schedule(steps).tolist() == expected
    assert [schedule(t) for t in steps] == expected
    column = np.array(steps)[:, None]
    assert schedule(column).shape == column.shape
    assert schedule(column)[:, 0].tolist() == expected


def test_a_number_gives_a_float():
    assert type(TWO(0)) is float
    assert type(TWO(np.int64(4))) is float
    assert type(TWO(np.array([4]))) is np.ndarray


def test_no_memory_for_steps():
    huge = Schedule([1.0, 0.5, 0.25], [2**51, 2**51, 2**52])
    assert huge.steps == 2**53
    assert huge(np.array([2**51 - 1, 2**51, 2**52 - 1, 2**52, 2**53 - 1, 2**53])).tolist() == [1, 0.5, 0.5] + 3 * [0.25]
    assert huge.cut(2**52 + 1).lengths.tolist() == [2**51, 2**51, 1]
    assert huge.coarsened(2) == Schedule([0.75, 0.25], 2**52)


def test_beyond_the_end():
    strict = Schedule([0.1, 0.01], [3, 2], beyond="error")
    assert TWO(5) == TWO(2**53) == 0.01
    assert strict(4) == 0.01
    with pytest.raises(ValueError, match=r"^step: expected steps of a schedule that has 5 steps, got 5$"):
        strict(5)
    with pytest.raises(ValueError, match=r"has 5 steps, got 70$"):
        strict(np.array([[0, 70], [6, 1]]))


# ---- schedules from schedules


@given(any_schedule, st.integers(1, 150))
def test_cut(schedule, steps):
    values = spelled(schedule)
    found = schedule.cut(steps)
    assert spelled(found) == (values + [values[-1]] * steps)[:steps]
    assert found.pieces <= schedule.pieces


def test_cut_where_the_end_is_strict():
    strict = Schedule([0.1, 0.01], [3, 2], beyond="error")
    assert strict.cut(5) == strict
    assert strict.cut(4) == Schedule([0.1, 0.01], [3, 1], beyond="error")
    with pytest.raises(ValueError, match="steps: expected at most the 5 steps of the schedule, got 6"):
        strict.cut(6)


@given(any_schedule)
def test_merged(schedule):
    found = schedule.merged()
    assert spelled(found) == spelled(schedule)
    assert np.all(found.values[1:] != found.values[:-1])


@given(any_schedule, any_schedule)
def test_then(first, second):
    both = first.then(second)
    assert spelled(both) == spelled(first) + spelled(second)
    assert both.pieces == first.pieces + second.pieces


def test_then_takes_the_end_of_the_last():
    strict = Schedule(0.5, 2, beyond="error")
    assert TWO.then(strict).beyond == "error"
    assert strict.then(TWO).beyond == "hold"


@given(any_schedule, st.floats(1e-3, 1e3))
def test_multiples(schedule, factor):
    expected = Schedule([factor * value for value in schedule.values], schedule.lengths)
    assert schedule * factor == factor * schedule == np.float64(factor) * schedule == expected


def test_what_keeps_beyond():
    strict = Schedule([3.0, 3.0, 1.0], 2, beyond="error")
    for found in (strict.cut(3), strict.merged(), 2.0 * strict, strict.coarsened(2), strict.coarsened(9)):
        assert found.beyond == "error"


@given(any_schedule, st.integers(1, 15))
def test_coarsened(schedule, pieces):
    found = schedule.coarsened(pieces)
    if pieces >= schedule.pieces:
        assert found is schedule
        return
    n, values = schedule.steps, [Fraction(value) for value in spelled(schedule)]
    bounds = [j * n // pieces for j in range(pieces + 1)]
    assert found.ends.tolist() == bounds[1:]
    for value, low, high in zip(found.values, bounds, bounds[1:], strict=False):
        assert value == pytest.approx(float(sum(values[low:high]) / (high - low)), rel=ROUNDING, abs=0)
        assert min(values[low:high]) <= value <= max(values[low:high])


def test_coarsened_does_not_change_equal_values():
    assert np.all(Schedule(np.full(1000, 0.1), np.arange(1, 1001)).coarsened(7).values == 0.1)


def test_coarsened_keeps_small_values_beside_large_ones():
    values = np.concatenate([np.full(500, 1e12), np.full(500, 1e-12)])
    assert Schedule(values, 3).coarsened(10).values[-1] == 1e-12


def test_coarsened_without_a_loop():
    fine = schedules.linear(1.0, 10**6)
    assert python_steps(lambda: fine.coarsened(500_000)) < 10_000  # no mean taken for each piece by itself


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_equal_lengths(drawn):
    steps, pieces = drawn
    found = equal_lengths(steps, pieces)
    assert found.dtype == np.int64
    assert found.tolist() == [(j + 1) * steps // pieces - j * steps // pieces for j in range(pieces)]


@pytest.mark.parametrize("steps", [2**53, 2**53 - 1, 10**15 + 7])
@pytest.mark.parametrize("pieces", [1, 3, 999, 99_991])
def test_equal_lengths_of_many_steps(steps, pieces):
    expected = [(j + 1) * steps // pieces - j * steps // pieces for j in range(pieces)]
    assert equal_lengths(steps, pieces).tolist() == expected


# ---- functions of the step


FUNCTIONS = {
    "vectorised": lambda t: 0.1 / (t + 1),
    "branch": lambda t: 0.1 if t < 40 else 0.01,
    "math": lambda t: 1.0 + math.cos(t / 100),
    "list": lambda t: [0.5, 0.25][t // 50],
    "constant": lambda t: 0.5,
    "whole": lambda t: 1 + t // 10,
    "overflow in int64": lambda t: t**40 / 10.0**80,
    "vectorised, but otherwise": lambda t: 1.0 + t * (1.0 if np.ndim(t) else 2.0),
    "vectorised, but turned": lambda t: 1.0 + np.asarray(t)[::-1] if np.ndim(t) else 1.0 + t,
    "numpy scalar": lambda t: np.float32(0.5) if t < 9 else np.float64(0.25),
    "changes its argument": lambda t: t.__iadd__(1) if isinstance(t, np.ndarray) else t + 1,
}


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_from_function(name, steps):
    f = FUNCTIONS[name]
    schedule = Schedule.from_function(f, steps)
    assert every_step(schedule).tolist() == [float(f(t)) for t in range(steps)]
    assert schedule == schedule.merged()


def test_from_function_passes_whole_numbers():
    kinds = set()

    def f(t):
        kinds.add(type(t))
        return [1.0, 2.0, 3.0][t]

    assert spelled(Schedule.from_function(f, 3, beyond="error")) == [1.0, 2.0, 3.0]
    assert kinds == {np.ndarray, int}
    assert Schedule.from_function(f, 3, beyond="error").beyond == "error"


def test_from_function_calls_once_where_it_can():
    calls = []

    def f(t):
        calls.append(t)
        if isinstance(t, np.ndarray):
            warnings.warn("of no interest to who asked for single steps", stacklevel=1)
        return 1.0 / (t + 1.0)

    Schedule.from_function(f, 10**5)
    assert len(calls) < 30


def test_from_function_hides_no_error():
    def f(t):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Schedule.from_function(f, 3)
