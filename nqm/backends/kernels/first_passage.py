"""When does the risk of a constant map first reach a target, or last exceed it? In leaps that hold no crossing."""

from __future__ import annotations

import math

import numpy as np

from ..compilation import compiled
from .blocks import BLOCK, POWER_SLOTS, STATE_SLOTS, copy, total
from .bounds import add_leap_bounds, advance_mean, read_mean, widen
from .powers import advance, square
from .risk import add_noise_risk, read_state
from .setup import set_up, set_up_readout

HORIZON = 2**53  # the last step count that a float64 holds exactly
MOST_LEVELS = 54  # leaps of up to 2^53 steps

# What `first_passage` reports.
FOUND, NEVER, MORE_LEVELS, OUT_OF_BUDGET = 0, 1, 2, 3


@compiled
def fill_levels(
    curvature, lr, transition, gain, fresh, query, readout, start, powers, boxes, origin, begin, end
):  # fmt: skip
    """powers[j, block] = 2^j steps; boxes[j, block] = the readouts of every second one of the next 2^j steps, from now
    on; origin[block] = state at 0. Levels begin <= j < end; those below ``begin`` are there."""
    k = len(start)
    read = set_up_readout(readout, fresh[0], start)
    for block in range(powers.shape[1]):
        first = block * BLOCK
        count = min(BLOCK, curvature.size - first)
        h = curvature[first : first + count]
        if begin == 0:
            set_up(h, lr, transition, gain, query, fresh, readout, start, powers[0, block], origin[block], count)
            for i in range(k):
                boxes[0, block, i * BLOCK : i * BLOCK + count] = read[i]
                boxes[0, block, (k + i) * BLOCK : (k + i) * BLOCK + count] = read[i]
        for j in range(max(begin, 1), end):
            if j == 1:
                copy(boxes[0, block], boxes[1, block])
            else:
                widen(powers[j - 1, block], boxes[j - 1, block], boxes[j, block], count, start)
            copy(powers[j - 1, block], powers[j, block])
            square(powers[j, block], count, start)


@compiled
def first_passage(
    curvature, bias, noise, carried, lr, fresh, readout, start, inverse_batch, powers, boxes, state, ahead, extra,
    extra_ahead, target, last, until, progress, budget,
):  # fmt: skip
    """Walk through time in leaps of 2^j steps, each one proved to hold no crossing, until one is found.

    last = False: the first t with risk <= target. last = True: the step after the last t with risk > target.
    A leap over [t, t + 2^j) is taken when bounds prove that the risk stays on one side of the target there;
    otherwise j shrinks, and at j = 0 the bounds are the risk itself. The bounds: the noise part never falls,
    since every step adds a square, so it lies between its values at both ends; the mean part lies between its values
    at both ends where it is known to fall or to rise, and is (v . u)^2 with the readout v inside the box of its level
    elsewhere: of every second step from now, and from the next state on.
    Noise carried over from earlier pieces of a schedule is like V means more, one a column of a root of its covariance:
    extra (V, blocks, k BLOCK), of weight carried (nodes,). The walk ends at t = until.
    progress = [t, j, answer so far, leaps tried], so that a walk goes on where it stopped (budget spent, or more levels
    wanted). Returns a status.
    """
    k = len(start)
    low, high = np.empty(BLOCK), np.empty(BLOCK)
    d, g, after, work = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty((8 + k, BLOCK))
    read = set_up_readout(readout, fresh, start)
    while budget > 0:
        t, j = progress[0], progress[1]
        while j > 0 and t + (1 << j) > until:
            j -= 1
        if j >= powers.shape[0]:
            return MORE_LEVELS
        budget -= 1
        progress[3] += 1
        low[:] = 0.0
        high[:] = 0.0
        for block in range(powers.shape[1]):
            first = block * BLOCK
            count = min(BLOCK, curvature.size - first)
            h, b, c = curvature[first : first + count], bias[first : first + count], noise[first : first + count]
            w = carried[first : first + count]
            read_state(state[block], read, start, d, g, count)
            add_noise_risk(h, c, lr, inverse_batch, g, low, count)
            copy(state[block], ahead[block])
            advance(powers[j, block], ahead[block], count, start)
            read_state(ahead[block], read, start, after, g, count)
            if last:
                add_noise_risk(h, c, lr, inverse_batch, g, high, count)
            step, box = powers[0, block], boxes[j, block]
            single = j == 0
            add_leap_bounds(
                d, state[block], after, ahead[block], b, box, step, read, fresh, start, single, last, low, high, work,
                count,
            )  # fmt: skip
            for v in range(extra.shape[0]):
                advance_mean(powers[j, block], extra[v, block], extra_ahead[v, block], count, k)
                read_mean(extra[v, block], read, d, count)
                read_mean(extra_ahead[v, block], read, after, count)
                add_leap_bounds(
                    d, extra[v, block], after, extra_ahead[v, block], w, box, step, read, fresh, start, single, last,
                    low, high, work, count,
                )  # fmt: skip
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
                copy(ahead[block], state[block])
                for v in range(extra.shape[0]):
                    copy(extra_ahead[v, block], extra[v, block])
            progress[0] = t + (1 << j)
            progress[1] = j + 1
            if progress[0] >= until:
                return NEVER if above else FOUND
        else:
            progress[1] = j - 1
    return OUT_OF_BUDGET


@compiled
def first_passage_rows(
    curvature, which, bias, noise, lr, transition, gain, fresh, query, readout, start, inverse_batch, targets, last,
    budget, out,
):  # fmt: skip
    """out[r] = what `first_passage` finds for row r: a step, inf for never, NaN where ``budget`` leaps are too few.

    As `risk_rows`, with targets: (rows,). Levels are filled as they are asked for.
    """
    k = len(start)
    blocks = -(-bias.size // BLOCK)
    powers = np.empty((MOST_LEVELS, blocks, POWER_SLOTS[k] * BLOCK))
    boxes = np.empty((MOST_LEVELS, blocks, 2 * k * BLOCK))
    origin = np.empty((blocks, STATE_SLOTS[k] * BLOCK))
    ahead = np.empty((blocks, STATE_SLOTS[k] * BLOCK))
    extra = np.empty((0, blocks, k * BLOCK))
    progress, end = np.empty(4, dtype=np.int64), np.int64(HORIZON)
    for r in range(lr.size):
        h = curvature[which[r]]
        progress[:] = 0
        filled, status = progress[0], MORE_LEVELS
        while status == MORE_LEVELS:
            wanted = min(MOST_LEVELS, filled + 4)
            fill_levels(
                h, lr[r], transition[r], gain[r], fresh[r], query, readout, start, powers, boxes, origin, filled, wanted
            )
            filled = wanted
            status = first_passage(
                h, bias, noise, noise, lr[r], fresh[r, 0], readout, start, inverse_batch[r], powers[:filled],
                boxes[:filled], origin, ahead, extra, extra, targets[r], last, end, progress,
                budget - progress[3],
            )  # fmt: skip
        out[r] = float(progress[2]) if status == FOUND else (math.inf if status == NEVER else math.nan)
