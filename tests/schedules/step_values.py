"""The values of a schedule step by step, and how much Python that takes, for the tests beside this file."""

from __future__ import annotations

import sys

import numpy as np

from nqm.schedules import Schedule

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
