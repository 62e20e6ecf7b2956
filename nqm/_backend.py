"""From problems and optimizers to the arrays that the kernels take, and back.

Nothing is compiled and Numba is not imported before the first number is asked for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._checks import FloatArray, IntArray

if TYPE_CHECKING:  # the kernels' side knows these only by the attributes it reads
    from collections.abc import Mapping

    from .optimizers import Optimizer
    from .problem import NoisyQuadratic
    from .schedules import Schedule

ROWS_AT_ONCE = 2**16
BATCH_OF_MARCHES = 100_000
SHORT = 64  # pieces up to this length are searched step by step


class Rows(NamedTuple):
    """Arguments common to the kernels; R rows of hyperparameters on N nodes (a multiple of LANES), P powers."""

    curvature: FloatArray  # (P, N), h^(1-p)
    which: IntArray  # (R,), index of the row's power
    bias: FloatArray  # (N,), multiplicity h init / 2
    noise: FloatArray  # (N,), multiplicity c / (2 h)
    lr: FloatArray  # (R,)
    transition: FloatArray  # (R, 2, k, k)
    gain: FloatArray  # (R, 2, k)
    fresh: FloatArray  # (R, 2)
    query: FloatArray  # (k,)
    readout: FloatArray  # (k,)
    start: tuple[float, ...]  # k
    inverse_batch: FloatArray  # (R,)
    scaled: IntArray  # (k,), 1 for states in units of lr; for the kernels that follow schedules


def risk(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, steps: IntArray
) -> FloatArray:
    """Expected risk, one a row: values, batch_size are numbers or (R,), steps is (R,)."""
    from . import _kernels

    out = np.empty(steps.size)
    _kernels.risk_rows(*rows(problem, optimizer, values, batch_size, steps.size)[:-1], steps, out)
    return out


def dyadic_risk(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, count: int, levels: int
) -> FloatArray:
    """Expected risk after 2^j steps, j = 0 ... levels - 1: shape (count, levels)."""
    from . import _kernels

    out = np.empty((count, levels))
    _kernels.dyadic_rows(*rows(problem, optimizer, values, batch_size, count)[:-1], out)
    return out


def rows(problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, count: int) -> Rows:
    nodes = _prepared(problem)
    power = np.asarray(values.get("power", 0.0))
    if power.ndim == 0:
        curvature, which = _preconditioned(problem, float(power))[None, :], np.zeros((), dtype=np.int64)
    else:
        powers, which = np.unique(power, return_inverse=True)
        curvature = np.stack([_preconditioned(problem, float(p)) for p in powers])
    with np.errstate(over="ignore"):  # a batch size below 1e-308: infinitely much noise
        inverse_batch = 1.0 / np.asarray(batch_size)
    parts = optimizer.filter(values)
    k = len(parts.start)
    return Rows(
        curvature,
        _spread(which, (count,), np.int64),
        nodes.bias,
        nodes.noise,
        _spread(values["lr"], (count,)),
        _spread(parts.transition, (count, 2, k, k)),
        _spread(parts.gain, (count, 2, k)),
        _spread(parts.fresh, (count, 2)),
        parts.query,
        parts.readout,
        parts.start,
        _spread(inverse_batch, (count,)),
        np.array(parts.scaled, dtype=np.int64),
    )


class Pieces(NamedTuple):
    """J pieces on which neither learning rate nor batch size changes."""

    lr: FloatArray  # (J,), factor of a row's learning rate
    inverse_batch: FloatArray  # (J,), factor of a row's inverse batch size
    lengths: IntArray  # (J,), steps
    column: IntArray  # (J,), where the risk after the piece goes, -1 for nowhere


def pieces(lr: Schedule | None, batch_size: Schedule | None, times: IntArray) -> Pieces:
    """The pieces of two schedules (None: 1 throughout) up to the last of ``times`` (increasing), cut at each."""
    total = int(times[-1])
    given = [None if schedule is None else _upto(schedule, total) for schedule in (lr, batch_size)]
    ends = [one[1] for one in given if one is not None]
    alone = len(ends) == 1 and times.size == 1
    stops = ends[0] if alone else _union([*ends, times])
    starts = np.zeros_like(stops)
    starts[1:] = stops[:-1]

    def during(values: FloatArray, ends: IntArray) -> FloatArray:
        return values if alone else values[np.searchsorted(ends[:-1], starts, "right")]

    rate, batch = (np.ones(stops.size) if one is None else during(*one) for one in given)
    column = np.searchsorted(times, stops)
    column[times[column] != stops] = -1
    with np.errstate(over="ignore"):  # a batch size below 1e-308: infinitely much noise
        return Pieces(rate, 1.0 / batch, stops - starts, column)


def whole_course(lr: Schedule | None, batch_size: Schedule | None) -> tuple[Pieces, int]:
    """All pieces of two schedules, the last one held to the end: where a schedule that does not hold stops, or 2^53."""
    given = [s for s in (lr, batch_size) if s is not None]
    ends = [s.steps for s in given if s.beyond == "error"]
    longest, end = min([max((s.steps for s in given), default=1), *ends]), min(ends, default=2**53)
    parts = pieces(lr, batch_size, np.array([longest]))
    parts.lengths[-1] += end - longest
    return parts, end


def _union(ordered: list[IntArray]) -> IntArray:
    together = np.sort(np.concatenate(ordered), kind="stable")  # which merges sorted runs
    return together[np.diff(together, prepend=-1) > 0]


def _upto(schedule: Schedule, steps: int) -> tuple[FloatArray, IntArray]:
    """Values and ends of the pieces of the first ``steps`` steps; of none, a piece without length."""
    if schedule.beyond == "error" and steps > schedule.steps:
        schedule.cut(steps)  # refuses
    last = min(int(np.searchsorted(schedule.ends, steps)), schedule.pieces - 1)
    ends = schedule.ends[: last + 1].copy()
    ends[-1] = steps
    return schedule.values[: last + 1], ends


def chained_risk(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    values: Mapping[str, Any],
    batch_size: Any,
    count: int,
    parts: Pieces,
    columns: int,
) -> FloatArray:
    """Expected risk along schedules, shape (count, columns); values["lr"] and 1 / batch_size multiply those of the
    pieces, each a number or (count,)."""
    from . import _kernels

    row = _in_units(rows(problem, optimizer, values, batch_size, count), parts.lr.max(initial=0.0))
    out = np.zeros((count, columns))
    states = _first_states(row)
    _kernels.chain_rows(*row, parts.lr, parts.inverse_batch, parts.lengths, parts.column, states, out)
    out[np.isnan(out)] = np.inf
    return out


class Slopes(NamedTuple):
    """A risk and its derivatives."""

    risk: float
    by_log_lr: FloatArray  # (J,)
    by_log_inverse_batch: FloatArray  # (J,), >= 0: the share of the risk that is the noise of each piece
    by_value: FloatArray  # (V,)


def slopes(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    values: Mapping[str, Any],
    free: tuple[str, ...],
    lr: FloatArray,
    inverse_batch: FloatArray,
    lengths: IntArray,
) -> Slopes:
    """Risk after pieces of ``lengths`` steps, and its derivatives: by the pieces' log lr and log 1 / batch size, and by
    the ``free`` ones of momentum and decay (not 0)."""
    from . import _kernels

    spans = np.array([0.5 * min(values[name], 1.0 - values[name]) for name in free])
    filters = [optimizer.filter(values)]
    for name, span in zip(free, spans, strict=True):
        filters += [optimizer.filter({**values, name: values[name] + sign * span}) for sign in (0.5, -0.5)]
    nodes, first = _prepared(problem), filters[0]
    curvature = _preconditioned(problem, float(values.get("power", 0.0)))
    exponent = _unit(float(lr.max()))
    found = Slopes(0.0, np.empty(lr.size), np.empty(lr.size), np.empty(len(free)))
    risk = _kernels.chain_gradient(
        np.ldexp(curvature, exponent), nodes.bias, nodes.noise, np.ldexp(lr, -exponent),
        np.stack([f.transition for f in filters]), np.stack([f.gain for f in filters]),
        np.stack([f.fresh for f in filters]), first.query, first.readout, first.start,
        np.array(first.scaled, dtype=np.int64), inverse_batch, lengths, spans, *found[1:],
    )  # fmt: skip
    return found._replace(risk=risk)


def _in_units(row: Rows, largest: float) -> Rows:
    """Learning rates and curvatures scaled by a power of two, so that the largest learning rate is about 1."""
    exponent = _unit(float(row.lr.max()) * largest)
    if exponent == 0:
        return row
    return row._replace(lr=np.ldexp(row.lr, -exponent), curvature=np.ldexp(row.curvature, exponent))


def _unit(largest: float) -> int:
    """The power of two next to the largest learning rate, as far as floats can be scaled by it."""
    return max(-1000, math.frexp(largest)[1]) if 0.0 < largest < math.inf else 0


class March:
    """The walk of :func:`nqm._kernels.march` for a single row; ``run`` goes on until there is an answer.

    ``length``: steps at most. ``carried``: the state that earlier pieces of a schedule leave, and its units.
    """

    def __init__(
        self,
        problem: NoisyQuadratic,
        optimizer: Optimizer,
        values: Mapping[str, Any],
        batch_size: float,
        length: int = 2**53,
        carried: tuple[FloatArray, float] | None = None,
    ) -> None:
        from . import _kernels

        self._kernels = _kernels
        self._row = row = rows(problem, optimizer, values, batch_size, 1)
        self._length = length
        self._origin = self._fill(min(16, length.bit_length()))
        blocks, k = len(self._origin), len(row.start)
        self._weight, self._extra = row.noise, np.empty((0, blocks, k * _kernels.BLOCK))
        if carried is not None:
            kept, unit = carried
            with np.errstate(over="ignore", invalid="ignore"):  # diverged
                self._weight = row.noise * np.square(row.curvature[0] * unit)
            self._extra = np.empty((k, blocks, k * _kernels.BLOCK))
            for block in range(blocks):
                h = row.curvature[0, block * _kernels.BLOCK : (block + 1) * _kernels.BLOCK]
                _kernels.carry_over(
                    h, row.lr[0], unit, row.transition[0], row.gain[0], row.fresh[0], row.query, row.readout,
                    row.start, row.scaled, kept[block], self._origin[block], self._extra[:, block],
                )  # fmt: skip

    def run(self, target: float, last: bool) -> float:
        """First step at or below ``target``; or the one after the last above it (0: none); inf if there is none."""
        kernels, row = self._kernels, self._row
        state, extra = self._origin.copy(), self._extra.copy()
        ahead, extra_ahead, progress = np.empty_like(state), np.empty_like(extra), np.zeros(4, dtype=np.int64)
        while True:
            status = kernels.march(
                row.curvature[0], row.bias, row.noise, self._weight, row.lr[0], row.fresh[0, 0], row.readout,
                row.start, row.inverse_batch[0], self._powers, self._boxes, state, ahead, extra, extra_ahead, target,
                last, self._length, progress, BATCH_OF_MARCHES,
            )  # fmt: skip
            if status == kernels.FOUND:
                return float(progress[2])
            if status == kernels.NEVER:
                return float("inf")
            if status == kernels.MORE_LEVELS:
                self._fill(min(54, self._powers.shape[0] + 16))

    def _fill(self, levels: int) -> FloatArray:
        """Powers and boxes of so many levels; returns the state before the first step."""
        kernels, row, k = self._kernels, self._row, len(self._row.start)
        blocks = -(-row.bias.size // kernels.BLOCK)
        self._powers = np.empty((levels, blocks, kernels.power_slots(k) * kernels.BLOCK))
        self._boxes = np.empty((levels, blocks, 2 * k * kernels.BLOCK))
        origin = np.empty((blocks, kernels.state_slots(k) * kernels.BLOCK))
        kernels.fill_levels(
            row.curvature[0], row.lr[0], row.transition[0], row.gain[0], row.fresh[0], row.query, row.readout,
            row.start, self._powers, self._boxes, origin,
        )  # fmt: skip
        return origin


class ScheduledMarch:
    """The same along schedules: short pieces step by step, long ones by :class:`March`.

    ``end``: where it stops, without a look at the risk there: 2^53 if the schedules hold.
    """

    def __init__(
        self,
        problem: NoisyQuadratic,
        optimizer: Optimizer,
        values: Mapping[str, Any],
        batch_size: float,
        schedule: Schedule | None,
        ramp: Schedule | None,
    ) -> None:
        self._parts, self.end = whole_course(schedule, ramp)
        self._problem, self._optimizer, self._batch = problem, optimizer, batch_size
        self._values = dict(values)

    def run(self, target: float, last: bool) -> float:
        """As :meth:`March.run`, for steps before the end."""
        from . import _kernels as kernels

        parts = self._parts
        whole = rows(self._problem, self._optimizer, self._values, self._batch, 1)
        row = _in_units(whole, parts.lr.max())
        unit = float(whole.lr[0] / row.lr[0])
        filtered = (row.transition[0], row.gain[0], row.fresh[0], row.query, row.readout, row.start)
        states = _first_states(row)
        lengths, at, time, answer = parts.lengths, 0, 0, 0.0
        while at < lengths.size:
            long = lengths[at:] > SHORT
            short = int(np.argmax(long)) if long.any() else long.size
            here = slice(at, at + max(short, 1))
            if short:
                progress = np.zeros(2, dtype=np.int64)
                status = kernels.chain_scan(
                    row.curvature[0], row.bias, row.noise, row.lr[0] * parts.lr[here], *filtered, row.scaled,
                    row.inverse_batch[0] * parts.inverse_batch[here], lengths[here], states[0], target, last, progress,
                )  # fmt: skip
                found = float(progress[1]) if last or status == kernels.FOUND else np.inf
            else:
                values = {**self._values, "lr": whole.lr[0] * parts.lr[at]}
                batch = self._batch / parts.inverse_batch[at]
                length = int(lengths[at])
                if parts.lr[at] == 0.0 and "momentum" in values:  # SGD rests, and no bound can tell that it does
                    found = _at_rest(row, states[0], float(values.get("decay", 0.0)), target, last, length)
                else:
                    march = March(self._problem, self._optimizer, values, batch, length, (states[0], unit))
                    found = march.run(target, last)
                if at + 1 < lengths.size:
                    kernels.chain_rows(
                        *row, parts.lr[here], parts.inverse_batch[here], lengths[here], np.array([-1]), states,
                        np.empty((1, 1)),
                    )  # fmt: skip
                elif np.isinf(found) and self.end == 2**53:
                    return found
                if last and np.isinf(found):
                    found = float(length)
            if not last and np.isfinite(found):
                return time + found
            if last and found > 0.0:
                answer = time + found
            time += int(lengths[here].sum())
            at = here.stop
        return answer if last else np.inf


def _at_rest(row: Rows, state: FloatArray, decay: float, target: float, last: bool, length: int) -> float:
    """As :meth:`March.run` while lr = 0."""
    from . import _kernels

    k, nodes = len(row.start), row.bias.size
    slots = state.reshape(len(state), -1, _kernels.BLOCK).transpose(1, 0, 2).reshape(-1, len(state) * _kernels.BLOCK)
    mean, noise = slots[:k, :nodes], row.noise * np.square(row.curvature[0])
    moments = np.zeros((k, k))
    for slot, (i, j) in enumerate(zip(*np.triu_indices(k), strict=True)):
        with np.errstate(over="ignore", invalid="ignore"):
            moments[i, j] = moments[j, i] = np.sum(
                np.where(row.bias > 0.0, row.bias * mean[i] * mean[j], 0.0) + noise * slots[2 * k + slot, :nodes]
            )
    return rest_crossing(moments, decay, target, last, length)


def rest_crossing(moments: FloatArray, decay: float, target: float, last: bool, length: int) -> float:
    """As :meth:`March.run` while theta stays, the first state, and an average, the last, is theta + decay^t (average -
    theta). moments: (k, k), summed over nodes to make risks.

    The risk is A + 2 B g + C g^2 with g = decay^t, so it lies at or below the target between two roots.
    """
    target *= 1.0 + 1e-13  # in a tie the risk stays at the target; `risk` has the last word
    k = len(moments)
    theta = np.eye(k)[0]
    gap = np.eye(k)[-1] - theta if decay > 0.0 else np.zeros(k)
    if not np.all(np.isfinite(moments)):  # diverged
        return np.inf
    a, b, c = theta @ moments @ theta, theta @ moments @ gap, gap @ moments @ gap
    inside = b * b - c * (a - target)
    enter, leave = np.inf, np.inf  # the steps at or below the target are enter <= t < leave
    if a + 2.0 * b + c <= target:
        enter = 0.0
    elif inside >= 0.0 and c > 0.0 and 0.0 < -b + math.sqrt(inside) < c:
        enter = float(np.ceil(np.log((-b + math.sqrt(inside)) / c) / np.log(decay)))
    if a > target and c > 0.0 and inside >= 0.0 and -b - math.sqrt(inside) > 0.0:
        leave = float(np.floor(np.log((-b - math.sqrt(inside)) / c) / np.log(decay))) + 1.0
    if not last:
        return enter if enter < min(leave, length) else np.inf
    if enter >= min(leave, length) or leave < length:
        return np.inf  # above at the end
    return enter


def _first_states(row: Rows) -> FloatArray:
    """States before the first step as the chain's kernels keep them: (rows, blocks, slots BLOCK)."""
    from . import _kernels

    k, blocks = len(row.start), -(-row.bias.size // _kernels.BLOCK)
    states = np.zeros((row.lr.size, blocks, _kernels.state_slots(k), _kernels.BLOCK))
    states[:, :, :k] = np.array(row.start)[:, None]
    return states.reshape(*states.shape[:2], -1)


class _Prepared(NamedTuple):
    curvature: FloatArray
    bias: FloatArray
    noise: FloatArray


def _prepared(problem: NoisyQuadratic) -> _Prepared:
    """Curvatures and weights, padded with weightless nodes to whole vectors; kept with the problem."""
    from ._kernels import LANES

    kept: _Prepared | None = problem._prepared.get("nodes")
    if kept is None:
        padding = (0, -problem.curvature.size % LANES)
        kept = _Prepared(
            np.pad(problem.curvature, padding, mode="edge"),
            np.pad(0.5 * problem.multiplicity * problem.curvature * problem.init, padding),
            np.pad(0.5 * problem.multiplicity * (problem._nodes.noise / problem.curvature), padding),
        )
        problem._prepared["nodes"] = kept
    return kept


def _preconditioned(problem: NoisyQuadratic, power: float) -> FloatArray:
    """h^(1-p) of the padded nodes; the last power's are kept."""
    curvature = _prepared(problem).curvature
    if power == 0.0:
        return curvature
    kept = problem._prepared.get("power")
    if kept is None or kept[0] != power:
        kept = (power, curvature ** (1.0 - power))
        problem._prepared["power"] = kept
    found: FloatArray = kept[1]
    return found


def _spread(value: Any, shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
    out = np.empty(shape, dtype)
    out[...] = value
    return out
