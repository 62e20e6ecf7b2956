"""From schedules to words: the runs of equal steps that a training is made of."""

from __future__ import annotations

import numpy as np

from .._checks import FloatArray, IntArray
from ..backends.types import Word
from ..schedules import Schedule

__all__ = ["whole_word", "word_until"]


def word_until(lr: Schedule | None, batch_size: Schedule | None, times: IntArray) -> Word:
    """The letters of two schedules (None: 1 throughout) up to the last of ``times`` (increasing), cut at each."""
    total = int(times[-1])
    given = [None if schedule is None else _until(schedule, total) for schedule in (lr, batch_size)]
    ends = [one[1] for one in given if one is not None]
    alone = len(ends) == 1 and times.size == 1
    stops = ends[0] if alone else _union([*ends, times])
    starts = np.zeros_like(stops)
    starts[1:] = stops[:-1]

    def during(values: FloatArray, ends: IntArray) -> FloatArray:
        # a copy, for read-only arrays would compile kernels of their own
        return values.copy() if alone else values[np.searchsorted(ends[:-1], starts, "right")]

    rate, batch = (np.ones(stops.size) if one is None else during(*one) for one in given)
    column = np.searchsorted(times, stops)
    column[times[column] != stops] = -1
    with np.errstate(over="ignore"):  # a batch size below 1e-308: infinitely much noise
        return Word(np.zeros_like(stops), rate, 1.0 / batch, stops - starts, column)


def whole_word(lr: Schedule | None, batch_size: Schedule | None) -> tuple[Word, int]:
    """All letters of two schedules and the step where they end: where a schedule that does not hold stops, or 2^53,
    to which the last letter is held."""
    given = [s for s in (lr, batch_size) if s is not None]
    ends = [s.steps for s in given if s.beyond == "error"]
    longest, end = min([max((s.steps for s in given), default=1), *ends]), min(ends, default=2**53)
    word = word_until(lr, batch_size, np.array([longest]))
    word.repeat[-1] += end - longest
    return word, end


def _union(ordered: list[IntArray]) -> IntArray:
    together = np.sort(np.concatenate(ordered), kind="stable")  # which merges sorted runs
    return together[np.diff(together, prepend=-1) > 0]


def _until(schedule: Schedule, steps: int) -> tuple[FloatArray, IntArray]:
    """Values and ends of the pieces of the first ``steps`` steps; of none, a piece without length."""
    if schedule.beyond == "error" and steps > schedule.steps:
        schedule.cut(steps)  # refuses
    last = min(int(np.searchsorted(schedule.ends, steps)), schedule.pieces - 1)
    ends = schedule.ends[: last + 1].copy()
    ends[-1] = steps
    return schedule.values[: last + 1], ends
