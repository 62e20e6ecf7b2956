"""When is the target reached? For many rows at once, each in its own time, and for one row along a word."""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from ..._checks import FloatArray
from ..._double_double import Pair, constant, dot, exact, product
from ..._status import TooManyLeaps
from ..types import FilterBatch, Word
from ..zero_lr import first_passage_at_zero_lr
from .risk import absolute, letter_step, take_steps
from .tiles import Array, Moments, Tile, after, at_once, choose, concat, map_tree, take, tile_of, to_numpy

HORIZON = 2**53
"""The last step count that a float64 holds exactly."""

LEAPS = 100_000
"""Leaps over time after which a search ends without an answer."""

SHORT = 64
"""Letters up to this length are searched step by step."""

ROUNDING = 2.0**-40
"""By how much of its terms a bound is loosened: far more than they are rounded."""


class Box(NamedTuple):
    """Bounds of each component of vectors, (k, 1, R, n)."""

    least: Array
    most: Array


@np.errstate(all="ignore")
def first_passage(batch: FilterBatch, target_risks: FloatArray, last: bool, xp: Any = np) -> FloatArray:
    """First t >= 0 with risk <= target_risk, or (``last``) the step after the last t with risk > target_risk.

    0: the risk is never above. inf: not within 2^53 steps, or still above the target then. Time is crossed in leaps of
    2^j steps, each taken where `_bounds` prove that the risk stays on one side of the target; else j shrinks, down to a
    single step and the risk itself. All rows go on together, each in its own time. Their powers are kept for every j,
    so rows are cut smaller here, and nodes not at all. Raises TooManyLeaps.
    """
    out = np.empty(target_risks.size)
    rows = max(1, at_once(xp) // (16 * batch.start_weight.size))
    for first in range(0, target_risks.size, rows):
        some = slice(first, first + rows)
        tile = tile_of(batch.part(some), slice(None), xp)
        out[some] = _search(tile, tile.first_state(), [tile.start_weight], target_risks[some], last, HORIZON)
    return out


def _search(
    tile: Tile, state: Moments, weights: list[Array], target_risks: FloatArray, last: bool, until: int
) -> FloatArray:
    """The search from a state on, for ``until`` steps. The mean may have more columns, each with its weight (n,): what
    noise that came in earlier is like."""
    xp, count = tile.xp, target_risks.size
    readout = constant([[r] for r in tile.filter.readout], xp, tile.h.high.shape).high
    step = tile.one_step()
    powers, boxes = [step], [Box(readout, readout)]
    rows, time, level, answer = np.arange(count), *np.zeros((3, count), dtype=np.int64)  # of those still on their way
    out = np.full(count, np.nan)
    for _ in range(LEAPS):
        if not rows.size:
            return out
        level = np.minimum(level, np.frexp(np.float64(until - time))[1] - 1)
        if level.max() + 1 >= len(powers):
            for _ in range(16):
                boxes.append(_wider(boxes[-1], powers[-1], xp))
                powers.append(after(powers[-1], powers[-1]))
            every_power, every_box = concat(powers, xp), concat(boxes, xp)
        power, box = (take(every, level * count + rows, xp) for every in (every_power, every_box))
        ahead = after(power, state)
        low, high = (to_numpy(x) for x in _bounds(tile, weights, state, ahead, step, box, level == 0))
        above = ~(low <= target_risks[rows])  # NaN (overflow) lies above every target
        below = last & (np.where(level == 0, low, high) <= target_risks[rows])
        leap, end = above | below, time + 2**level
        answer = np.where(above, end, answer)
        found = ~leap & (level == 0)  # the first step below
        ended = leap & (end == until)
        out[rows[found]] = time[found]
        out[rows[ended]] = np.where(above, np.inf, answer)[ended]
        state = choose(leap, ahead, state, xp)
        time, level = np.where(leap, end, time), level + np.where(leap, 1, -1)
        on = np.flatnonzero(~(found | ended))
        if on.size < rows.size:
            rows, time, level, answer = rows[on], time[on], level[on], answer[on]
            lr, h, inverse_batch_size, state, step = (
                take(x, on, xp) for x in (tile.lr, tile.h, tile.inverse_batch_size, state, step)
            )
            tile = tile._replace(lr=lr, h=h, inverse_batch_size=inverse_batch_size)
    if rows.size:
        raise TooManyLeaps(float(target_risks[rows[0]]), int(time[0]), LEAPS)
    return out


def _bounds(
    tile: Tile, weights: list[Array], state: Moments, ahead: Moments, step: Moments, box: Box, single: Any
) -> tuple[Array, Array]:
    """Bounds (R,) of the risk over a leap from one state up to another; the risk itself where the leap is ``single``.

    The noise part never falls, since every step adds a square: it lies between its values at both ends. So does the
    part of each mean where that is known to fall or to rise. Elsewhere it is (v . u)^2 with v inside the box.
    """
    xp = tile.xp
    (_, g), (_, g_ahead) = tile.read(state), tile.read(ahead)
    low, high, alone = tile.noise_risks(g), tile.noise_risks(g_ahead), xp.asarray(single[:, None])
    for column, weight in enumerate(weights):
        now, then = (Moments(s.mean[:, column : column + 1, ...], s.noise) for s in (state, ahead))
        (d, _), (d_ahead, _) = tile.read(now), tile.read(then)
        least, most = (x[0, ...] for x in _inside(now.mean.high, box, xp))
        known = _monotone(tile, step, now)
        ends = xp.abs(d), xp.abs(d_ahead)
        least = xp.where(alone, d, xp.where(known, xp.minimum(*ends), least))
        most = xp.where(alone, d, xp.where(known, xp.maximum(*ends), most))
        none = xp.zeros_like(d)
        nearest = xp.where(least > 0.0, least, xp.where(most < 0.0, most, none))  # 0 where boxes overflowed to NaN
        nearest = xp.where(xp.isfinite(d), nearest, none + np.inf)
        farthest = xp.maximum(-least, most)
        low = tile.weighted(weight, nearest * nearest) + low
        high = tile.weighted(weight, farthest * farthest) + high
    return tile.total(low), tile.total(high)


def _inside(matrix: Array, box: Box, xp: Any) -> Box:
    """Bounds (m, R, n) of sum_i M_ij v_i for v in a box and M (k, m, R, n): intervals, multiplied and added up."""
    p, q = matrix * box.least, matrix * box.most
    rounding = ROUNDING * xp.maximum(xp.abs(p), xp.abs(q))
    bounds = Box(xp.minimum(p, q) - rounding, xp.maximum(p, q) + rounding)
    return map_tree(lambda x: reduce(lambda a, b: a + b, [x[i, ...] for i in range(x.shape[0])]), bounds)


def _wider(box: Box, power: Moments, xp: Any) -> Box:
    """The readouts v = (M^j)^T r of the next 2s steps j, from those of the next s and M^s: (M^s)^T v, and v itself."""
    later = map_tree(lambda x: x[:, None, ...], _inside(power.mean.high, box, xp))
    return Box(xp.minimum(box.least, later.least), xp.maximum(box.most, later.most))


def _monotone(tile: Tile, step: Moments, state: Moments) -> Array:
    """(R, n), True where the size of the mean d_t is proved not to rise from a state on, or not to fall.

    k = 1: always. k = 2: d_t = A r1^t + B r2^t with real roots 0 <= r2 <= r1 <= 1 never rises if A >= 0 and
    d_1 <= d_0, because B r2^t only loses weight; with both roots negative the same holds for (-1)^t d_t. An average
    of two states falls as long as it lies above what it averages, if that falls and stays positive. With K = M - m
    without trace, K^2 = q, the roots are m -+ sqrt(q), d_1 = m d_0 + r^T K u, and A >= 0 is d_0 sqrt(q) + r^T K u >= 0.
    """
    xp, m = tile.xp, step.mean
    zero = exact(xp.zeros_like(tile.h.high), xp)
    if len(tile.start) == 1:
        return zero.high == 0.0  # or never falls
    average, r = tile.filter.average, tile.filter.mixture
    if len(tile.start) > 3 or (len(tile.start) == 3 and not average):
        return zero.high > 0.0
    half, gap = (m[0, 0, ...] + m[1, 1, ...]) * 0.5, (m[0, 0, ...] - m[1, 1, ...]) * 0.5
    root = xp.sqrt((gap * gap + m[0, 1, ...] * m[1, 0, ...]).high)  # NaN: complex roots
    now, then = dot(r, state.mean, zero), dot(r, product(m, state.mean), zero)
    middle, d, turn = half.high, now.high, (then - half * now).high
    if not average:
        turn = xp.where((middle < 0.0) ^ (d < 0.0), -turn, turn)
        middle, d = xp.abs(middle), xp.abs(d)
    falls = (root <= middle) & (middle + root <= 1.0) & (d >= 0.0) & (middle * d + turn <= d)
    falls = falls & (d * root + turn >= ROUNDING * (d * root + xp.abs(turn)))
    return falls & (middle * d + turn <= state.mean.high[2, 0, ...]) if average else falls


# --- along a word ------------------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def first_passage_along(
    whole: FilterBatch, word: Word, end: int, resting_decay: float | None, target_risk: float, last: bool
) -> float:
    """The same for one row along a word, for steps before ``end`` (2^53 where its last letter holds).

    resting_decay: decay of the average (0: none) of an optimizer whose iterate stays where it is while lr = 0; else
    None. Raises TooManyLeaps.
    """
    batch = whole.in_units(word.lr.max())
    tile = tile_of(batch, slice(None), np)
    state, reader, time, answer = tile.first_state(), absolute(tile), 0, 0.0
    for j, length in enumerate(word.repeat.tolist()):
        step = letter_step(tile, batch, word, j)
        if length <= SHORT:
            state, found = _step_by_step(reader, step, state, target_risk, last, length)
        else:
            if word.lr[j] == 0.0 and resting_decay is not None:  # no bound can tell that it does
                found = first_passage_at_zero_lr(_moments(reader, state), resting_decay, target_risk, last, length)
            else:
                try:
                    found = _from(batch.letter(word, j), state, target_risk, last, length)
                except TooManyLeaps as error:
                    raise TooManyLeaps(target_risk, time + error.steps, error.leaps) from None
            if np.isinf(found) and end == HORIZON and j + 1 == word.repeat.size:
                return found
            found = float(length) if last and np.isinf(found) else found
            state = take_steps(step, state, length)
        if not last and np.isfinite(found):
            return time + found
        answer = time + found if last and found > 0.0 else answer
        time += length
    return answer if last else np.inf


def _step_by_step(
    reader: Tile, step: Moments, state: Moments, target_risk: float, last: bool, length: int
) -> tuple[Moments, float]:
    """The state after a letter, and what is found on the way: of the first passage inf if there is none."""
    answer = 0.0 if last else np.inf
    for t in range(length):
        above = not float(reader.risks(state)[0]) <= target_risk
        if above and last:
            answer = t + 1.0
        elif not above and not last:
            return state, float(t)
        state = after(step, state)
    return state, answer


def _from(batch: FilterBatch, state: Moments, target_risk: float, last: bool, length: int) -> float:
    """The search along a letter, the one row of ``batch``, from a state with velocities in units of lr on.

    Noise that is there already is like more means, the columns of a root of its covariance.
    """
    tile, k = tile_of(batch, slice(None), np), len(batch.start)
    size = np.where(batch.lr_scaled > 0, batch.lr[0], 1.0)[:, None, None, None]
    columns = _root(state.noise.high) * size
    mean = Pair(*(np.concatenate([part, more], axis=1) for part, more in zip(
        ((state.mean * size).high, (state.mean * size).low), (columns, np.zeros_like(columns)), strict=True
    )))  # fmt: skip
    there = batch.noise_weight * np.square(tile.h.high[0]) * (batch.inverse_batch_size[0] > 0.0)
    weights = [batch.start_weight, *[there] * k]
    first = Moments(mean, tile.first_state().noise)
    return float(_search(tile, first, weights, np.array([target_risk]), last, length)[0])


def _root(covariance: Array) -> Array:
    """The lower Cholesky factor of matrices (k, k, R, n); columns without variance are 0."""
    root = np.zeros_like(covariance)
    for v in range(len(root)):
        rest = covariance[v:, v] - np.sum(root[v:, :v] * root[v, :v], axis=1)
        pivot = np.sqrt(np.maximum(rest[0], 0.0))
        root[v:, v] = np.where(pivot > 0.0, rest / np.where(pivot > 0.0, pivot, 1.0), 0.0)
        root[v, v] = pivot
    return root


def _moments(reader: Tile, state: Moments) -> FloatArray:
    """Second moments (k, k), summed over the nodes to make risks."""
    k, mean = len(reader.start), state.mean.high
    noise = reader.noise_weight * reader.inverse_batch_size * np.square(reader.h.high)
    found = np.empty((k, k))
    for i in range(k):
        for j in range(k):
            parts = reader.weighted(reader.start_weight, mean[i, 0] * mean[j, 0])
            found[i, j] = np.sum(parts + reader.weighted(noise, state.noise.high[i, j]))
    return found
