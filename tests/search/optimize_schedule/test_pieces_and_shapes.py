"""The best schedules of a given shape, and how long their pieces are."""

from __future__ import annotations

import numpy as np
import pytest
from schedule_problems import PROBLEM, SMALL, TARGET, lengths_of, soonest

import nqm
from nqm import EMA, FREE, SGD, Schedule, optimize_schedule, schedules

# --- shapes ------------------------------------------------------------------------------------------------

SHAPES = {
    "constant": schedules.constant,
    "cosine": schedules.cosine,
    "linear": schedules.linear,
    "linear to a tenth": lambda value, steps: schedules.linear(value, steps, end=0.1),
    "wsd": schedules.wsd,
    "wsd with warm-up": lambda value, steps: schedules.wsd(value, steps, warmup=0.1, decay=0.5),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("batch", [64, 1024])
def test_the_best_peak_of_a_shape(name, batch):
    """No sooner than free pieces, in proportion to the shape's means, and no other peak is better."""
    pieces, shape = 20, SHAPES[name]
    best = optimize_schedule(PROBLEM, batch, target=TARGET, pieces=pieces, shape=shape)
    assert best.status == "converged"
    assert best.steps >= soonest(0.0, batch, pieces).steps
    for steps in (best.steps - 1, best.steps):
        lengths, every = lengths_of(steps, pieces), shape(1.0, steps)(np.arange(steps))
        means = np.add.reduceat(every, np.cumsum(lengths) - lengths) / lengths
        if steps == best.steps:
            found = best.schedule(np.cumsum(lengths) - lengths)
            assert found / found.max() == pytest.approx(means / means.max(), rel=1e-9)
        peaks = np.geomspace(1e-3, 2.0, 150)
        risks = [nqm.risk(PROBLEM, SGD(Schedule(peak * means, lengths)), batch, steps) for peak in peaks]
        assert min(risks) > (TARGET if steps < best.steps else best.risk * (1.0 - 1e-9))
        assert min(risks) < TARGET * 1.01


@pytest.mark.parametrize("batch", [16, 256, 4096])
def test_the_constant_shape_is_the_tuned_learning_rate(batch):
    best = optimize_schedule(PROBLEM, batch, target=TARGET, pieces=10, shape=schedules.constant)
    tuned = nqm.tune(PROBLEM, SGD(FREE), batch, TARGET)
    assert best.steps == tuned.steps
    assert np.ptp(best.schedule.values) <= 1e-12 * best.schedule.values.max()
    assert best.risk == pytest.approx(tuned.risk, rel=1e-9)


@pytest.mark.parametrize("optimizer", [SGD(FREE, FREE), EMA(SGD(FREE), FREE)], ids=str)
def test_a_shape_beside_momentum_or_averages(optimizer):
    best = optimize_schedule(PROBLEM, 1024, target=TARGET, pieces=5, optimizer=optimizer, shape=schedules.cosine)
    free = optimize_schedule(PROBLEM, 1024, target=TARGET, pieces=5, optimizer=optimizer)
    plain = optimize_schedule(PROBLEM, 1024, target=TARGET, pieces=5, shape=schedules.cosine)
    assert free.steps <= best.steps <= plain.steps


def test_shapes_that_rise_stay_within_the_bound():
    def rising(value, steps):
        return schedules.linear(value, steps, end=3.0)

    best = optimize_schedule(SMALL, 1000, steps=10, pieces=10, max_lr=0.1, shape=rising)
    assert best.schedule.values.max() <= 0.1 * (1.0 + 1e-12)


WRONG_SHAPES = {
    "a number": lambda value, steps: value,
    "None": lambda value, steps: None,
    "a list": lambda value, steps: [value] * steps,
    "one step more": lambda value, steps: schedules.cosine(value, steps + 1),
    "one step less": lambda value, steps: schedules.cosine(value, steps - 1),
}


@pytest.mark.parametrize("name", WRONG_SHAPES)
@pytest.mark.parametrize("aim", [{"steps": 40}, {"target": 0.05}], ids=str)
def test_what_is_no_shape(name, aim):
    with pytest.raises(TypeError, match=r"^shape: expected a function \(value, steps\) -> Schedule of \d+ steps, got "):
        optimize_schedule(SMALL, 4, pieces=4, shape=WRONG_SHAPES[name], **aim)


# --- pieces ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relative", "steps", "lengths"),
    [
        ([1, 2, 1], 100, [25, 50, 25]),
        ([0.1, 0.1, 0.2], 40, [10, 10, 20]),
        ([3.0, 1.0], 4, [3, 1]),
        ((1, 1, 1), 10, [3, 3, 4]),
        (np.array([1e300, 1e300]), 10, [5, 5]),
        ([7], 10, [10]),
        (np.int64(4), 10, [2, 3, 2, 3]),
    ],
    ids=str,
)
def test_lengths_of_pieces(relative, steps, lengths):
    best = optimize_schedule(SMALL, 4, steps=steps, pieces=relative)
    assert best.schedule.lengths.tolist() == lengths


def test_relative_lengths_are_what_is_optimised():
    """Pieces that can make up one another's: shorter ones at the end are never worse; equal ones are a number."""
    long, short = (optimize_schedule(SMALL, 4, target=0.03, pieces=p) for p in ([2, 1, 1], [2, 1, 0.5, 0.5]))
    assert short.steps <= long.steps
    assert long.schedule.lengths.tolist() == pytest.approx(long.steps * np.array([0.5, 0.25, 0.25]), abs=1.0)
    equal, number = (optimize_schedule(SMALL, 4, target=0.03, pieces=p) for p in ([1, 1, 1, 1], 4))
    assert equal == number


def test_with_fewer_steps_than_pieces_each_step_is_one():
    many, few = (optimize_schedule(SMALL, 100, target=0.1, pieces=pieces) for pieces in (1000, 10))
    assert many.steps == few.steps < 10
    assert many.risk == pytest.approx(few.risk, rel=1e-9)
