"""Schedules and their shapes against formulas written out with 50 digits, against torch, and against plain loops."""

from __future__ import annotations

import copy
import math
import pickle
import sys
import warnings
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nqm import schedules
from nqm.schedules import Schedule, equal_lengths

TWO = Schedule([0.1, 0.01], [3, 2])
ROUNDING = 2e-15  # a few units in the last place, of values of any size


def python_steps(work):
    """Lines and calls of Python that run: counted, where a time would depend on the machine and what else it does."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def every_step(schedule):
    return schedule(np.arange(schedule.steps))


def spelled(schedule):
    """The value at each step, by repetition."""
    return [value for value, length in zip(schedule.values, schedule.lengths, strict=True) for _ in range(length)]


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


# ---- shapes, with 50 digits


def number(x):
    return mp.mpf(float(x))


def naive_wsd(value, steps, up, down, cooldown, end):
    value, end, found = number(value), number(end), []
    for t in range(steps):
        share = mp.mpf(t - (steps - down)) / down if down else mp.mpf(0)
        if t < up:
            found.append(value * t / up)
        elif t < steps - down:
            found.append(value)
        elif cooldown == "linear":
            found.append(value * (end + (1 - end) * (1 - share)))
        elif cooldown == "exponential":
            found.append(value * end**share)
        else:
            found.append(value * (end + (1 - end) * (1 - mp.sqrt(share))))
    return found


def naive(formula, steps):
    """A list of formula(t), t = 0 ... steps - 1, in the working precision."""
    return [formula(mp.mpf(t)) for t in range(steps)]


V = 0.3
N = 500  # steps
SHAPES = {
    "constant": (schedules.constant(V, N), lambda: naive(lambda t: number(V), N)),
    "step": (schedules.step(V, N, 30, 0.7), lambda: naive(lambda t: number(V) * number(0.7) ** int(t / 30), N)),
    "step, once": (schedules.step(V, N, 10**9), lambda: naive(lambda t: number(V), N)),
    "step, growing batches": (schedules.step(32, 50, 10, 2), lambda: naive(lambda t: 32 * 2 ** int(t / 10), 50)),
    "multistep": (
        schedules.multistep(V, N, [400, 30, 30, 9000, 100], 0.5),
        lambda: naive(lambda t: number(V) / 2 ** sum(t >= m for m in (30, 30, 100, 400)), N),
    ),
    "multistep, at once": (schedules.multistep(V, N, 0, 0.5), lambda: naive(lambda t: number(V) / 2, N)),
    "exponential": (schedules.exponential(V, N, 0.99), lambda: naive(lambda t: number(V) * number(0.99) ** t, N)),
    "exponential, growing": (schedules.exponential(8, N, 1.01), lambda: naive(lambda t: 8 * number(1.01) ** t, N)),
    "exponential, to an end": (
        schedules.exponential(V, N, end=0.001),
        lambda: naive(lambda t: number(V) * number(0.001) ** (t / N), N),
    ),
    "linear": (schedules.linear(V, N), lambda: naive(lambda t: number(V) * (1 - t / N), N)),
    "linear, to an end": (
        schedules.linear(V, N, 0.01),
        lambda: naive(lambda t: number(V) * (1 - (1 - number(0.01)) * t / N), N),
    ),
    "linear, growing": (schedules.linear(16, N, 64.0), lambda: naive(lambda t: 16 * (1 + 63 * t / N), N)),
    "cosine": (schedules.cosine(V, N), lambda: naive(lambda t: number(V) * (1 + mp.cos(mp.pi * t / N)) / 2, N)),
    "cosine, to an end": (
        schedules.cosine(V, N, 0.1),
        lambda: naive(lambda t: number(V) * (number(0.1) + (1 - number(0.1)) * (1 + mp.cos(mp.pi * t / N)) / 2), N),
    ),
    "cosine, growing": (
        schedules.cosine(2.0, N, 100.0),
        lambda: naive(lambda t: 2 * (100 - 99 * (1 + mp.cos(mp.pi * t / N)) / 2), N),
    ),
    "inverse_sqrt": (
        schedules.inverse_sqrt(V, N, 12.5),
        lambda: naive(lambda t: number(V) * mp.sqrt(number(12.5) / (number(12.5) + t)), N),
    ),
    "wsd": (schedules.wsd(V, N), lambda: naive_wsd(V, N, 0, 100, "linear", 0.0)),
    "wsd, exponential": (
        schedules.wsd(V, N, 50, 0.3, "exponential", 0.01),
        lambda: naive_wsd(V, N, 50, 150, "exponential", 0.01),
    ),
    "wsd, 1-sqrt": (schedules.wsd(V, N, 0.1, 120, "1-sqrt"), lambda: naive_wsd(V, N, 50, 120, "1-sqrt", 0.0)),
    "wsd, 1-sqrt to an end": (
        schedules.wsd(V, N, 1, N - 1, "1-sqrt", 0.2),
        lambda: naive_wsd(V, N, 1, N - 1, "1-sqrt", 0.2),
    ),
    "wsd, only up": (schedules.wsd(V, N, N, 0), lambda: naive_wsd(V, N, N, 0, "linear", 0.0)),
    "warmup": (
        schedules.warmup(schedules.linear(V, 100), 400, 0.25),
        lambda: naive(lambda t: number(V) * (number(0.25) + 0.75 * t / 400 if t < 400 else 1 - (t - 400) / 100), N),
    ),
    "decaying": (
        schedules.decaying(0.01, N, 200.5),
        lambda: naive(lambda t: 2 / ((t + number(200.5)) * number(0.01)), N),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    schedule, oracle = SHAPES[name]
    with mp.workdps(50):
        expected = oracle()
        assert schedule.steps == len(expected)
        for found, exact in zip(every_step(schedule), expected, strict=True):
            assert abs(found - exact) <= ROUNDING * exact
    assert schedule == schedule.merged()


@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine])
@pytest.mark.parametrize("end", [0.0, 1e-9, 0.5])
def test_last_steps_lose_no_digits(make, end):
    """Where value (1 + cos(pi t / steps)) / 2 cancels, as printed."""
    steps = 10**6
    found = make(1.0, steps, end)(np.arange(steps - 3, steps))
    with mp.workdps(50):
        for value, left in zip(found, (3, 2, 1), strict=True):
            s = mp.mpf(left) / steps if make is schedules.linear else mp.sin(mp.pi * left / (2 * steps)) ** 2
            exact = number(end) + (1 - number(end)) * s
            assert abs(value - exact) <= ROUNDING * exact


def test_pieces_are_few_where_the_value_stays():
    assert schedules.constant(0.1, 2**53).pieces == 1
    assert schedules.step(1.0, 10**12, 10**11).pieces == 10
    assert schedules.multistep(1.0, 2**53, [10, 2**52]).pieces == 3
    assert schedules.wsd(1.0, 10**12, 10, 10).pieces == 20  # the first of the cooldown has the peak value
    assert schedules.linear(1.0, 100, end=1.0) == schedules.cosine(1.0, 100, end=1.0) == schedules.constant(1.0, 100)
    assert schedules.step(1.0, 100, 7, gamma=1.0) == schedules.constant(1.0, 100)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_shapes_agree_with_each_other(steps):
    assert schedules.wsd(2.0, steps, 0, steps) == schedules.linear(2.0, steps)
    assert schedules.wsd(2.0, steps, 0, steps, "exponential", 0.1) == schedules.exponential(2.0, steps, end=0.1)
    assert schedules.wsd(2.0, steps, 0, 0) == schedules.constant(2.0, steps)
    assert schedules.warmup(TWO, 0) is TWO
    assert schedules.warmup(schedules.wsd(2.0, 10), steps) == schedules.wsd(2.0, 10 + steps, steps, 2)
    assert schedules.exponential(2.0, steps, 0.5) == schedules.step(2.0, steps, 1, 0.5)


@pytest.mark.parametrize(
    ("given", "steps", "means"),
    [
        (0, 10, 0),
        (0.0, 10, 0),
        (1, 10, 1),
        (1.0, 10, 1),
        (0.29, 100, 29),
        (1 / 3, 9, 3),
        (0.04, 10, 0),
        (0.999, 10, 10),
    ],
)
def test_parts_of_wsd(given, steps, means):
    """From 1 a number of steps, below a share."""
    rising = schedules.wsd(1.0, steps, warmup=given, decay=0)
    assert int(np.sum(every_step(rising) < 1.0)) == means
    falling = every_step(schedules.wsd(1.0, steps, decay=given))
    assert int(np.sum(falling < 1.0)) == max(means - 1, 0)


@pytest.mark.parametrize("steps", range(1, 12))
@pytest.mark.parametrize("share", [0.5, 0.1, 0.3, 1 / 3])
def test_shares_that_fit_are_never_refused(steps, share):
    assert schedules.wsd(1.0, steps, share, 1.0 - share if share != 0.5 else 0.5).steps == steps


def test_no_loop_over_a_million_steps():
    shapes = [
        lambda n: schedules.exponential(1.0, n, 0.999999),
        lambda n: schedules.linear(1.0, n),
        lambda n: schedules.cosine(1.0, n),
        lambda n: schedules.inverse_sqrt(1.0, n, 100.0),
        lambda n: schedules.wsd(1.0, n, 0.1, 0.9, "1-sqrt"),
        lambda n: schedules.decaying(1.0, n, 2.0),
    ]
    for make in shapes:
        assert python_steps(lambda make=make: make(10**6)) < 10_000


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


# ---- torch


@pytest.mark.parametrize("beyond", ["hold", "error"])
def test_factors_for_torch(beyond):
    schedule = Schedule([0.5, 0.25], [3, 2], beyond)
    factor = schedule.to_torch(lr=0.5)
    for f in (factor, pickle.loads(pickle.dumps(factor)), copy.deepcopy(factor)):
        assert [f(t) for t in range(6)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
        assert type(f(0)) is float
    assert schedule.to_torch()(0) == 0.5
    if beyond == "hold":
        assert factor(6) == 0.5
    else:
        with pytest.raises(ValueError, match="has 5 steps, got 6"):
            factor(6)


def torch_rates(make, lr, steps):
    """The learning rate of each step of training with a scheduler of torch."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


WITH_TORCH = {
    "constant": (schedules.constant(V, 40), lambda s, o: s.ConstantLR(o, factor=1.0)),
    "step": (schedules.step(V, 40, 7, 0.3), lambda s, o: s.StepLR(o, 7, 0.3)),
    "multistep": (schedules.multistep(V, 40, [9, 20, 20]), lambda s, o: s.MultiStepLR(o, [9, 20, 20])),
    "multistep, at once": (schedules.multistep(V, 40, [0, 5]), lambda s, o: s.MultiStepLR(o, [0, 5])),
    "exponential": (schedules.exponential(V, 40, 0.9), lambda s, o: s.ExponentialLR(o, 0.9)),
    "linear": (schedules.linear(V, 40, 0.1), lambda s, o: s.LinearLR(o, 1.0, 0.1, total_iters=40)),
    "polynomial": (schedules.linear(V, 40), lambda s, o: s.PolynomialLR(o, total_iters=40)),
    "cosine": (schedules.cosine(V, 40, 0.1), lambda s, o: s.CosineAnnealingLR(o, 40, eta_min=0.1 * V)),
    "warmup": (
        schedules.warmup(schedules.constant(V, 30), 10, 0.25),
        lambda s, o: s.LinearLR(o, start_factor=0.25, total_iters=10),
    ),
    "lambda": (
        Schedule.from_function(lambda t: V * 0.95**t, 40),
        lambda s, o: s.LambdaLR(o, lambda t: 0.95**t),
    ),
}


@pytest.mark.parametrize("name", WITH_TORCH)
def test_shapes_are_those_of_torch(name):
    schedule, make = WITH_TORCH[name]
    rates = torch_rates(make, V, schedule.steps)
    np.testing.assert_allclose(every_step(schedule), rates, rtol=1e-12)  # torch multiplies from step to step


@pytest.mark.parametrize("beyond", ["hold", "error"])
def test_training_with_torch(beyond):
    """All steps of the schedule, scheduler.step() after the last one included."""
    schedule = Schedule([0.4, 0.2, 0.05], [3, 5, 2], beyond)
    rates = torch_rates(lambda s, o: s.LambdaLR(o, schedule.to_torch(lr=0.2)), 0.2, schedule.steps)
    np.testing.assert_allclose(rates, spelled(schedule), rtol=1e-15)


def test_checkpoints_of_torch(tmp_path):
    """They hold numbers only, so that torch loads them with its safe default."""
    torch = pytest.importorskip("torch")

    def scheduler():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, TWO.to_torch())

    optimizer, first = scheduler()
    for _ in range(3):
        optimizer.step()
        first.step()
    torch.save(first.state_dict(), tmp_path / "scheduler.pt")
    _, second = scheduler()
    second.load_state_dict(torch.load(tmp_path / "scheduler.pt"))
    assert second.last_epoch == 3
    assert second.get_last_lr() == first.get_last_lr() == [0.01]


# ---- bad input


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
