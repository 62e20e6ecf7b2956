"""Shapes of schedules against formulas written out with 50 digits, and against torch."""

from __future__ import annotations

import copy
import pickle

import mpmath as mp
import numpy as np
import pytest
from step_values import ROUNDING, TWO, every_step, python_steps, spelled

from nqm import schedules
from nqm.schedules import Schedule

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
