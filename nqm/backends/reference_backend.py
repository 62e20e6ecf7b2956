"""The readable engine: the mathematics in 32 digits on arrays, which the compiled code is checked against.

Written for any namespace ``xp`` of the Python array API standard: NumPy, or ``array_api_compat.cupy`` on a GPU.

One coordinate of the noisy quadratic under a linear optimizer is z' = M z + b eps, with a state z of k = 1, 2 or 3
numbers. After s steps, z = M^s z_0 + noise of covariance G_s, and both come by doubling from a single step:

    M^2s = M^s M^s,   G_2s = G_s + M^s G_s M^s^T,   M^1 = M,   G_1 = b b^T.

The risk of a coordinate is bias d^2 + noise / B (lr h)^2 g: of d = r . u, how much of the start is left in the mean u,
and g = r^T S r, how much noise has come in. M^s amplifies the rounding of M by s, up to 2^53, so everything is in
double-double numbers, in the filter's own coordinates. (At the far end of critical damping, lr h = (1 + sqrt(m))^2 with
momentum m, M^s is r^s (1 + s K) with K^2 = 0, and rounding errors grow like s^3 10^-32: what is left of the start
after s > 10^7 steps has fewer than 12 digits.) Matrices are arrays (k, k, R, n): rows of
hyperparameters and nodes of the spectrum lie along the last two axes (:mod:`nqm._double_double`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from .._checks import FloatArray, IntArray
from .._double_double import Pair, constant, dot, exact, product, product_transposed, sandwich
from .types import Pieces, Rows, Slopes

Array = Any  # of the namespace

TILE = 2**13
"""Nodes times rows that are computed at once on the CPU: memory is some hundred times as many numbers."""

DEVICE = 2**8
"""Times as many on a GPU, whose calls take long to start."""

HORIZON = 2**53
"""The last step count that a float64 holds exactly."""

LEAPS = 10_000
"""Leaps over time after which a crossing is left to :class:`nqm.backends.first_passage.March`."""

ROUNDING = 2.0**-40
"""By how much of its terms a bound is loosened: far more than they are rounded."""


# --- arrays by rows ----------------------------------------------------------------------------------------------


def _map(function: Any, *trees: Any) -> Any:
    """``function`` of the arrays in pairs, moments or boxes, one by one."""
    first = trees[0]
    if isinstance(first, Pair):
        return Pair(function(*[p.high for p in trees]), function(*[p.low for p in trees]))
    if isinstance(first, tuple):
        return type(first)(*[_map(function, *parts) for parts in zip(*trees, strict=True)])
    return function(*trees)


def _choose(rows: Any, yes: Any, no: Any, xp: Any) -> Any:
    """One or the other, by row."""
    mask = xp.asarray(rows[:, None])
    return _map(lambda a, b: xp.where(mask, a, b), yes, no)


def _take(tree: Any, rows: IntArray, xp: Any) -> Any:
    at = xp.asarray(rows)
    return _map(lambda a: xp.take(a, at, axis=-2), tree)


def _concat(trees: list[Any], xp: Any) -> Any:
    """The rows of one after those of the other."""
    return _map(lambda *a: xp.concat(a, axis=-2), *trees)


def _numpy(x: Array) -> Any:
    return np.asarray(x.get() if hasattr(x, "get") else x)  # CuPy's arrays come to the CPU only when asked


# --- steps and states --------------------------------------------------------------------------------------------


class Moments(NamedTuple):
    """Of s steps: M^s (k, k, R, n) and G_s (k, k, R, n). Of a state: its mean u (k, 1, R, n) and covariance S."""

    mean: Pair
    noise: Pair


def _after(steps: Moments, what: Moments) -> Moments:
    """``steps`` after a state, or after other steps: (M u, G + M S M^T)."""
    return Moments(product(steps.mean, what.mean), steps.noise + sandwich(steps.mean, what.noise))


class Filter(NamedTuple):
    """The arrays of :class:`Rows` that say what a step is; with an average, ``mixture`` is what it is an average of."""

    transition: Pair  # (k, k, R, 1)
    gain: Pair  # (k, 1, R, 1)
    fresh: Pair  # (R, 1)
    query: Pair  # (1, k, 1, 1)
    scaled: IntArray  # (k,)
    mixture: list[float]
    readout: list[float]
    average: bool


def _filter(row: Rows, xp: Any) -> Filter:
    k, readout = len(row.start), row.readout.tolist()
    average = k == 3 and bool(row.fresh[0, 0] > 0.0)

    def pair(parts: FloatArray) -> Pair:  # (R, 2, ...) to (..., R, 1)
        high, low = (np.moveaxis(parts[:, i], 0, -1)[..., None] for i in range(2))
        return Pair(xp.asarray(high), xp.asarray(low))

    return Filter(
        pair(row.transition), pair(row.gain[..., None]), pair(row.fresh), constant(row.query[None, :], xp),
        row.scaled, readout, [0.0, 0.0, 1.0] if average else readout, average,
    )  # fmt: skip


def _one_step(of: Filter, lr: Pair, h: Pair, xp: Any) -> tuple[Pair, Pair]:
    """M (k, k, R, n) and b (k, 1, R, 1) of one step, with states of scaled = 1 in units of lr:

        M_ij = A_ij lr^e - h lr^(1+e) gain_i query_j,   b_i = lr^(1-scaled_i) gain_i,   e = scaled_j - scaled_i.

    These mean the same at any lr, and A feeds no others into them (A_ij = 0 where e < 0). An average then adds up
    fresh times what the new states read out and decay times itself.
    """
    powers = [exact(xp.ones_like(lr.high), xp), lr, lr * lr]

    def raised(exponents: IntArray) -> Pair:
        lines = [[powers[max(e, 0)] for e in line] for line in exponents.tolist()]
        return _map(lambda *x: xp.stack(x), *[_map(lambda *x: xp.stack(x), *line) for line in lines])

    e = of.scaled[None, :] - of.scaled[:, None]
    m = of.transition * raised(e) - h * (product(of.gain, of.query) * raised(1 + e))
    b = of.gain * raised(1 - of.scaled[:, None])
    if of.average:
        taken_in = product(constant([[0.0], [0.0], [1.0]], xp), constant([of.mixture], xp)) * of.fresh
        then = constant(np.eye(3), xp) + taken_in
        m, b = product(then, m), product(then, b)
    return m, b


# --- tiles -------------------------------------------------------------------------------------------------------


class Tile(NamedTuple):
    """R rows on n nodes that are computed at once, as arrays of the namespace."""

    filter: Filter
    start: tuple[float, ...]
    lr: Pair  # (R, 1)
    h: Pair  # (R, n)
    bias: Array  # (n,)
    noise: Array  # (n,)
    inverse_batch: Array  # (R, 1)
    xp: Any

    def first_state(self) -> Moments:
        """z0 without noise."""
        u, k, shape = np.array(self.start)[:, None], len(self.start), self.h.high.shape
        return Moments(constant(u, self.xp, shape), constant(np.zeros((k, k)), self.xp, shape))

    def one_step(self) -> Moments:
        """For noise in units of lr sqrt(c / B): M = A - x gain query^T with x = lr h, and G = gain gain^T."""
        m, b = _one_step(self.filter, exact(self.xp.ones_like(self.lr.high), self.xp), self.lr * self.h, self.xp)
        return Moments(m, exact(self.xp.zeros_like(m.high), self.xp) + product_transposed(b, b))

    def read(self, state: Moments) -> tuple[Array, Array]:
        """d = r . u and g = r^T S r, (R, n)."""
        r, zero = self.filter.readout, exact(self.xp.zeros_like(self.h.high), self.xp)
        g = [dot(r, state.noise[:, i : i + 1, ...], zero) * p for i, p in enumerate(r) if p != 0.0]
        return dot(r, state.mean, zero).high, reduce(Pair.__add__, g, zero).high

    def risks(self, state: Moments) -> Array:
        """Risk of each row, summed over the nodes: (R,)."""
        d, g = self.read(state)
        return self.total(self.weighted(self.bias, d * d) + self.noise_risks(g))

    def noise_risks(self, g: Array) -> Array:
        """noise / B (lr h)^2 g, (R, n)."""
        x = self.lr.high * self.h.high
        return self.weighted(self.noise * self.inverse_batch, x * (x * g))

    def weighted(self, weight: Array, value: Array) -> Array:
        """weight value; nodes without weight add nothing, even to an overflow."""
        return self.xp.where((weight > 0.0) & (value != 0.0), weight * value, self.xp.zeros_like(value))

    def total(self, terms: Array) -> Array:
        """Sum over the last axis by halving: in the same order in any namespace, for any number of rows."""
        while terms.shape[-1] > 1:
            half = terms.shape[-1] // 2
            halves = terms[..., :half] + terms[..., half : 2 * half]
            terms = self.xp.concat([halves, terms[..., 2 * half :]], axis=-1)
        return terms[..., 0]


def _at_once(xp: Any) -> int:
    return TILE * (DEVICE if xp.__name__.endswith("cupy") else 1)


def _tiles(row: Rows, xp: Any) -> Iterator[tuple[slice, Tile]]:
    """A row is cut into the same nodes however many rows there are."""
    nodes = min(row.bias.size, _at_once(xp))
    rows = max(1, _at_once(xp) // nodes)
    for first in range(0, row.lr.size, rows):
        some = slice(first, first + rows)
        for node in range(0, row.bias.size, nodes):
            yield some, _tile(row.part(some), slice(node, node + nodes), xp)


def _tile(row: Rows, nodes: slice, xp: Any) -> Tile:
    lr, h = xp.asarray(row.lr[:, None]), xp.asarray(row.curvature[:, nodes][row.which])
    bias, noise, inverse_batch = (
        xp.asarray(x) for x in (row.bias[nodes], row.noise[nodes], row.inverse_batch[:, None])
    )
    return Tile(_filter(row, xp), row.start, exact(lr, xp), exact(h, xp), bias, noise, inverse_batch, xp)


# --- risks -------------------------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def risk(row: Rows, steps: IntArray, xp: Any = np) -> FloatArray:
    """Expected risk of each row after ``steps`` (R,) steps: (R,)."""
    out = np.zeros(steps.size)
    for rows, tile in _tiles(row, xp):
        power, state = tile.one_step(), tile.first_state()
        for level in range(int(steps[rows].max()).bit_length()):
            power = _after(power, power) if level else power
            state = _choose((steps[rows] >> level) & 1 == 1, _after(power, state), state, xp)
        out[rows] += _numpy(tile.risks(state))
    return np.where(np.isnan(out), np.inf, out)


@np.errstate(all="ignore")
def dyadic_risk(row: Rows, levels: int, xp: Any = np) -> FloatArray:
    """Expected risk after 2^j steps, j = 0 ... levels - 1: (R, levels)."""
    out = np.zeros((row.lr.size, levels))
    for rows, tile in _tiles(row, xp):
        power = tile.one_step()
        for level in range(levels):
            power = _after(power, power) if level else power
            out[rows, level] += _numpy(tile.risks(_after(power, tile.first_state())))
    return np.where(np.isnan(out), np.inf, out)


@np.errstate(all="ignore")
def chained_risk(row: Rows, parts: Pieces, columns: int, xp: Any = np) -> FloatArray:
    """Expected risk along pieces, added up where their column is the same: (R, columns).

    Lr and curvature come scaled by a power of two, so that the largest lr is about 1. Noise is in absolute units.
    """
    out = np.zeros((row.lr.size, columns))
    for rows, tile in _tiles(row, xp):
        state, ones = tile.first_state(), xp.ones_like(tile.inverse_batch)
        noisy = xp.where(tile.inverse_batch > 0.0, ones, xp.zeros_like(ones))  # noise that is not there adds nothing
        absolute = tile._replace(lr=exact(ones, xp), inverse_batch=noisy)
        for lr, inverse_batch, length, column in zip(*(part.tolist() for part in parts), strict=True):
            m, b = _one_step(tile.filter, exact(tile.lr.high * lr, xp), tile.h, xp)
            power = Moments(m, product_transposed(b, b) * (tile.inverse_batch * inverse_batch))
            for level in range(length.bit_length()):
                power = _after(power, power) if level else power
                state = _after(power, state) if length >> level & 1 else state
            if column >= 0:
                out[rows, column] += _numpy(absolute.risks(state))
    return np.where(np.isnan(out), np.inf, out)


@np.errstate(all="ignore")
def slopes(
    curvature: FloatArray, bias: FloatArray, noise: FloatArray, lr: FloatArray, transition: FloatArray,
    gain: FloatArray, fresh: FloatArray, query: FloatArray, readout: FloatArray, start: tuple[float, ...],
    scaled: IntArray, inverse_batch: FloatArray, lengths: IntArray, spans: FloatArray, xp: Any = np,
) -> Slopes:  # fmt: skip
    """Risk after J pieces of one row, and its derivatives by log lr_j, log(1 / batch_j) and V other hyperparameters.

    transition (1 + 2 V, 2, k, k), gain (1 + 2 V, 2, k), fresh (1 + 2 V, 2): the filter, then those at value + span / 2
    and value - span / 2 of each hyperparameter. M and b are polynomials of degree two at most in each and in lr, so
    central differences are derivatives. Lr and curvature come scaled as in :func:`chained_risk`.

    Second moments Q of start and noise together follow Q_j+1 = T Q_j T^T + w G with T = M_j^s, w = noise h^2. The
    risk is v Q_J v^T, v = r^T; pulled back, v_j = v_j+1 T. So what piece j adds is v w G v^T, and its slope
    2 (v dT) Q_j (v T)^T + v w dG v^T.
    """
    pieces, k, values = lr.size, len(start), spans.size
    out = Slopes(0.0, np.zeros(pieces), np.zeros(pieces), np.zeros(values))
    rows = [
        Rows(curvature[None, :], np.zeros(pieces, dtype=np.int64), bias, noise, lr, transition[v : v + 1],
             gain[v : v + 1], fresh[v : v + 1], query, readout, start, inverse_batch, scaled)
        for v in range(1 + 2 * values)
    ]  # fmt: skip
    found, at_once = 0.0, max(1, _at_once(xp) // pieces)
    for first in range(0, bias.size, at_once):  # pieces are the rows of a tile
        tile = _tile(rows[0], slice(first, first + at_once), xp)
        rate, h, share = tile.lr, tile.h, tile.inverse_batch
        m, b = _one_step(tile.filter, rate, h, xp)
        step = Moments(m, product_transposed(b, b) * share)
        changes = [(rate * 1.5, tile.filter, rate * 0.5, tile.filter, 1.0)]  # by log lr, then by values
        for v in range(values):
            up, down = (_filter(rows[2 * v + i], xp) for i in (1, 2))
            changes.append((rate, up, rate, down, float(spans[v])))
        d_step = []
        for rate1, filter1, rate2, filter2, span in changes:
            (m1, b1), (m2, b2) = _one_step(filter1, rate1, h, xp), _one_step(filter2, rate2, h, xp)
            dm, db = (m1 - m2) * (1.0 / span), (b1 - b2) * (1.0 / span)
            d_step.append(Moments(dm, (product_transposed(db, b) + product_transposed(b, db)) * share))

        still = tile.first_state().noise
        leap = Moments(constant(np.eye(k), xp, h.high.shape), still)  # all steps of each piece
        d_leap = [Moments(still, still) for _ in changes]
        for level in range(int(lengths.max()).bit_length()):
            if level:
                d_step = [_after_slope(step, d, step, d) for d in d_step]
                step = _after(step, step)
            taken = (lengths >> level) & 1 == 1
            further = [_after_slope(step, d, leap, e) for d, e in zip(d_step, d_leap, strict=True)]
            d_leap = [_choose(taken, e, d, xp) for e, d in zip(further, d_leap, strict=True)]
            leap = _choose(taken, _after(step, leap), leap, xp)

        w = tile.noise * h.high[:1, ...] * h.high[:1, ...]
        moments = constant(np.outer(start, start), xp, w.shape) * tile.bias
        before, read = [], [constant([tile.filter.readout], xp, w.shape)]
        for j in range(pieces):
            before.append(moments)
            moments = sandwich(leap.mean[:, :, j : j + 1, :], moments) + leap.noise[:, :, j : j + 1, :] * w
        for j in range(pieces - 1, 0, -1):
            read.append(product(read[-1], leap.mean[:, :, j : j + 1, :]))
        q, v = _concat(before, xp), _concat(read[::-1], xp)

        def total(by_node: Pair, tile: Tile = tile) -> FloatArray:
            values = by_node.high[0, 0, ...]
            return _numpy(tile.total(xp.where(tile.bias + tile.noise > 0.0, values, xp.zeros_like(values))))

        found += float(total(sandwich(read[0], moments))[0])
        out.by_log_inverse_batch[:] += total(sandwich(v, leap.noise) * w)
        for i, d in enumerate(d_leap):
            through = product_transposed(product(product(v, d.mean), q), product(v, leap.mean)) * 2.0
            by_piece = total(through + sandwich(v, d.noise) * w)
            if i == 0:
                out.by_log_lr[:] += by_piece
            else:
                out.by_value[i - 1] += by_piece.sum()
    return out._replace(risk=np.inf if np.isnan(found) else found)


def _after_slope(steps: Moments, d_steps: Moments, what: Moments, d_what: Moments) -> Moments:
    """The derivative of ``_after(steps, what)``: (dM A + M dA, dG + dM S M^T + M S dM^T + M dS M^T)."""
    m, dm, s = steps.mean, d_steps.mean, what.noise
    turned = product_transposed(product(dm, s), m) + product_transposed(product(m, s), dm)
    return Moments(product(dm, what.mean) + product(m, d_what.mean), d_steps.noise + turned + sandwich(m, d_what.noise))


# --- when is the target reached? ---------------------------------------------------------------------------------


class Box(NamedTuple):
    """Bounds of each component of vectors, (k, 1, R, n)."""

    least: Array
    most: Array


@np.errstate(all="ignore")
def crossings(row: Rows, targets: FloatArray, last: bool, xp: Any = np) -> FloatArray:
    """First t >= 0 with risk <= target, or (``last``) the step after the last t with risk > target, 0 if there is none.

    inf: not within 2^53 steps, or still above the target then; NaN: not found in LEAPS leaps. Time is crossed in leaps
    of 2^j steps, each taken where `_bounds` prove that the risk stays on one side of the target; else j shrinks, down
    to a single step and the risk itself. All rows go on together, each in its own time. Their powers are kept for every
    j, so rows are cut smaller here, and nodes not at all.
    """
    out = np.empty(targets.size)
    at_once = max(1, _at_once(xp) // (16 * row.bias.size))
    for first in range(0, targets.size, at_once):
        some = slice(first, first + at_once)
        out[some] = _march(_tile(row.part(some), slice(None), xp), targets[some], last)
    return out


def _march(tile: Tile, targets: FloatArray, last: bool) -> FloatArray:
    xp, count = tile.xp, targets.size
    readout = constant([[r] for r in tile.filter.readout], xp, tile.h.high.shape).high
    state, step = tile.first_state(), tile.one_step()
    powers, boxes = [step], [Box(readout, readout)]
    rows, time, level, answer = np.arange(count), *np.zeros((3, count), dtype=np.int64)  # of those still on their way
    out = np.full(count, np.nan)
    for _ in range(LEAPS):
        if not rows.size:
            break
        level = np.minimum(level, np.frexp(np.float64(HORIZON - time))[1] - 1)
        if level.max() + 1 >= len(powers):
            for _ in range(16):
                boxes.append(_wider(boxes[-1], powers[-1], xp))
                powers.append(_after(powers[-1], powers[-1]))
            every_power, every_box = _concat(powers, xp), _concat(boxes, xp)
        power, box = (_take(every, level * count + rows, xp) for every in (every_power, every_box))
        ahead = _after(power, state)
        low, high = (_numpy(x) for x in _bounds(tile, state, ahead, step, box, level == 0))
        above = ~(low <= targets[rows])  # NaN (overflow) lies above every target
        below = last & (np.where(level == 0, low, high) <= targets[rows])
        leap, end = above | below, time + 2**level
        answer = np.where(above, end, answer)
        found = ~leap & (level == 0)  # the first step below
        ended = leap & (end == HORIZON)
        out[rows[found]] = time[found]
        out[rows[ended]] = np.where(above, np.inf, answer)[ended]
        state = _choose(leap, ahead, state, xp)
        time, level = np.where(leap, end, time), level + np.where(leap, 1, -1)
        on = np.flatnonzero(~(found | ended))
        if on.size < rows.size:
            rows, time, level, answer = rows[on], time[on], level[on], answer[on]
            lr, h, inverse_batch, state, step = (
                _take(x, on, xp) for x in (tile.lr, tile.h, tile.inverse_batch, state, step)
            )
            tile = tile._replace(lr=lr, h=h, inverse_batch=inverse_batch)
    return out


def _bounds(tile: Tile, state: Moments, ahead: Moments, step: Moments, box: Box, single: Any) -> tuple[Array, Array]:
    """Bounds (R,) of the risk over a leap from one state up to another; the risk itself where the leap is ``single``.

    The noise part never falls, since every step adds a square: it lies between its values at both ends. So does the
    mean part where it is known to fall or to rise. Elsewhere it is (v . u)^2 with v inside the box.
    """
    xp = tile.xp
    (d, g), (d_ahead, g_ahead) = tile.read(state), tile.read(ahead)
    least, most = (x[0, ...] for x in _inside(state.mean.high, box, xp))
    known, alone = _monotone(tile, step, state), xp.asarray(single[:, None])
    ends = xp.abs(d), xp.abs(d_ahead)
    least = xp.where(alone, d, xp.where(known, xp.minimum(*ends), least))
    most = xp.where(alone, d, xp.where(known, xp.maximum(*ends), most))
    none = xp.zeros_like(d)
    nearest = xp.where(least > 0.0, least, xp.where(most < 0.0, most, none))  # 0 where boxes overflowed to NaN
    nearest = xp.where(xp.isfinite(d), nearest, none + np.inf)
    farthest = xp.maximum(-least, most)
    low = tile.total(tile.weighted(tile.bias, nearest * nearest) + tile.noise_risks(g))
    high = tile.total(tile.weighted(tile.bias, farthest * farthest) + tile.noise_risks(g_ahead))
    return low, high


def _inside(matrix: Array, box: Box, xp: Any) -> Box:
    """Bounds (m, R, n) of sum_i M_ij v_i for v in a box and M (k, m, R, n): intervals, multiplied and added up."""
    p, q = matrix * box.least, matrix * box.most
    rounding = ROUNDING * xp.maximum(xp.abs(p), xp.abs(q))
    bounds = Box(xp.minimum(p, q) - rounding, xp.maximum(p, q) + rounding)
    return _map(lambda x: reduce(lambda a, b: a + b, [x[i, ...] for i in range(x.shape[0])]), bounds)


def _wider(box: Box, power: Moments, xp: Any) -> Box:
    """The readouts v = (M^j)^T r of the next 2s steps j, from those of the next s and M^s: (M^s)^T v, and v itself."""
    later = _map(lambda x: x[:, None, ...], _inside(power.mean.high, box, xp))
    return Box(xp.minimum(box.least, later.least), xp.maximum(box.most, later.most))


def _monotone(tile: Tile, step: Moments, state: Moments) -> Array:
    """(R, n), True where the size of the mean d_t is proved not to rise from a state on, or not to fall.

    k = 1: always. k = 2: d_t = A r1^t + B r2^t with real roots 0 <= r2 <= r1 <= 1 never rises if A >= 0 and
    d_1 <= d_0, because B r2^t only loses weight; with both roots negative the same holds for (-1)^t d_t. An average
    falls as long as it lies above what it averages, if that falls and stays positive. With K = M - m without trace,
    K^2 = q, the roots are m -+ sqrt(q), d_1 = m d_0 + r^T K u, and A >= 0 is d_0 sqrt(q) + r^T K u >= 0.
    """
    xp, m = tile.xp, step.mean
    zero = exact(xp.zeros_like(tile.h.high), xp)
    if len(tile.start) == 1:
        return zero.high == 0.0  # or never falls
    average, r = tile.filter.average, tile.filter.mixture
    if len(tile.start) == 3 and not average:
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
