"""Noise that grows with the loss: the same questions as :mod:`nqm.dynamics.additive` answers, for Gaussian features.

A step's noise has variance (h (label_noise + 2 L) + h^2 E[d^2]) / B on a coordinate, with d and L those of the point
where the gradient is taken. So the second moments of all nodes obey one linear recursion, block by block but for L, a
single number that all of them add to and all of them feel:

    y' = A y + u label_noise,   A = 1 - D + u v^T,

where y holds the upper triangles of mult h E[z z^T] / 2 of each node, so that the risk is a sum over y. Few steps are
walked; many are taken by squaring A.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._checks import FloatArray, IntArray
from .._status import TooManyLeaps
from ..backends import current_backend
from ..backends.types import FilterBatch, MomentRecursion, Word
from ..backends.zero_lr import first_passage_at_zero_lr
from . import additive

if TYPE_CHECKING:
    from ..optimizers import Optimizer
    from ..problems.quadratic import NoisyQuadratic
    from ..schedules import Schedule

KEPT = 1100
"""Powers of matrices up to this size are kept for later; larger ones would fill the memory."""

EXPLICIT_NODES = 256
"""Explicit problems of more nodes are compressed first."""

MOST_NODES = 1024
"""Finer rules are not tried: their matrices are too large."""

LEAP = 1e5
"""Nanoseconds that a leap takes at least."""

MOST = 3e10
"""Nanoseconds, as far as they are known beforehand, for which a search for a crossing goes on."""


def risk(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, steps: IntArray
) -> FloatArray:
    """Expected risk, one a row: values, batch_size are numbers or (R,), steps is (R,)."""
    rows = _rows(problem, optimizer, values, batch_size, steps.size)
    return np.array([rows.recursion(r).after(int(t)) for r, t in enumerate(steps)])


def dyadic_risk(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, count: int, levels: int
) -> FloatArray:
    """Expected risk after 2^j steps, j = 0 ... levels - 1: shape (count, levels)."""
    rows = _rows(problem, optimizer, values, batch_size, count)
    out = np.empty((count, levels))
    for r in range(count):
        one = rows.recursion(r)
        state, time = one.start(), 0
        for j in range(levels):
            state, time = one.advance(state, 2**j - time), 2**j
            out[r, j] = one.risk(state)
            if np.isinf(out[r, j]):  # it has diverged for good
                out[r, j:] = np.inf
                break
    return out


def chained_risk(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    values: Mapping[str, Any],
    batch_size: Any,
    count: int,
    parts: Word,
    columns: int,
) -> FloatArray:
    """Expected risk along schedules, shape (count, columns), as :func:`nqm.dynamics.additive.chained_risk`."""
    rows = _rows(problem, optimizer, values, batch_size, count)
    out = np.zeros((count, columns))
    for r in range(count):
        state: FloatArray | None = None
        known: dict[tuple[float, float], Recursion] = {}
        for _, lr, share, length, column in zip(*parts, strict=True):
            piece = (float(lr), float(share))
            if piece not in known:
                known = {piece: rows.recursion(r, *piece)}  # schedules seldom come back to a piece
            one = known[piece]
            state = one.advance(one.start() if state is None else state, int(length))
            if column >= 0:
                out[r, column] = one.risk(state)
    return out


def steady_risk(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, count: int
) -> FloatArray:
    """Expected risk in the long run, one a row: (count,)."""
    rows = _rows(problem, optimizer, values, batch_size, count)
    if problem.label_noise == 0.0 and not np.any(
        rows.row.start_weight
    ):  # at the optimum, and nothing moves it from there
        return np.zeros(count)
    recursions = (rows.recursion(r) for r in range(count))
    return np.array([one.steady(one.resolvent()) for one in recursions])


def stable_lr(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, alone: Any
) -> Any:
    """Where  f(lr) = lr (1 / sum mult phi / (B - phi) - 1) = 0; f is linear for plain SGD on equal curvatures.

    ``alone``: the limit without noise, >= the answer. Rows of values, batch_size and alone broadcast. Regula falsi,
    with the Illinois rule, from a stable learning rate and a higher one that is not; where phi may fall with lr, from
    the first such pair on a grid.
    """
    names = list(values)
    arrays = np.broadcast_arrays(*(np.asarray(a, float) for a in (alone, batch_size, *values.values())))
    shape = arrays[0].shape
    high, b, *others = (a.ravel() for a in arrays)
    b, rest = b[:, None], {name: a[:, None] for name, a in zip(names, others, strict=True)}
    power = rest.pop("power", np.zeros((1, 1)))
    h = problem.curvature ** (1.0 - power)
    weight = problem.multiplicity * (problem._nodes.noise / problem.curvature)

    def excess(lr: FloatArray) -> FloatArray:
        gain = optimizer.noise_gain(lr[:, None] * h, rest)
        fed = np.where(gain < b, weight * gain / (b - gain), np.inf)
        return lr * (1.0 / np.sum(np.where(weight > 0.0, fed, 0.0), axis=1) - 1.0)

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ends = np.minimum(high, 1e100)  # a filter that is always stable
        high = ends * (1.0 - 1e-15)
        low = high
        if not optimizer.noise_gain_grows:
            for share in np.geomspace(1.0, 1e-12, 600)[1:]:
                unstable = ~(excess(share * ends) > 0.0)
                low = np.where(unstable | (low == high), share * ends, low)
                high = np.where(unstable, share * ends, high)
        f_low, f_high = excess(low), excess(high)
        top = f_high
        for _ in range(260):
            high, f_high = np.where(f_low > 0.0, high, low), np.where(f_low > 0.0, f_high, f_low)
            low = np.where(f_low > 0.0, low, low / 16.0)
            f_low = excess(low)
            if np.all(f_low > 0.0):
                break
        for _ in range(200):
            middle = np.clip((low * f_high - high * f_low) / (f_high - f_low), low, high)
            middle = np.where(np.isfinite(middle), middle, 0.5 * (low + high))
            f = excess(middle)
            stable = f > 0.0
            f_high, f_low = np.where(stable, 0.5 * f_high, f), np.where(stable, f, 0.5 * f_low)
            low, high = np.where(stable, middle, low), np.where(stable, high, middle)
            if np.all((high - low <= 1e-15 * high) | (np.abs(f) <= 4e-16 * middle)):
                break
    return np.where(np.isinf(b.ravel()) | (top > 0.0), arrays[0].ravel(), low).reshape(shape)


class _Power(NamedTuple):
    """2^j steps: y -> A^s y + noise, with s = 2^j.

    While A^s is near 1, the matrix is F = 1 - A^s: 2 F - F^2 keeps the small rates that A^s would round away. Once
    most is forgotten it is A^s, which F would round away. scale: (size,), what y is multiplied by for that, so that all
    of it is in one unit, whatever the units of curvature.
    """

    matrix: FloatArray
    deviates: bool  # whether the matrix is 1 - A^s
    noise: FloatArray
    scale: FloatArray

    def times(self, columns: FloatArray) -> FloatArray:
        """A^s columns."""
        moved = self.matrix @ columns
        return columns - moved if self.deviates else moved

    def times_from_left(self, row: FloatArray) -> FloatArray:
        moved = row @ self.matrix
        return row - moved if self.deviates else moved

    def squared(self) -> _Power:
        with np.errstate(over="ignore", invalid="ignore"):
            noise, product = self.noise + self.times(self.noise), self.matrix @ self.matrix
            if not self.deviates:
                return _Power(product, False, noise, self.scale)
            matrix = 2.0 * self.matrix - product
            left = np.eye(len(matrix)) - matrix
            forgotten = np.sum(np.square(left * (self.scale[:, None] / self.scale))) < 0.25
            return _Power(left if forgotten else matrix, not forgotten, noise, self.scale)


class Recursion:
    """One row: the recursion of y for a learning rate and a batch size.

    decay: D, (s, s, nodes); kick: u, (s, nodes); level: v, (s,), the same for all nodes; readout: (s,), of the risk.
    scale: (s,), 1 / h_1 for each state in units of lr, such as a buffer of gradients, to compare them with others.
    gain: the loss that the noise of a unit of loss brings back in the long run; below 1 where stable, else inf or more.
    """

    def __init__(
        self,
        decay: FloatArray,
        kick: FloatArray,
        level: FloatArray,
        readout: FloatArray,
        first: FloatArray,
        label_noise: float,
        gain: float,
        scale: FloatArray,
    ) -> None:
        self.decay, self.kick, self.level, self.readout, self.scale = decay, kick, level, readout, scale
        self.label_noise = label_noise
        self.gain = gain
        self._first = first
        self._powers: list[_Power] = []

    def start(self) -> FloatArray:
        """y before the first step, (s, nodes)."""
        return self._first.copy()

    def risk(self, state: FloatArray) -> float:
        """Of a state; inf where it has overflowed, and not below 0, as differences can be by rounding."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = float(np.sum(self.readout[:, None] * state))
        return max(found, 0.0) if -np.inf < found < np.inf else np.inf

    def after(self, steps: int) -> float:
        return self.risk(self.advance(self.start(), steps))

    def walking(self, steps: float) -> float:
        """About how many nanoseconds so many steps take one by one, as measured."""
        s, nodes = self.kick.shape
        return steps * (50.0 + (0.45, 0.95, 6.0)[s // 3] * nodes)

    def squaring(self, levels: int) -> float:
        """About how many nanoseconds the first so many powers take."""
        size = self.kick.size
        return 0.08 * max(0, levels - max(1, len(self._powers))) * size**3 + 2.0 * levels * size**2 + 50_000.0

    def advance(self, state: FloatArray, steps: int) -> FloatArray:
        """y so many steps later; ``state`` is spent."""
        if self.label_noise == 0.0 and not np.any(state):
            return state  # at the optimum, whatever the powers do
        bits = steps.bit_length()
        if self.walking(steps) <= self.squaring(bits):
            self.walk(state, steps)
            return state
        flat = state.ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            for bit, power in zip(range(bits), self.ladder(), strict=False):
                if steps >> bit & 1:
                    flat = power.times(flat) + power.noise
        return flat.reshape(state.shape)

    def walk(self, state: FloatArray, steps: int, target: float = -1.0, last: bool = False) -> tuple[int, int]:
        """Step by step, in place: (steps taken, answer) of the backend's ``gaussian_features_steps``."""
        recursion = MomentRecursion(self.decay, self.kick, self.level, self.label_noise, self.readout)
        found: tuple[int, int] = current_backend().gaussian_features_steps(recursion, state, steps, target, last)
        return found

    def ladder(self) -> Iterator[_Power]:
        """2^j steps, j = 0, 1, ..."""
        j = 0
        while True:
            if j < len(self._powers):
                power = self._powers[j]
            else:
                power = power.squared() if j > 0 else self._one_step()
                if power.noise.size <= KEPT:
                    self._powers.append(power)
            yield power
            j += 1

    def _one_step(self) -> _Power:
        s, nodes = self.kick.shape
        blocks, node = np.zeros((s, nodes, s, nodes)), np.arange(nodes)
        blocks[:, node, :, node] = self.decay.transpose(2, 0, 1)
        coupling = np.outer(self.kick, np.repeat(self.level, nodes))
        noise = self.label_noise * self.kick.ravel()
        return _Power(blocks.reshape(coupling.shape) - coupling, True, noise, np.repeat(self.scale, nodes))

    # --- what can be said of all times at once -----------------------------------------------------------------

    def resolvent(self) -> FloatArray | None:
        """r (1 - A)^-1 with A the step: what a unit of each y adds to all future readouts. None where unstable."""
        nodes = self.kick.shape[1]
        if not self.gain < 1.0:
            return None
        blocks = self.decay.transpose(2, 1, 0)  # transposed, node by node
        sides = np.stack([np.broadcast_to(side, (nodes, side.size)) for side in (self.readout, self.level)], axis=-1)
        try:
            solved = np.linalg.solve(blocks, sides)
        except np.linalg.LinAlgError:
            return None
        own, level = solved[..., 0].T, solved[..., 1].T
        return own + level * (np.sum(own * self.kick) / (1.0 - self.gain))

    def steady(self, future: FloatArray | None) -> float:
        """Risk in the long run, given the resolvent; inf where unstable."""
        return np.inf if future is None else float(np.sum(future * self.kick)) * self.label_noise

    def change(self, state: FloatArray) -> FloatArray:
        """y' - y."""
        with np.errstate(over="ignore", invalid="ignore"):
            noise = self.label_noise + float(np.sum(self.level[:, None] * state))
            return self.kick * noise - np.einsum("abn,bn->an", self.decay, state)


class March:
    """When is the target reached? Leaps of 2^j steps, each proved to hold no crossing, and walks in between.

    A step maps positive semidefinite moments to such, so what it does to a change of the state it does to its
    parts. Split the change of now into R - S, both positive semidefinite: in the next s steps the risk rises by at most
    r (1 + A + ... + A^(s-1)) R in all, and falls by at most the same of S. So at any time in between it is at least
    risk(t) less that fall, and risk(t + s) less that rise; and at most risk(t) plus that rise, and risk(t + s) plus
    that fall. All that is still to come is r (1 - A)^-1 R and S.

    ``end``: where schedules stop, without a look at the risk there; 2^53 if they hold.
    """

    def __init__(
        self,
        problem: NoisyQuadratic,
        optimizer: Optimizer,
        values: Mapping[str, Any],
        batch_size: float,
        schedule: Schedule | None = None,
        ramp: Schedule | None = None,
    ) -> None:
        self._rows = _rows(problem, optimizer, values, batch_size, 1)
        self._decay = float(values.get("decay", 0.0)) if "momentum" in values else None
        self._parts, self.end = additive.whole_course(schedule, ramp)

    def run(self, target: float, last: bool) -> float:
        """First step at or below ``target``; or the one after the last above it (0: none); inf if there is none."""
        time, answer = 0, 0.0
        state: FloatArray | None = None
        lrs, shares, lengths = (column.tolist() for column in self._parts[1:4])
        for lr, share, length in zip(lrs, shares, lengths, strict=True):
            one = self._rows.recursion(0, lr, share)
            state = one.start() if state is None else state
            final = time + length == self.end
            if lr == 0.0 and self._decay is not None:  # SGD rests
                found = first_passage_at_zero_lr(_moments(state), self._decay, target, last, length)
                found = float(length) if last and np.isinf(found) else found
            else:
                try:
                    with np.errstate(over="ignore", invalid="ignore"):  # what diverges
                        found = _crossing(one, state if final else state.copy(), target, last, length)
                except TooManyLeaps as error:
                    raise TooManyLeaps(target, time + error.steps, error.leaps) from None
            if not last and np.isfinite(found):
                return time + found
            if last and found > 0.0:
                answer = time + found
            if not final:
                state = one.advance(state, length)
            time += length
        return answer if last and answer < 2**53 else np.inf


def _crossing(one: Recursion, state: FloatArray, target: float, last: bool, length: int) -> float:
    """As :meth:`March.run` for one piece; with ``last`` the answer is ``length`` or more where it ends above."""
    future = one.resolvent()
    end = one.steady(future)
    least = next(j for j in range(11, 64) if one.walking(2.0**j) >= one.squaring(j))  # leaps pay from here on
    sums, powers = [one.readout.repeat(one.kick.shape[1])], one.ladder()  # r (1 + A + ... + A^(2^j - 1))
    time, j, answer, walk, tried, spent = 0, 10, 0.0, 2**10, 0, 0.0
    while time < length:
        if spent > MOST:
            raise TooManyLeaps(target, time, tried)
        here, change = one.risk(state), one.change(state)
        if here <= target and not last:
            return float(time)
        if not np.all(np.isfinite(change)):
            return np.inf
        if not np.any(change):
            return np.inf if here > target else answer
        rise, fall = _split(change)
        if future is None:
            if here > target and not np.any(fall):  # it grows for good
                return np.inf
        else:
            up, down = float(np.sum(future * rise)), float(np.sum(future * fall))
            slack = 1e-12 * (end + here + up + down)
            if end - up - slack > target:
                return np.inf
            if last and here + up + slack <= target:
                return answer
            rounding = 2e-15 * float(np.sum(np.abs(future * state)))  # of a change, as often as it is remembered
            if up + down <= 1e-12 * target + rounding:  # it stays where it is; `risk` has the last word
                return float(time) if end <= target * (1.0 + 1e-12) else np.inf
        while j >= least and time + 2**j <= length:
            while len(sums) <= j:
                sums.append(sums[-1] + next(powers).times_from_left(sums[-1]))
            ahead = one.advance(state.copy(), 2**j)
            tried, spent = tried + 1, spent + 2.0 * state.size**2 + LEAP
            up, down, there = float(sums[j] @ rise.ravel()), float(sums[j] @ fall.ravel()), one.risk(ahead)
            above = max(here - down, there - up) > target
            if above or (last and min(here + up, there + down) <= target):
                break
            j -= 1
        if j >= least and time + 2**j <= length:
            state, time = ahead, time + 2**j
            answer, j = float(time) if above else answer, j + 1
        else:
            taken, found = one.walk(state, min(walk, length - time), target, last)
            tried, spent = tried + 1, spent + one.walking(taken) + LEAP
            if found and not last:
                return float(time + taken)
            answer = float(time + found) if found else answer
            time, walk = time + taken, min(2 * walk, 2**least)
            j = least if walk == 2**least else 10
    return answer if last else np.inf


def _moments(state: FloatArray) -> FloatArray:
    """Sum over nodes, as a (k, k) matrix."""
    return _matrices(state.sum(axis=1, keepdims=True))[0]


def _matrices(triangles: FloatArray) -> FloatArray:
    """Symmetric matrices (nodes, k, k) from their upper triangles (s, nodes)."""
    k = (1, 2, 3)[len(triangles) // 3]
    i, j = np.triu_indices(k)
    full = np.empty((triangles.shape[1], k, k))
    full[:, i, j] = full[:, j, i] = triangles.T
    return full


class _Rows:
    """The recursions of many rows of hyperparameters."""

    def __init__(
        self, row: FilterBatch, label_noise: float, optimizer: Optimizer, values: dict[str, FloatArray]
    ) -> None:
        self.row, self.label_noise, self.optimizer, self.values = row, label_noise, optimizer, values

    def _gain(self, r: int, x: FloatArray, share: float) -> float:
        """sum mult phi / (B - phi), as in :func:`stable_lr`, at x = lr h^(1-p); inf where a node is not stable."""
        values = {name: value[r] for name, value in self.values.items()}
        phi = share * self.optimizer.noise_gain(x, values)
        if not (np.all(x < self.optimizer.stability_limit(values)) and np.all(phi < 1.0)):
            return np.inf
        return float(np.sum(2.0 * self.row.noise_weight * phi / (1.0 - phi)))

    def recursion(self, r: int, lr: float = 1.0, inverse_batch: float = 1.0) -> Recursion:
        """Of row r, with its learning rate and inverse batch size times what is given."""
        with np.errstate(over="ignore", invalid="ignore"):  # what diverges at once
            return self._recursion(r, lr, inverse_batch)

    def _recursion(self, r: int, lr: float, inverse_batch: float) -> Recursion:
        row, k = self.row, len(self.row.start)
        h, rate = row.curvature[row.power_index[r]], row.lr[r] * lr
        share = row.inverse_batch_size[r] * inverse_batch
        averaged, fresh = row.averages, row.averaging_weight[r, 0, 0]
        transition, own_gain = row.transition[r, 0, 0], row.gain[r, 0, 0]
        # W = M - 1 and the gain of a step in units of curvature, states that scale with lr in units of it
        exponent = row.lr_scaled - row.lr_scaled[:, None]
        gain = rate ** (1.0 - row.lr_scaled) * own_gain
        still = np.where(exponent < 0, 0.0, transition * rate ** np.maximum(exponent, 0)) - np.eye(k)
        w = still - h[:, None, None] * (rate ** (1.0 + exponent) * own_gain[:, None] * row.query)
        if averaged:  # of what the others read out after the step
            share_of = fresh * row.readout[:2]
            w[:, 2, :2] = share_of + np.einsum("i,nij->nj", share_of, w[:, :2, :2])
            w[:, 2, 2] = -fresh
            gain = np.append(gain[:2], share_of @ gain[:2])
        kicks = h[:, None] * gain
        upper = [(i, j) for i in range(k) for j in range(i, k)]
        decay = np.empty((len(upper), len(upper), h.size))
        kick = np.empty((len(upper), h.size))
        for a, (i, j) in enumerate(upper):
            both = kicks[:, i] * kicks[:, j] * share
            kick[a] = row.noise_weight * both
            for b, (p, q) in enumerate(upper):
                found = _through(w, i, j, p, q) + both * (row.query[p] * row.query[q])
                if p < q:
                    found = found + _through(w, i, j, q, p) + both * (row.query[p] * row.query[q])
                decay[a, b] = -found
        read = np.eye(k)[2] if averaged else row.readout
        weights = [np.array([(1 + (i < j)) * v[i] * v[j] for i, j in upper]) for v in (row.query, read)]
        first = np.array([row.start_weight * row.start[i] * row.start[j] for i, j in upper])
        gain = self._gain(r, rate * h, share)
        scale = h.max() ** -np.array([float(row.lr_scaled[i] + row.lr_scaled[j]) for i, j in upper])
        return Recursion(decay, kick, 2.0 * weights[0], weights[1], first, self.label_noise, gain, scale)


def _rows(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, count: int
) -> _Rows:
    assert problem.label_noise is not None
    spread = {name: np.broadcast_to(value, (count,)) for name, value in values.items()}
    return _Rows(additive.rows(problem, optimizer, values, batch_size, count), problem.label_noise, optimizer, spread)


def _through(w: FloatArray, i: int, j: int, p: int, q: int) -> Any:
    """Entry of  1 x W + W x 1 + W x W  that takes z_p z_q to z_i z_j."""
    found = w[:, i, p] * w[:, j, q]
    if i == p:
        found = found + w[:, j, q]
    if j == q:
        found = found + w[:, i, p]
    return found


def _split(moments: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Positive semidefinite R and S, node by node, with R - S the given: upper triangles, (s, nodes)."""
    if len(moments) == 1:
        return np.maximum(moments, 0.0), np.maximum(-moments, 0.0)
    values, vectors = np.linalg.eigh(_matrices(moments))
    i, j = np.triu_indices(values.shape[1])
    parts = []
    for kept in (np.maximum(values, 0.0), np.maximum(-values, 0.0)):
        matrix = np.einsum("nir,nr,njr->nij", vectors, kept, vectors)
        parts.append(matrix[:, i, j].T)
    return parts[0], parts[1]
