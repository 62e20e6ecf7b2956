"""Schedules where they are too short, do not belong, or hold what they must not."""

from __future__ import annotations

import math

import pytest
from scheduled_cases import SAME, SPECTRUM

import nqm
from nqm.schedules import Schedule

ENDS = Schedule([0.1, 0.01], [3, 2], beyond="error")
HOLDS = Schedule([0.1, 0.01], [3, 2])
STOPS = Schedule([0.1, 0.0], [3, 2])
SHOWN = "Schedule(2 pieces, 5 steps, 0.01 to 0.1)"


def risk(optimizer=nqm.SGD(HOLDS), batch_size=4, steps=5):  # noqa: B008 - immutable
    return nqm.risk(SPECTRUM, optimizer, batch_size, steps)


def steady(optimizer=nqm.SGD(HOLDS), batch_size=4):  # noqa: B008 - immutable
    return nqm.steady_state_risk(SPECTRUM, optimizer, batch_size)


def crossing(optimizer=nqm.SGD(HOLDS), batch_size=4, target=0.1):  # noqa: B008 - immutable
    return nqm.steps_to_target(SPECTRUM, optimizer, batch_size, target)


def simulate(optimizer=nqm.SGD(HOLDS), batch_size=4, steps=5):  # noqa: B008 - immutable
    return nqm.simulate(SPECTRUM, optimizer, batch_size, steps, runs=2)


ONLY = f"expected numbers, got {SHOWN}; only lr and batch_size can follow a schedule"
POSITIVE = "batch_size: expected a schedule of positive numbers, got Schedule(2 pieces, 5 steps, 0 to 0.1)"
SHORT = "steps: expected at most the 5 steps of the schedule, got 6"

SAYS = [
    # too short
    (lambda: risk(nqm.SGD(ENDS), steps=6), ValueError, SHORT),
    (lambda: risk(nqm.SGD(ENDS, 0.5), steps=[[6], [1]]), ValueError, SHORT),
    (lambda: risk(batch_size=ENDS, steps=[1, 6]), ValueError, SHORT),
    (lambda: risk(nqm.SGD(ENDS), batch_size=HOLDS, steps=6), ValueError, SHORT),
    (lambda: simulate(nqm.EMA(nqm.SGD(ENDS), 0.5), steps=[2, 6]), ValueError, SHORT),
    (lambda: simulate(batch_size=ENDS, steps=6), ValueError, SHORT),
    (lambda: steady(nqm.SGD(ENDS)), ValueError, "expected a schedule that holds its last value"),
    (lambda: steady(batch_size=ENDS), ValueError, "expected a schedule that holds its last value"),
    # 0 as batch size, or as the last learning rate where there is no steady state
    (lambda: risk(batch_size=STOPS), ValueError, POSITIVE),
    (lambda: steady(batch_size=STOPS), ValueError, POSITIVE),
    (lambda: crossing(batch_size=STOPS), ValueError, POSITIVE),
    (lambda: simulate(batch_size=STOPS), ValueError, POSITIVE),
    (lambda: steady(nqm.SGD(STOPS)), ValueError, "lr: expected a schedule that ends above 0 for a steady state, got"),
    # where numbers are needed
    (lambda: nqm.SGD(0.1, HOLDS), TypeError, f"momentum: {ONLY}"),
    (lambda: nqm.EMA(nqm.SGD(0.1), HOLDS), TypeError, f"decay: {ONLY}"),
    (lambda: nqm.Preconditioned(nqm.SGD(0.1), HOLDS), TypeError, f"power: {ONLY}"),
    (lambda: nqm.SGD(HOLDS).with_values(momentum=HOLDS), TypeError, f"momentum: {ONLY}"),
    (lambda: risk(steps=HOLDS), TypeError, "steps: expected"),
    (lambda: crossing(target=HOLDS), TypeError, "target: expected"),
    (lambda: risk(HOLDS), TypeError, "optimizer: expected an optimizer such as nqm.SGD(0.1), got Schedule("),
    (lambda: nqm.LinearOptimizer(0.1, HOLDS, [1.0]), TypeError, "transition: expected"),
    (lambda: nqm.NoisyQuadratic(HOLDS), TypeError, "curvature: expected"),
    # many schedules
    (lambda: nqm.SGD([HOLDS, HOLDS]), TypeError, "lr: expected finite real numbers in (0, inf), got [Schedule("),
    (lambda: risk(batch_size=[HOLDS]), TypeError, "batch_size: expected real numbers in"),
    (lambda: simulate(batch_size=(HOLDS, HOLDS)), TypeError, "batch_size: expected real numbers in (0, inf]"),
    # what no schedule can hold
    (lambda: nqm.SGD(Schedule([0.1, math.nan], 1)), ValueError, "values: expected finite real"),
    (lambda: nqm.SGD(Schedule([0.1, -0.1], 1)), ValueError, "values: expected finite real"),
    (lambda: risk(batch_size=Schedule([1, math.inf], 1)), ValueError, "values: expected finite real"),
    # the other arguments are checked as ever
    (lambda: risk(batch_size=-4), ValueError, "batch_size: expected real numbers in (0, inf], got -4"),
    (lambda: risk(steps=-1), ValueError, "steps: expected"),
    (lambda: crossing(target=-1.0), ValueError, "target: expected"),
    (lambda: risk(nqm.SGD(HOLDS, nqm.FREE)), TypeError, "momentum is nqm.FREE"),
    (lambda: nqm.tune(SPECTRUM, nqm.SGD(HOLDS), 4, 0.1), ValueError, "expected nqm.FREE for at least one of"),
]


@pytest.mark.parametrize(("call", "kind", "words"), SAYS, ids=[f"{i} {words}" for i, (_, _, words) in enumerate(SAYS)])
def test_what_was_expected_and_what_came(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_schedule_is_long_enough_up_to_its_end():
    assert math.isfinite(risk(nqm.SGD(ENDS), ENDS * 100.0, steps=5))
    assert simulate(nqm.SGD(ENDS), ENDS * 100.0, steps=5).losses.shape == (2, 1)
    assert risk(nqm.SGD(STOPS), steps=10**9) == pytest.approx(risk(nqm.SGD(STOPS), steps=3), rel=SAME)
