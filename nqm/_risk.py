"""Expected risk, steady state and stability: a problem and an optimizer in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from . import _checks
from ._checks import FloatArray, IntArray
from .dynamics import additive, gaussian_features
from .optimizers import Optimizer
from .problems.quadratic import NoisyQuadratic
from .schedules import Schedule

AGREEMENT = 1e-11
"""Two rules for one spectrum agree when their risks differ by less than this, relative to the risk. Rules that miss an
oscillation can meet by chance: at 1e-9 one risk in 1500 with long momentum was accepted with an error of 5e-8."""

ARRAYS = "; for one run whose lr changes take nqm.Schedule(lrs, 1)"
"""What a person may have meant who gave arrays where one run is asked for."""

FOREVER = 81
"""Doublings after which a stable filter has reached its steady state: rates down to 1e-23 a step."""


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
        batch_size: examples a step, > 0 (need not be whole; inf: no noise), or a :class:`nqm.Schedule` of them.
            :mod:`nqm.noise` has the batch size that stands for sampling without replacement, or for enhanced noise.
        steps: whole numbers from 0 to 2^53; :func:`nqm.log_steps` spaces them for a logarithmic axis.

    All of them broadcast by NumPy's rules, a schedule like a number; the result has their common shape (a float when
    all are scalars), in units of loss. Divergence gives inf. Along a schedule the same recursion is chained from piece
    to piece; many ``steps`` cost one walk along it.

    Raises:
        TypeError, ValueError: for wrong arguments, before any work.

    >>> import nqm
    >>> problem = nqm.NoisyQuadratic.power_law(10_000)
    >>> round(nqm.risk(problem, nqm.SGD(0.1), batch_size=256, steps=1000), 4)
    1.6779
    >>> nqm.risk(problem, nqm.SGD([0.1, 1.0, 3.0]), batch_size=256, steps=1000).round(4)
    array([1.6779, 0.6209,    inf])
    """
    check_problem(problem, optimizer)
    problem = few_nodes(problem)
    batch, ramp = batches(batch_size)
    times = _checks.step_numbers(steps)
    shape = _checks.broadcast(optimizer=optimizer.shape, batch_size=batch.shape, steps=times.shape)
    out = np.empty(shape)
    flat = out.reshape(-1)
    schedule, values = split(optimizer)
    if schedule is not None or ramp is not None or problem.label_noise is not None:
        _scheduled_risk(problem, optimizer, values, schedule, ramp, batch, times, out)
        return float(out) if shape == () else out
    for part, chunk, (b, t) in in_chunks(values, shape, batch, times):
        flat[part] = risks(problem, optimizer, chunk, b, t.astype(np.int64))
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
    batch, ramp = batches(batch_size)
    schedule, values = split(optimizer)
    for given in (schedule, ramp):
        if given is not None and given.beyond == "error":
            raise ValueError(f"expected a schedule that holds its last value for a steady state, got {given} that ends")
    if schedule is not None:
        if schedule.values[-1] == 0.0:
            raise ValueError(f"lr: expected a schedule that ends above 0 for a steady state, got {schedule}")
        values["lr"] = float(schedule.values[-1])
    if ramp is not None:
        batch = np.asarray(ramp.values[-1])
    shape = _checks.broadcast(optimizer=optimizer.shape, batch_size=batch.shape)
    out = np.empty(shape)
    flat = out.reshape(-1)
    problem = few_nodes(problem)
    for part, chunk, (b,) in in_chunks(values, shape, batch):

        def limit(nodes: NoisyQuadratic, rows: Any, values: Any = chunk, b: Any = b) -> FloatArray:
            chosen = {k: v[rows] for k, v in values.items()}
            if nodes.label_noise is not None:
                return gaussian_features.steady_risk(nodes, optimizer, chosen, b[rows], b[rows].size)
            return additive.dyadic_risk(nodes, optimizer, chosen, b[rows], b[rows].size, FOREVER)[:, -1]

        flat[part] = refined(problem, limit)
        if problem.label_noise is not None and np.isinf(b).any():  # no noise that could grow
            flat[part] = np.where(np.isinf(b), refined(problem._additive(), limit), flat[part])
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
    values = {k: v for k, v in optimizer.hyperparameters.items() if k != "lr"}
    coupled = problem.label_noise is not None
    if batch_size is None and coupled:
        raise ValueError("batch_size: expected one with Gaussian features, whose noise makes stability depend on it")
    batch = np.ones(()) if batch_size is None else batches(batch_size)[0]
    if isinstance(batch_size, Schedule):
        raise TypeError(f"batch_size: expected numbers, got {batch_size}")
    shape = _checks.broadcast(**{k: np.shape(v) for k, v in values.items()}, batch_size=batch.shape)
    if not coupled:
        limit = np.array(np.broadcast_to(stable_lr(problem, optimizer, values), shape))
        return float(limit) if shape == () else limit
    out = np.empty(shape)
    flat = out.reshape(-1)
    for part, chosen, (b,) in in_chunks(values, shape, batch):

        def evaluate(nodes: NoisyQuadratic, rows: Any, chosen: Any = chosen, b: Any = b) -> FloatArray:
            return stable_lr(nodes, optimizer, {k: v[rows] for k, v in chosen.items()}, b[rows])

        flat[part] = refined(few_nodes(problem), evaluate)
    return float(out) if shape == () else out


def stable_lr(problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any = None) -> Any:
    """:func:`max_stable_lr` for given momentum and power, on the nodes of ``problem`` as they are."""
    largest = problem._extremes()[0]  # powers lie in [0, 1], so h^(1-p) is largest where h is
    alone = optimizer.stability_limit(values) / largest ** (1.0 - np.asarray(values.get("power", 0.0)))
    if problem.label_noise is None:
        return alone
    return gaussian_features.stable_lr(problem, optimizer, values, batch_size, alone)


def engine(problem: NoisyQuadratic) -> Any:
    """What computes its risks: additive noise, or Gaussian features, where coordinates feel each other."""
    return additive if problem.label_noise is None else gaussian_features


def few_nodes(problem: NoisyQuadratic) -> NoisyQuadratic:
    """A rule that refines to the problem, where coordinates feel each other and are many; else the problem."""
    if problem.label_noise is None:
        return problem
    return compressed_beyond(problem, gaussian_features.EXPLICIT_NODES)


def compressed_beyond(problem: NoisyQuadratic, most: int) -> NoisyQuadratic:
    """The problem itself, or for more nodes than ``most`` a rule that refines to it."""
    if not (problem._is_exact() and problem.curvature.size > most):
        return problem
    if "compressed" not in problem._prepared:
        problem._prepared["compressed"] = problem.compressed()
    found: NoisyQuadratic = problem._prepared["compressed"]
    return found


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


class Unresolved(ArithmeticError):
    """No rule of at most 2^22 nodes settles the risk (a huge spectrum under very long oscillation)."""

    def __init__(self, nodes: int) -> None:
        super().__init__(nodes)
        self.nodes = nodes

    def __str__(self) -> str:
        return (
            f"the risk on this spectrum is not settled to {AGREEMENT:g} with {self.nodes} nodes: the optimizer "
            "oscillates faster over the spectrum than they can follow. Use fewer steps, less momentum, or a smaller dim"
        )


def refined(problem: NoisyQuadratic, evaluate: Callable[[NoisyQuadratic, Any], FloatArray]) -> FloatArray:
    """``evaluate(nodes, rows)`` on finer and finer rules of ``problem`` until each row agrees with the one before."""
    found = evaluate(problem, slice(None))
    open_rows = np.arange(found.size)
    nodes = problem
    while open_rows.size and not nodes._is_exact():
        finer = nodes._finer()
        if finer is None or (finer.label_noise is not None and finer.curvature.size > gaussian_features.MOST_NODES):
            raise Unresolved(nodes.curvature.size)
        nodes = finer
        better = evaluate(nodes, open_rows)
        settled = agree(found[open_rows], better)
        found[open_rows] = better
        open_rows = open_rows[~settled]
    return found


def agree(a: Any, b: Any) -> Any:
    with np.errstate(invalid="ignore"):  # inf - inf
        return (a == b) | (np.abs(a - b) <= AGREEMENT * np.abs(b))


def in_chunks(
    values: Mapping[str, Any], shape: tuple[int, ...], *arrays: FloatArray | IntArray
) -> Iterator[tuple[slice, dict[str, FloatArray], list[FloatArray]]]:
    """Cut broadcast arguments of ``shape`` into runs of rows, so that memory stays bounded."""
    size = int(np.prod(shape, dtype=np.int64))
    spread = {k: np.broadcast_to(v, shape) for k, v in values.items()}
    others: list[Any] = [np.broadcast_to(a, shape) for a in arrays]
    for first in range(0, size, additive.ROWS_AT_ONCE):
        part = slice(first, min(first + additive.ROWS_AT_ONCE, size))
        yield part, {k: v.flat[part] for k, v in spread.items()}, [a.flat[part] for a in others]


def batches(batch_size: Any) -> tuple[FloatArray, Schedule | None]:
    """Checked batch sizes as an array, and as a schedule where they are one (then the array is 1)."""
    if not isinstance(batch_size, Schedule):
        return _checks.reals(batch_size, "batch_size", low=0.0, high=np.inf, closed="high"), None
    if not np.all(batch_size.values > 0.0):
        raise ValueError(f"batch_size: expected a schedule of positive numbers, got {batch_size}")
    return np.ones(()), batch_size


def one_batch(batch_size: Any) -> tuple[float, Schedule | None]:
    """:func:`batches` where arrays make no sense."""
    size, ramp = batches(batch_size)
    if size.shape != ():
        raise ValueError(f"batch_size: expected a single number or a schedule, got an array of shape {size.shape}")
    return float(size), ramp


def split(optimizer: Optimizer) -> tuple[Schedule | None, dict[str, Any]]:
    """The schedule of the learning rate, if there is one, and the hyperparameters with 1 in its place."""
    schedule, values = optimizer.schedule, optimizer.hyperparameters
    return schedule, values if schedule is None else {**values, "lr": 1.0}


def _scheduled_risk(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    values: dict[str, Any],
    schedule: Schedule | None,
    ramp: Schedule | None,
    batch: FloatArray,
    times: IntArray,
    out: FloatArray,
) -> None:
    """Fill ``out``: rows with the same hyperparameters and batch size share one walk along the schedules, and those
    that stop at the same steps are walked together."""

    def walk(own: Mapping[str, Any], size: FloatArray, stops: IntArray) -> FloatArray:
        parts = additive.pieces(schedule, ramp, stops)
        quiet = ramp is None and bool(np.isinf(size[0]))
        columns = stops.size

        def evaluate(nodes: NoisyQuadratic, asked: Any) -> FloatArray:
            if isinstance(asked, slice):  # all
                return engine(nodes).chained_risk(nodes, optimizer, own, size, size.size, parts, columns).reshape(-1)
            wanted = np.arange(size.size * columns)[asked]
            row, column = wanted // columns, wanted % columns
            some = np.zeros(size.size, dtype=bool)
            some[row] = True
            few = {k: v[some] for k, v in own.items()}
            found = engine(nodes).chained_risk(nodes, optimizer, few, size[some], int(some.sum()), parts, columns)
            return found[np.cumsum(some)[row] - 1, column]

        where = problem._additive() if quiet else problem
        return refined(where, evaluate).reshape(size.size, columns)

    flat = out.reshape(-1)
    if out.size == 1:
        flat[:] = walk({name: np.reshape(v, 1) for name, v in values.items()}, batch.reshape(1), times.reshape(1))[0]
        return
    for part, chosen, (b, t) in in_chunks(values, out.shape, batch, times):
        table = np.stack([*chosen.values(), b], axis=1)
        rows, which = np.unique(table, axis=0, return_inverse=True)
        together: dict[Any, list[tuple[int, Any, Any]]] = {}  # rows, their places and columns, by where they stop
        order = np.argsort(which, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(which[order])) + 1):
            stops, column = np.unique(t[mine].astype(np.int64), return_inverse=True)
            quiet = bool(np.isinf(b[mine[0]]))
            together.setdefault((stops.tobytes(), quiet), []).append((which[mine[0]], mine, column))
        for (stops, _), alike in together.items():
            some = rows[[row for row, _, _ in alike]]
            own = {name: some[:, i] for i, name in enumerate(chosen)}
            found = walk(own, some[:, -1], np.frombuffer(stops, dtype=np.int64))
            for risks_of_row, (_, mine, column) in zip(found, alike, strict=True):
                flat[part.start + mine] = risks_of_row[column]


def risks(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, FloatArray], batch: FloatArray, steps: IntArray
) -> FloatArray:
    """:func:`risk` of rows of checked numbers, without schedules, with additive noise: all (R,)."""

    def evaluate(nodes: NoisyQuadratic, rows: Any) -> FloatArray:
        chosen = {k: v[rows] for k, v in values.items()}
        return additive.risk(nodes, optimizer, chosen, batch[rows], steps[rows])

    return refined(problem, evaluate)
