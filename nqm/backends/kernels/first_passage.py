"""When does the risk of a constant map first reach a target, or last exceed it? In leaps that hold no crossing."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..compilation import compiled
from ..types import FilterBatch
from .blocks import BLOCK, POWER_SLOTS, STATE_SLOTS, copy, total
from .bounds import add_leap_bounds, advance_mean, read_mean, widen
from .powers import advance, square
from .risk import add_noise_risk, read_state
from .setup import set_up, set_up_readout
from .step_maps import averages, new_tables, tabulate

__all__ = ["FOUND", "NEVER", "Search", "fill_levels", "first_passage", "first_passage_rows"]

HORIZON = 2**53  # the last step count that a float64 holds exactly
MOST_LEVELS = 54  # leaps of up to 2^53 steps

# What `first_passage` reports.
FOUND, NEVER, MORE_LEVELS, OUT_OF_BUDGET = 0, 1, 2, 3


class Search(NamedTuple):
    """A search over time of one row, which goes on where it stopped.

    powers[j, block] = 2^j steps; boxes[j, block] = bounds of the readouts of every second one of the next 2^j steps.
    Noise carried over from earlier letters of a word is like V means more, one per column of a root of its covariance.
    progress = [steps taken, j of the next leap, answer so far, leaps tried, levels filled].
    """

    powers: Any  # (levels, blocks, slots BLOCK)
    boxes: Any  # (levels, blocks, 2 k BLOCK)
    state: Any  # (blocks, slots BLOCK)
    ahead: Any  # as state: that after a leap
    carried_weight: Any  # (nodes,)
    columns: Any  # (V, blocks, k BLOCK)
    columns_ahead: Any
    progress: Any  # (5,) whole numbers


@compiled
def fill_levels(fields, r, parts, begin, end):
    """Powers and boxes of levels begin <= j < end of row r; those below ``begin`` are there. With ``begin`` = 0 also
    the state before the first step. fields, parts: those of a FilterBatch and of a Search."""
    batch, search = FilterBatch(*fields), Search(*parts)
    k = len(batch.start)
    readout, tables = set_up_readout(batch, r, batch.start), new_tables(k)
    powers, boxes = search.powers, search.boxes
    tabulate(batch, r, 0, 1.0, tables, batch.start)
    for block in range(powers.shape[1]):
        first = block * BLOCK
        count = min(BLOCK, batch.start_weight.size - first)
        h = batch.curvature[batch.power_index[r], first : first + count]
        if begin == 0:
            set_up(batch, r, tables, h, batch.start, powers[0, block], search.state[block], count)
            for i in range(k):
                boxes[0, block, i * BLOCK : i * BLOCK + count] = readout[i]
                boxes[0, block, (k + i) * BLOCK : (k + i) * BLOCK + count] = readout[i]
        for j in range(max(begin, 1), end):
            if j == 1:
                copy(boxes[0, block], boxes[1, block])
            else:
                widen(powers[j - 1, block], boxes[j - 1, block], boxes[j, block], count, batch.start)
            copy(powers[j - 1, block], powers[j, block])
            square(powers[j, block], count, batch.start)
    search.progress[4] = end


@compiled
def first_passage(fields, r, parts, target, last, until, budget):
    """Walk through time in leaps of 2^j steps, each one proved to hold no crossing, until one is found.

    last = False: the first t with risk <= target. last = True: the step after the last t with risk > target.
    A leap over [t, t + 2^j) is taken when bounds prove that the risk stays on one side of the target there;
    otherwise j shrinks, and at j = 0 the bounds are the risk itself. The bounds: the noise part never falls,
    since every step adds a square, so it lies between its values at both ends; the mean part lies between its values
    at both ends where it is known to fall or to rise, and is (v . u)^2 with the readout v inside the box of its level
    elsewhere: of every second step from now, and from the next state on. The search ends at t = until, after ``budget``
    leaps, or where it wants more levels. Returns a status. fields, parts: those of a FilterBatch and of a Search. (In
    one piece: to hand a leap all that it needs would take about as long as the leap.)
    """
    batch, search = FilterBatch(*fields), Search(*parts)
    k = len(batch.start)
    low, high, work = np.empty(BLOCK), np.empty(BLOCK), np.empty((8 + k, BLOCK))
    d, g, after = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    readout, average = set_up_readout(batch, r, batch.start), averages(batch, r, 0, batch.start)
    lr, inverse_batch_size, curvature = batch.lr[r], batch.inverse_batch_size[r], batch.curvature[batch.power_index[r]]
    start_weight, noise_weight, carried_weight = batch.start_weight, batch.noise_weight, search.carried_weight
    powers, boxes, states, aheads = search.powers, search.boxes, search.state, search.ahead
    columns, columns_ahead, progress = search.columns, search.columns_ahead, search.progress
    while budget > 0:
        t, j = progress[0], progress[1]
        while j > 0 and t + (1 << j) > until:
            j -= 1
        if j >= progress[4]:
            return MORE_LEVELS
        budget -= 1
        progress[3] += 1
        low[:] = 0.0
        high[:] = 0.0
        for block in range(powers.shape[1]):
            first = block * BLOCK
            count = min(BLOCK, start_weight.size - first)
            h, c = curvature[first : first + count], noise_weight[first : first + count]
            b, w = start_weight[first : first + count], carried_weight[first : first + count]
            state, ahead, step, power = states[block], aheads[block], powers[0, block], powers[j, block]
            leap = boxes[j, block], readout, average, j == 0, last
            read_state(state, readout, batch.start, d, g, count)
            add_noise_risk(h, c, lr, inverse_batch_size, g, low, count)
            copy(state, ahead)
            advance(power, ahead, count, batch.start)
            read_state(ahead, readout, batch.start, after, g, count)
            if last:
                add_noise_risk(h, c, lr, inverse_batch_size, g, high, count)
            add_leap_bounds(d, state, after, ahead, b, step, leap, low, high, work, count, batch.start)
            for v in range(columns.shape[0]):
                now, then = columns[v, block], columns_ahead[v, block]
                advance_mean(power, now, then, count, k)
                read_mean(now, readout, d, count)
                read_mean(then, readout, after, count)
                add_leap_bounds(d, now, after, then, w, step, leap, low, high, work, count, batch.start)
        lowest = total(low)
        above = not lowest <= target  # NaN (overflow) lies above every target
        below = last and (lowest <= target if j == 0 else total(high) <= target)
        if above and last:
            progress[2] = t + (1 << j)
        if j == 0 and not above and not last:
            progress[2] = t
            return FOUND
        if above or below:
            for block in range(powers.shape[1]):
                copy(aheads[block], states[block])
                for v in range(columns.shape[0]):
                    copy(columns_ahead[v, block], columns[v, block])
            progress[0] = t + (1 << j)
            progress[1] = j + 1
            if progress[0] >= until:
                return NEVER if above else FOUND
        else:
            progress[1] = j - 1
    return OUT_OF_BUDGET


@compiled
def first_passage_rows(fields, target, last, budget, out):
    """out[r] = what `first_passage` finds for row r: a step, inf for never, NaN where ``budget`` leaps are too few.

    fields: those of a FilterBatch. Levels are filled as they are asked for.
    """
    batch = FilterBatch(*fields)
    k = len(batch.start)
    blocks = -(-batch.start_weight.size // BLOCK)
    columns = np.empty((0, blocks, k * BLOCK))
    parts = (
        np.empty((MOST_LEVELS, blocks, POWER_SLOTS[k] * BLOCK)), np.empty((MOST_LEVELS, blocks, 2 * k * BLOCK)),
        np.empty((blocks, STATE_SLOTS[k] * BLOCK)), np.empty((blocks, STATE_SLOTS[k] * BLOCK)),
        batch.noise_weight, columns, columns, np.empty(5, dtype=np.int64),
    )  # fmt: skip
    progress, end = parts[-1], np.int64(HORIZON)
    for r in range(batch.lr.size):
        progress[:] = 0
        status = MORE_LEVELS
        while status == MORE_LEVELS:
            fill_levels(fields, r, parts, progress[4], min(MOST_LEVELS, progress[4] + 4))
            status = first_passage(fields, r, parts, target[r], last, end, budget - progress[3])
        out[r] = float(progress[2]) if status == FOUND else (math.inf if status == NEVER else math.nan)
