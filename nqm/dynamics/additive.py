"""Additive noise: every coordinate evolves on its own, as a product of small linear maps.

From problems and optimizers to the arrays that the backends take. Nothing is compiled and Numba is not imported before
the first number is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import backends
from .._checks import FloatArray, IntArray
from ..backends.types import LANES, Pieces, Rows, Slopes, unit_of
from ..optimizers import Optimizer
from ..problems.quadratic import NoisyQuadratic
from .base import Dynamics, Values

__all__ = ["Additive", "rows"]

LR_RATIO = 128  # powers of two between learning rates that are followed along schedules together
TABLES = 2**22  # numbers in tables of preconditioned curvatures that are held at once

FOREVER = 81
"""Doublings after which a stable filter has reached its steady state: rates down to 1e-23 per step."""


class Additive(Dynamics):
    """Noise of variance c / batch size, wherever theta is."""

    has_gradient = True

    def risk(self, values: Values, batch_size: Any, steps: IntArray) -> FloatArray:
        backend = backends.chosen()
        return self._by_powers(values, batch_size, (steps.size,), lambda batch, rows: backend.risk(batch, steps[rows]))

    def dyadic_risk(self, values: Values, batch_size: Any, count: int, levels: int) -> FloatArray:
        backend = backends.chosen()
        return self._by_powers(values, batch_size, (count, levels), lambda batch, _: backend.dyadic_risk(batch, levels))

    def risk_along(self, values: Values, batch_size: Any, count: int, word: Pieces, columns: int) -> FloatArray:
        backend, largest = backends.chosen(), word.lr.max(initial=0.0)

        def compute(batch: Rows, _: Any) -> FloatArray:
            """Rows of about the same unit at a time: in that of a far larger learning rate they would underflow."""
            units = np.frexp(batch.lr)[1] // LR_RATIO
            if batch.lr.size == 1 or units.min() == units.max():
                found: FloatArray = backend.chained_risk(batch.in_units(largest), word, columns)
                return found
            out = np.empty((batch.lr.size, columns))
            for unit in np.unique(units):
                some = np.flatnonzero(units == unit)
                out[some] = backend.chained_risk(batch.part(some).in_units(largest), word, columns)
            return out

        return self._by_powers(values, batch_size, (count, columns), compute)

    def first_passage(self, values: Values, batch_size: Any, target: FloatArray, last: bool) -> FloatArray:
        backend = backends.chosen()

        def compute(batch: Rows, rows: Any) -> FloatArray:
            wanted = target[rows]
            found: FloatArray = backend.crossings(batch, wanted, last)
            for i in np.flatnonzero(np.isnan(found)):  # it takes very many leaps
                from ..backends.first_passage import March

                found[i] = March(batch.part(slice(i, i + 1))).run(float(wanted[i]), last)
            return found

        return self._by_powers(values, batch_size, (target.size,), compute)

    def first_passage_along(
        self, values: Values, batch_size: float, word: Pieces, end: int, target: float, last: bool
    ) -> float:
        from ..backends.first_passage import along_schedules

        batch = rows(self.problem, self.optimizer, values, batch_size, 1)
        decay = self.optimizer.step_map(values).decay_at_zero_lr
        return along_schedules(batch, word, end, decay, target, last)

    def steady_risk(self, values: Values, batch_size: Any, count: int) -> FloatArray:
        return self.dyadic_risk(values, batch_size, count, FOREVER)[:, -1]

    def stability_limit(self, values: Values, batch_size: Any = None) -> Any:
        largest = self.problem._extremes()[0]  # powers lie in [0, 1], so h^(1-p) is largest where h is
        return self.optimizer.stability_limit(values) / largest ** (1.0 - np.asarray(values.get("power", 0.0)))

    def risk_and_gradient(
        self, values: Values, free: tuple[str, ...], lr: FloatArray, inverse_batch: FloatArray, lengths: IntArray
    ) -> Slopes:
        """Risk after pieces of ``lengths`` steps, and its derivatives: by the pieces' log lr and log 1 / batch size,
        and by the ``free`` hyperparameters (not at an end of their domain)."""
        spans = np.array([self.optimizer.described[name].span(values[name]) for name in free])
        filters = [self.optimizer.step_map(values).packed]
        for name, span in zip(free, spans, strict=True):
            ends = ({**values, name: values[name] + sign * span} for sign in (0.5, -0.5))
            filters += [self.optimizer.step_map(end).packed for end in ends]
        nodes, first = _prepared(self.problem), filters[0]
        curvature = _preconditioned(self.problem, float(values.get("power", 0.0)))
        exponent = unit_of(float(lr.max()))
        noise = nodes.noise if np.any(inverse_batch) else np.zeros_like(nodes.noise)
        still = np.where((nodes.bias > 0.0) | (noise > 0.0), np.ldexp(curvature, exponent), 0.0)
        found: Slopes = backends.chosen().slopes(
            still, nodes.bias, noise, np.ldexp(lr, -exponent),
            np.stack([f.transition for f in filters]), np.stack([f.gain for f in filters]),
            np.stack([f.averaging_weight for f in filters]), first.query, first.readout, first.start,
            first.lr_scaled, inverse_batch, lengths, spans,
        )  # fmt: skip
        return found

    def _by_powers(
        self, values: Values, batch_size: Any, shape: tuple[int, ...], compute: Callable[[Rows, Any], FloatArray]
    ) -> FloatArray:
        """``compute(batch, rows)``, of shape (R, ...): on all rows, or on some after others where the tables h^(1-p)
        of their powers would take too much memory together."""
        power, most = values.get("power", 0.0), max(1, TABLES // self.problem.curvature.size)
        if np.ndim(power) == 0 or shape[0] <= most or np.unique(power).size <= most:
            return compute(rows(self.problem, self.optimizer, values, batch_size, shape[0]), slice(None))
        powers, which = np.unique(power, return_inverse=True)
        out = np.empty(shape)
        for first in range(0, powers.size, most):
            some = np.flatnonzero((which >= first) & (which < first + most))
            few = {name: value[some] if np.ndim(value) else value for name, value in values.items()}
            batch = batch_size[some] if np.ndim(batch_size) else batch_size
            out[some] = compute(rows(self.problem, self.optimizer, few, batch, some.size), some)
        return out


def rows(problem: NoisyQuadratic, optimizer: Optimizer, values: Values, batch_size: Any, count: int) -> Rows:
    """Rows of hyperparameters on the nodes of a problem, as the backends take them."""
    nodes = _prepared(problem)
    power = np.asarray(values.get("power", 0.0))
    if power.ndim == 0:
        curvature, which = _preconditioned(problem, float(power))[None, :], np.zeros((), dtype=np.int64)
    else:
        powers, which = np.unique(power, return_inverse=True)
        curvature = np.stack([_preconditioned(problem, float(p)) for p in powers])
    with np.errstate(over="ignore"):  # a batch size below 1e-308: infinitely much noise
        inverse_batch = 1.0 / np.asarray(batch_size)
    parts = optimizer.step_map(values).packed
    k = len(parts.start)
    return Rows(
        curvature,
        _spread(which, (count,), np.int64),
        nodes.bias if np.any(parts.start) else np.zeros_like(nodes.bias),  # what stays 0 is no 0 * inf
        nodes.noise if np.any(parts.gain) else np.zeros_like(nodes.noise),
        _spread(values["lr"], (count,)),
        _spread(parts.transition, (count, 2, k, k)),
        _spread(parts.gain, (count, 2, k)),
        _spread(parts.averaging_weight, (count, 2)),
        parts.query,
        parts.readout,
        parts.start,
        _spread(inverse_batch, (count,)),
        parts.lr_scaled,
    )


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


def _spread(value: Any, shape: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
    out = np.empty(shape, dtype)
    out[...] = value
    return out
