"""Expected risk, steady state and stability: a problem and an optimizer in, numbers out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from . import _checks
from ._checks import FloatArray, IntArray
from .backends.types import Word
from .dynamics.base import Dynamics, Values, rows_of
from .dynamics.select import dynamics_of, dynamics_of_rows
from .dynamics.words import word_until
from .optimizers import Optimizer
from .problems.quadratic import NoisyQuadratic
from .schedules import Schedule

__all__ = [
    "ARRAYS",
    "check_batch_sizes",
    "check_one_batch_size",
    "check_problem",
    "log_steps",
    "max_stable_lr",
    "require_plain",
    "risk",
    "risk_of_rows",
    "row_chunks",
    "steady_state_risk",
    "take_out_schedule",
]

ROWS_AT_ONCE = 2**16
"""Rows of broadcast arguments that are computed at once, so that memory stays bounded."""

ARRAYS = "; for one run whose lr changes take nqm.Schedule(lrs, 1)"
"""What a person may have meant who gave arrays where one run is asked for."""


@overload
def risk(problem: NoisyQuadratic, optimizer: Optimizer[float], batch_size: float | Schedule, steps: float) -> float: ...
@overload
def risk(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: ArrayLike | Schedule, steps: ArrayLike
) -> FloatArray: ...
def risk(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: ArrayLike | Schedule, steps: ArrayLike
) -> float | FloatArray:
    """Expected risk after ``steps`` steps.

        E[risk after t] = 1/2 sum_i mult_i h_i (d_t^2 init_i + (c_i / B) g_t),
        d_t = r^T M^t z0,   g_t = sum_{s<t} (r^T M^s b)^2

    for each curvature h_i, with M, b, r, z0 the optimizer's filter: zhang2019 eq. 4 for plain SGD, the recursions of
    its appendices B and D for momentum and EMA. Exact: relative error about 1e-14 for problems given node by
    node; on a power law or compressed spectrum 1e-8 or better, by refining its nodes until two rules agree.

    With Gaussian features (noise that grows with the loss) all coordinates' second moments follow one linear recursion,
    linked by a single number, the loss; it is walked, or its matrix squared, whichever is less work. Errors are about
    1e-16 times the smaller of ``steps`` and the condition number, relative to the largest moments on the way: less is
    left of a risk far below them, where what oscillates passes 0, and close to the stability limit.

    Args:
        problem: the noisy quadratic.
        optimizer: with numbers or arrays as hyperparameters; lr may be a :class:`nqm.Schedule`.
        batch_size: examples per step, > 0 (need not be whole; inf: no noise), or a :class:`nqm.Schedule` of them.
            :mod:`nqm.noise` has the batch size that stands for sampling without replacement, or for enhanced noise.
        steps: whole numbers from 0 to 2^53; :func:`nqm.log_steps` spaces them for a logarithmic axis.

    All of them broadcast by NumPy's rules, a schedule like a number; the result has their common shape (a float when
    all are scalars), in units of loss. Divergence gives inf. Along a schedule the same recursion is chained from piece
    to piece; many ``steps`` cost one walk along it.

    Raises:
        TypeError, ValueError: for wrong arguments, before any work.
        nqm.Unresolved: where no rule of at most 2^22 nodes settles the risk (a huge spectrum, very long oscillation).

    >>> import nqm
    >>> problem = nqm.NoisyQuadratic.power_law(10_000)
    >>> round(nqm.risk(problem, nqm.SGD(0.1), batch_size=256, steps=1000), 4)
    1.6779
    >>> nqm.risk(problem, nqm.SGD([0.1, 1.0, 3.0]), batch_size=256, steps=1000).round(4)
    array([1.6779, 0.6209,    inf])
    """
    check_problem(problem, optimizer)
    problem = dynamics_of(problem, optimizer).rule_for_risk().problem
    sizes, batch_schedule = check_batch_sizes(batch_size)
    times = _checks.step_numbers(steps)
    shape = _checks.broadcast(optimizer=optimizer.shape, batch_size=sizes.shape, steps=times.shape)
    out = np.empty(shape)
    lr_schedule, values = take_out_schedule(optimizer)
    constant = lr_schedule is None and batch_schedule is None
    if not constant or dynamics_of(problem, optimizer).follows_time:
        _risk_along(problem, optimizer, values, lr_schedule, batch_schedule, sizes, times, out)
        return float(out) if shape == () else out
    flat = out.reshape(-1)
    for part, chunk, (size, time) in row_chunks(values, shape, sizes, times):
        flat[part] = risk_of_rows(dynamics_of(problem, optimizer), chunk, size, time.astype(np.int64))
    return float(out) if shape == () else out


def log_steps(last: int, count: int = 100) -> IntArray:
    """Whole numbers of steps from 1 to ``last``, increasing and about evenly spaced on a logarithmic axis.

    At most ``count`` >= 1 of them, fewer where rounding makes neighbours equal; a single one is ``last``. int64.

    >>> import nqm
    >>> nqm.log_steps(3000, 8)
    array([   1,    3,   10,   31,   97,  305,  956, 3000])
    """
    end = _checks.whole(last, "last", low=1)
    number = _checks.whole(count, "count", low=1, high=10**8)
    if number == 1:
        return np.array([end])
    found = np.unique(np.rint(np.geomspace(1.0, end, number)).astype(np.int64))
    found[-1] = end  # a rounding error beyond 2^52
    return found


@overload
def steady_state_risk(problem: NoisyQuadratic, optimizer: Optimizer[float], batch_size: float | Schedule) -> float: ...
@overload
def steady_state_risk(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: ArrayLike | Schedule
) -> FloatArray: ...
def steady_state_risk(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: ArrayLike | Schedule
) -> float | FloatArray:
    """Risk as the steps go to infinity, where the noise let in balances the noise forgotten; inf if unstable.

    For plain SGD 1/2 sum mult lr c / (B (2 - lr h)) (zhang2019 eq. 4); found as the limit of the same doubling as
    :func:`risk`, for any optimizer; with Gaussian features by solving for the fixed point. Broadcasts like
    :func:`risk`, and raises the same. Of a schedule that holds, it is the last value's; one with beyond="error" has
    none.

    >>> import nqm
    >>> round(nqm.steady_state_risk(nqm.NoisyQuadratic([1.0]), nqm.SGD(1.0), batch_size=4), 6)
    0.125
    """
    check_problem(problem, optimizer)
    problem = dynamics_of(problem, optimizer).rule_for_risk().problem
    sizes, batch_schedule = check_batch_sizes(batch_size)
    lr_schedule, values = take_out_schedule(optimizer)
    for given in (lr_schedule, batch_schedule):
        if given is not None and given.beyond == "error":
            raise ValueError(f"expected a schedule that holds its last value for a steady state, got {given} that ends")
    if lr_schedule is not None:
        if lr_schedule.values[-1] == 0.0:
            raise ValueError(f"lr: expected a schedule that ends above 0 for a steady state, got {lr_schedule}")
        values["lr"] = float(lr_schedule.values[-1])
    if batch_schedule is not None:
        sizes = np.asarray(batch_schedule.values[-1])
    shape = _checks.broadcast(optimizer=optimizer.shape, batch_size=sizes.shape)
    out = np.empty(shape)
    flat = out.reshape(-1)
    for part, chunk, (size,) in row_chunks(values, shape, sizes):
        for dynamics, rows in dynamics_of_rows(problem, optimizer, np.isinf(size)):
            own, batch = rows_of(chunk, rows), size[rows]

            def steady(nodes: Dynamics, some: Any, own: Any = own, batch: Any = batch) -> FloatArray:
                return nodes.steady_risk(rows_of(own, some), batch[some], batch[some].size)

            flat[part][rows] = dynamics.rule_for_risk().refined(steady)
    return float(out) if shape == () else out


@overload
def max_stable_lr(problem: NoisyQuadratic, optimizer: Optimizer[float], batch_size: float | None = None) -> float: ...
@overload
def max_stable_lr(problem: NoisyQuadratic, optimizer: Optimizer, batch_size: ArrayLike | None = None) -> FloatArray: ...
def max_stable_lr(
    problem: NoisyQuadratic, optimizer: Optimizer, batch_size: ArrayLike | None = None
) -> float | FloatArray:
    """The learning rate at which the optimizer stops converging; below it every coordinate converges.

    2 / h_1 for plain SGD, 2 (1 + m) / h_1 for heavy ball, 2 (1 + m) / ((1 + 2 m) h_1) for Nesterov momentum, with h_1
    the largest of h^(1-p). ``optimizer.lr`` is not looked at and may be ``nqm.FREE``.

    With Gaussian features the noise feeds on the loss, and the limit depends on the batch size B, which has to be
    given: it is where

        sum_i mult_i phi(lr h_i) / (B - phi(lr h_i)) = 1,   phi(x) = x^2 sum_t (q^T M(x)^t gain)^2,

    if that comes first: the noise a unit of loss lets in, brings back a unit of loss. For plain SGD phi = x / (2 - x),
    so that lr is near 2 B / Tr(H) for small batches; for momentum it is (1 - m) times as much. Additive noise needs no
    batch_size, and its limit does not depend on it.

    Arrays of momentum, power or batch size broadcast to an array.

    Raises:
        TypeError, ValueError: for wrong arguments; Gaussian features without a batch size.

    >>> import nqm
    >>> nqm.max_stable_lr(nqm.NoisyQuadratic([4.0, 1.0]), nqm.SGD(nqm.FREE, momentum=0.9))
    0.95
    >>> regression = nqm.NoisyQuadratic([1.0], noise_model="gaussian-features", label_noise=1.0)
    >>> nqm.max_stable_lr(regression, nqm.SGD(nqm.FREE), batch_size=[1, 8, 1e9]).round(6)
    array([0.666667, 1.6     , 2.      ])
    """
    check_problem(problem, optimizer, free={"lr"})
    values = {name: value for name, value in optimizer.hyperparameters.items() if name != "lr"}
    dynamics = dynamics_of(problem, optimizer)
    if batch_size is None and dynamics.limit_needs_batch_size:
        raise ValueError("batch_size: expected one with Gaussian features, whose noise makes stability depend on it")
    sizes = np.ones(()) if batch_size is None else check_batch_sizes(batch_size)[0]
    if isinstance(batch_size, Schedule):
        raise TypeError(f"batch_size: expected numbers, got {batch_size}")
    shape = _checks.broadcast(**{k: np.shape(v) for k, v in values.items()}, batch_size=sizes.shape)
    if not dynamics.limit_needs_batch_size:
        limit = np.array(np.broadcast_to(dynamics.stability_limit(values), shape))
        return float(limit) if shape == () else limit
    out = np.empty(shape)
    flat = out.reshape(-1)
    for part, chunk, (size,) in row_chunks(values, shape, sizes):

        def limits(nodes: Dynamics, rows: Any, own: Any = chunk, batch: Any = size) -> FloatArray:
            return np.asarray(nodes.stability_limit(rows_of(own, rows), batch[rows]))

        flat[part] = dynamics.rule_for_risk().refined(limits)
    return float(out) if shape == () else out


def check_problem(problem: Any, optimizer: Any, free: set[str] | None = None) -> None:
    """Refuse what is not a problem and an optimizer, or has hyperparameters FREE that must be numbers."""
    _checks.instance(problem, NoisyQuadratic, "problem", "a nqm.NoisyQuadratic")
    _checks.instance(optimizer, Optimizer, "optimizer", "an optimizer such as nqm.SGD(0.1)")
    if set(optimizer.free) - (free or set()):
        optimizer.require_fixed()


def require_plain(optimizer: Optimizer) -> None:
    """Refuse arrays of hyperparameters."""
    if optimizer.shape != ():
        raise ValueError(f"optimizer: expected plain numbers, got arrays of shape {optimizer.shape}{ARRAYS}")


def row_chunks(
    values: Mapping[str, Any], shape: tuple[int, ...], *arrays: FloatArray | IntArray
) -> Iterator[tuple[slice, dict[str, FloatArray], list[FloatArray]]]:
    """Cut broadcast arguments of ``shape`` into runs of rows, so that memory stays bounded."""
    if shape == ():  # what is asked thousands of times
        single: list[Any] = [a.reshape(1) for a in arrays]
        yield slice(0, 1), {k: np.array(v).reshape(1) for k, v in values.items()}, single
        return
    size = int(np.prod(shape, dtype=np.int64))
    spread = {k: np.broadcast_to(v, shape) for k, v in values.items()}
    others: list[Any] = [np.broadcast_to(a, shape) for a in arrays]
    for first in range(0, size, ROWS_AT_ONCE):
        part = slice(first, min(first + ROWS_AT_ONCE, size))
        yield part, {k: v.flat[part] for k, v in spread.items()}, [a.flat[part] for a in others]


def check_batch_sizes(batch_size: Any) -> tuple[FloatArray, Schedule | None]:
    """Checked batch sizes as an array, and as a schedule where they are one (then the array is 1)."""
    if not isinstance(batch_size, Schedule):
        return _checks.reals(batch_size, "batch_size", low=0.0, high=np.inf, closed="high"), None
    if not np.all(batch_size.values > 0.0):
        raise ValueError(f"batch_size: expected a schedule of positive numbers, got {batch_size}")
    return np.ones(()), batch_size


def check_one_batch_size(batch_size: Any) -> tuple[float, Schedule | None]:
    """:func:`check_batch_sizes` where arrays make no sense."""
    size, batch_schedule = check_batch_sizes(batch_size)
    if size.shape != ():
        raise ValueError(f"batch_size: expected a single number or a schedule, got an array of shape {size.shape}")
    return float(size), batch_schedule


def take_out_schedule(optimizer: Optimizer) -> tuple[Schedule | None, dict[str, Any]]:
    """The schedule of the learning rate, if there is one, and the hyperparameters with 1 in its place."""
    schedule, values = optimizer.schedule, optimizer.hyperparameters
    return schedule, values if schedule is None else {**values, "lr": 1.0}


def risk_of_rows(dynamics: Dynamics, values: Values, batch_size: FloatArray, steps: IntArray) -> FloatArray:
    """:func:`risk` of rows of checked numbers, without schedules: all (R,)."""

    def at_steps(nodes: Dynamics, rows: Any) -> FloatArray:
        return nodes.risk(rows_of(values, rows), batch_size[rows], steps[rows])

    return dynamics.rule_for_risk().refined(at_steps)


def _risk_along(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    values: dict[str, Any],
    lr_schedule: Schedule | None,
    batch_schedule: Schedule | None,
    batch_size: FloatArray,
    steps: IntArray,
    out: FloatArray,
) -> None:
    """Fill ``out``: rows with the same hyperparameters and batch size share one way along the schedules, and those
    that stop at the same steps go together."""

    def follow(own: Values, batch_size: FloatArray, stops: IntArray) -> FloatArray:
        dynamics = dynamics_of(problem, optimizer, batch_schedule is None and bool(np.isinf(batch_size).all()))
        return _risk_at_stops(dynamics, own, batch_size, word_until(lr_schedule, batch_schedule, stops), stops.size)

    flat = out.reshape(-1)
    if out.size == 1:
        one = {name: np.reshape(value, 1) for name, value in values.items()}
        flat[:] = follow(one, batch_size.reshape(1), steps.reshape(1))[0]
        return
    for part, chunk, (size, time) in row_chunks(values, out.shape, batch_size, steps):
        table = np.stack([*chunk.values(), size], axis=1)
        rows, which = np.unique(table, axis=0, return_inverse=True)
        together: dict[Any, list[tuple[int, Any, Any]]] = {}  # rows, their places and columns, by where they stop
        order = np.argsort(which, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(which[order])) + 1):
            stops, column = np.unique(time[mine].astype(np.int64), return_inverse=True)
            noiseless = bool(np.isinf(size[mine[0]]))
            together.setdefault((stops.tobytes(), noiseless), []).append((which[mine[0]], mine, column))
        for (stops, _), alike in together.items():
            some = rows[[row for row, _, _ in alike]]
            own = {name: some[:, i] for i, name in enumerate(chunk)}
            found = follow(own, some[:, -1], np.frombuffer(stops, dtype=np.int64))
            for risks_of_row, (_, mine, column) in zip(found, alike, strict=True):
                flat[part.start + mine] = risks_of_row[column]


def _risk_at_stops(dynamics: Dynamics, values: Values, batch_size: FloatArray, word: Word, columns: int) -> FloatArray:
    """Risk along a word, (R, columns), on finer and finer rules until each number agrees with the one before."""

    def along(nodes: Dynamics, asked: Any) -> FloatArray:
        if isinstance(asked, slice):  # all
            return nodes.risk_along(values, batch_size, batch_size.size, word, columns).reshape(-1)
        wanted = np.arange(batch_size.size * columns)[asked]
        row, column = wanted // columns, wanted % columns
        some = np.zeros(batch_size.size, dtype=bool)
        some[row] = True
        found = nodes.risk_along(rows_of(values, some), batch_size[some], int(some.sum()), word, columns)
        return found[np.cumsum(some)[row] - 1, column]

    return dynamics.rule_for_risk().refined(along).reshape(batch_size.size, columns)
