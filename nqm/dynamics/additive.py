"""From problems and optimizers to the arrays that the kernels take, and back.

Nothing is compiled and Numba is not imported before the first number is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import backends
from .._checks import FloatArray, IntArray
from ..backends.types import LANES, FilterBatch, RiskGradient, Word, unit_of

if TYPE_CHECKING:  # the kernels' side knows these only by the attributes it reads
    from collections.abc import Callable, Mapping

    from ..optimizers import Optimizer
    from ..problems.quadratic import NoisyQuadratic
    from ..schedules import Schedule

ROWS_AT_ONCE = 2**16
UNITS = 128  # powers of two between learning rates that are followed along schedules together
TABLES = 2**22  # numbers in tables of preconditioned curvatures that are held at once


def risk(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, steps: IntArray
) -> FloatArray:
    """Expected risk, one a row: values, batch_size are numbers or (R,), steps is (R,)."""
    backend = backends.current_backend()
    return _by_powers(
        problem, optimizer, values, batch_size, (steps.size,), lambda batch, some: backend.risk(batch, steps[some])
    )


def dyadic_risk(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, count: int, levels: int
) -> FloatArray:
    """Expected risk after 2^j steps, j = 0 ... levels - 1: shape (count, levels)."""
    backend, shape = backends.current_backend(), (count, levels)
    return _by_powers(
        problem, optimizer, values, batch_size, shape, lambda batch, _: backend.dyadic_risk(batch, levels)
    )


def _by_powers(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    values: Mapping[str, Any],
    batch_size: Any,
    shape: tuple[int, ...],
    compute: Callable[[FilterBatch, Any], FloatArray],
) -> FloatArray:
    """``compute(batch, rows)``, of shape (R, ...): on all rows, or on some after others where the tables h^(1-p) of
    their powers would take too much memory together."""
    power, most = values.get("power", 0.0), max(1, TABLES // problem.curvature.size)
    if np.ndim(power) == 0 or shape[0] <= most or np.unique(power).size <= most:
        return compute(rows(problem, optimizer, values, batch_size, shape[0]), slice(None))
    powers, which = np.unique(power, return_inverse=True)
    out = np.empty(shape)
    for first in range(0, powers.size, most):
        some = np.flatnonzero((which >= first) & (which < first + most))
        few = {name: value[some] if np.ndim(value) else value for name, value in values.items()}
        batch = batch_size[some] if np.ndim(batch_size) else batch_size
        out[some] = compute(rows(problem, optimizer, few, batch, some.size), some)
    return out


def rows(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, count: int
) -> FilterBatch:
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
    return FilterBatch(
        curvature,
        _spread(which, (count,), np.int64),
        nodes.bias if np.any(parts.start) else np.zeros_like(nodes.bias),  # what stays 0 is no 0 * inf
        nodes.noise if np.any(parts.gain) else np.zeros_like(nodes.noise),
        _spread(values["lr"], (count,)),
        _one_map(parts.transition, (count, 1, 2, k, k)),
        _one_map(parts.gain, (count, 1, 2, k)),
        _one_map(parts.fresh, (count, 1, 2)),
        parts.query,
        parts.readout,
        parts.start,
        _spread(inverse_batch, (count,)),
        np.array(parts.scaled, dtype=np.int64),
    )


def pieces(lr: Schedule | None, batch_size: Schedule | None, times: IntArray) -> Word:
    """The pieces of two schedules (None: 1 throughout) up to the last of ``times`` (increasing), cut at each."""
    total = int(times[-1])
    given = [None if schedule is None else _upto(schedule, total) for schedule in (lr, batch_size)]
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


def whole_course(lr: Schedule | None, batch_size: Schedule | None) -> tuple[Word, int]:
    """All pieces of two schedules, the last one held to the end: where a schedule that does not hold stops, or 2^53."""
    given = [s for s in (lr, batch_size) if s is not None]
    ends = [s.steps for s in given if s.beyond == "error"]
    longest, end = min([max((s.steps for s in given), default=1), *ends]), min(ends, default=2**53)
    parts = pieces(lr, batch_size, np.array([longest]))
    parts.repeat[-1] += end - longest
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
    parts: Word,
    columns: int,
) -> FloatArray:
    """Expected risk along schedules, shape (count, columns); values["lr"] and 1 / batch_size multiply those of the
    pieces, each a number or (count,)."""
    backend, largest = backends.current_backend(), parts.lr.max(initial=0.0)

    def compute(row: FilterBatch, _: Any) -> FloatArray:
        """Rows of about the same unit at a time: in that of a far larger learning rate they would underflow."""
        units = np.frexp(row.lr)[1] // UNITS
        if row.lr.size == 1 or units.min() == units.max():
            found: FloatArray = backend.risk_along(row.in_units(largest), parts, columns)
            return found
        out = np.empty((row.lr.size, columns))
        for unit in np.unique(units):
            some = np.flatnonzero(units == unit)
            out[some] = backend.risk_along(row.part(some).in_units(largest), parts, columns)
        return out

    return _by_powers(problem, optimizer, values, batch_size, (count, columns), compute)


def slopes(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    values: Mapping[str, Any],
    free: tuple[str, ...],
    lr: FloatArray,
    inverse_batch: FloatArray,
    lengths: IntArray,
) -> RiskGradient:
    """Risk after pieces of ``lengths`` steps, and its derivatives: by the pieces' log lr and log 1 / batch size, and by
    the ``free`` ones of momentum and decay (not 0)."""
    spans = np.array([0.5 * min(values[name], 1.0 - values[name]) for name in free])
    filters = [optimizer.filter(values)]
    for name, span in zip(free, spans, strict=True):
        filters += [optimizer.filter({**values, name: values[name] + sign * span}) for sign in (0.5, -0.5)]
    nodes, first = _prepared(problem), filters[0]
    curvature = _preconditioned(problem, float(values.get("power", 0.0)))
    exponent = unit_of(float(lr.max()))
    noise = nodes.noise if np.any(inverse_batch) else np.zeros_like(nodes.noise)
    still = np.where((nodes.bias > 0.0) | (noise > 0.0), np.ldexp(curvature, exponent), 0.0)  # without weight: no inf
    ones, none = np.ones(len(filters)), np.zeros(lengths.size, dtype=np.int64)
    batch = FilterBatch(
        still[None, :], none[:1].repeat(len(filters)), nodes.bias, noise, ones,
        np.stack([f.transition for f in filters])[:, None], np.stack([f.gain for f in filters])[:, None],
        np.stack([f.fresh for f in filters])[:, None], first.query, first.readout, first.start, ones,
        np.array(first.scaled, dtype=np.int64),
    )  # fmt: skip
    word = Word(none, np.ldexp(lr, -exponent), inverse_batch, lengths, none - 1)
    found: RiskGradient = backends.current_backend().risk_and_gradient(batch, word, spans)
    return found


def crossings(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    values: Mapping[str, Any],
    batch_size: Any,
    targets: FloatArray,
    last: bool,
) -> FloatArray:
    """First step at or below the target, or the one after the last above it (0: none), inf if there is none: one a row
    of targets (R,)."""
    backend = backends.current_backend()
    return _by_powers(
        problem, optimizer, values, batch_size, (targets.size,),
        lambda batch, some: backend.first_passage(batch, targets[some], last),
    )  # fmt: skip


def crossing_along(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    values: Mapping[str, Any],
    batch_size: float,
    schedule: Schedule | None,
    ramp: Schedule | None,
    target: float,
    last: bool,
) -> tuple[float, int]:
    """The same along schedules, for steps before they end; and where they end, 2^53 if they hold."""
    parts, end = whole_course(schedule, ramp)
    row = rows(problem, optimizer, values, batch_size, 1)
    rests = float(values.get("decay", 0.0)) if "momentum" in values else None
    return backends.current_backend().first_passage_along(row, parts, end, rests, target, last), end


class _Prepared(NamedTuple):
    curvature: FloatArray
    bias: FloatArray
    noise: FloatArray


def _prepared(problem: NoisyQuadratic) -> _Prepared:
    """Curvatures and weights, padded with weightless nodes to whole vectors; kept with the problem."""
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


def _one_map(value: Any, shape: tuple[int, ...]) -> FloatArray:
    out = np.empty(shape)
    out[:, 0] = value
    return out


def _spread(value: Any, shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
    out = np.empty(shape, dtype)
    out[...] = value
    return out
