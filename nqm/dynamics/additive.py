"""Additive noise: every coordinate evolves on its own, as a product of small linear maps.

From problems and optimizers to the arrays that the backends take. Nothing is compiled and Numba is not imported before
the first number is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import backends
from .._checks import FloatArray, IntArray
from ..backends.types import LANES, FilterBatch, RiskGradient, Word, unit_of
from ..optimizers import Optimizer
from ..problems.quadratic import NoisyQuadratic
from .base import Dynamics, Values

__all__ = ["Additive", "rows"]

LR_RATIO = 128  # powers of two between learning rates that are followed along schedules together
TABLES = 2**22  # numbers in tables of preconditioned curvatures that are held at once

STEADY_DOUBLINGS = 81
"""Doublings after which a stable filter has reached its steady state: rates down to 1e-23 per step."""


class Additive(Dynamics):
    """Noise of variance c / batch size, wherever theta is."""

    has_gradient = True

    def risk(self, values: Values, batch_size: Any, steps: IntArray) -> FloatArray:
        backend = backends.current_backend()
        return self._by_powers(values, batch_size, (steps.size,), lambda batch, rows: backend.risk(batch, steps[rows]))

    def dyadic_risk(self, values: Values, batch_size: Any, count: int, levels: int) -> FloatArray:
        backend = backends.current_backend()
        return self._by_powers(values, batch_size, (count, levels), lambda batch, _: backend.dyadic_risk(batch, levels))

    def risk_along(self, values: Values, batch_size: Any, count: int, word: Word, columns: int) -> FloatArray:
        backend, largest = backends.current_backend(), word.lr.max(initial=0.0)

        def compute(batch: FilterBatch, _: Any) -> FloatArray:
            """Rows of about the same unit at a time: in that of a far larger learning rate they would underflow."""
            units = np.frexp(batch.lr)[1] // LR_RATIO
            if batch.lr.size == 1 or units.min() == units.max():
                found: FloatArray = backend.risk_along(batch.in_units(largest), word, columns)
                return found
            out = np.empty((batch.lr.size, columns))
            for unit in np.unique(units):
                some = np.flatnonzero(units == unit)
                out[some] = backend.risk_along(batch.part(some).in_units(largest), word, columns)
            return out

        return self._by_powers(values, batch_size, (count, columns), compute)

    def first_passage(self, values: Values, batch_size: Any, target: FloatArray, last: bool) -> FloatArray:
        backend = backends.current_backend()
        return self._by_powers(
            values, batch_size, (target.size,), lambda batch, rows: backend.first_passage(batch, target[rows], last)
        )

    def first_passage_along(
        self, values: Values, batch_size: float, word: Word, end: int, target: float, last: bool
    ) -> float:
        batch = rows(self.problem, self.optimizer, values, batch_size, 1)
        decay = self.optimizer.map_at(values).decay_at_zero_lr
        found: float = backends.current_backend().first_passage_along(batch, word, end, decay, target, last)
        return found

    def steady_risk(self, values: Values, batch_size: Any, count: int) -> FloatArray:
        return self.dyadic_risk(values, batch_size, count, STEADY_DOUBLINGS)[:, -1]

    def stability_limit(self, values: Values, batch_size: Any = None) -> Any:
        largest = self.problem._extremes()[0]  # powers lie in [0, 1], so h^(1-p) is largest where h is
        return self.optimizer.stability_limit(values) / largest ** (1.0 - np.asarray(values.get("power", 0.0)))

    def risk_and_gradient(
        self, values: Values, free: tuple[str, ...], lr: FloatArray, inverse_batch_size: FloatArray, lengths: IntArray
    ) -> RiskGradient:
        """Risk after pieces of ``lengths`` steps, and its derivatives: by the pieces' log lr and log 1 / batch size,
        and by the ``free`` hyperparameters (not at an end of their domain)."""
        spans = np.array([self.optimizer.described[name].span(values[name]) for name in free])
        points = {name: np.full(1 + 2 * len(free), values[name]) for name in free}  # here, and half a span to each side
        for i, (name, span) in enumerate(zip(free, spans, strict=True)):
            points[name][1 + 2 * i : 3 + 2 * i] += [0.5 * span, -0.5 * span]
        count, parts = 1 + 2 * len(free), self.optimizer.map_at({**values, **points}).packed
        nodes, k = _prepared(self.problem), len(parts.start)
        curvature = _preconditioned(self.problem, float(values.get("power", 0.0)))
        exponent = unit_of(float(lr.max()))
        noise = nodes.noise_weight if np.any(inverse_batch_size) else np.zeros_like(nodes.noise_weight)
        weighed = np.where((nodes.start_weight > 0.0) | (noise > 0.0), np.ldexp(curvature, exponent), 0.0)
        ones, none = np.ones(count), np.zeros(lengths.size, dtype=np.int64)
        batch = FilterBatch(
            curvature=weighed[None, :],
            power_index=np.zeros(count, dtype=np.int64),
            start_weight=nodes.start_weight,
            noise_weight=noise,
            lr=ones,
            transition=_spread(parts.transition[..., None, :, :, :], (count, 1, 2, k, k)),
            gain=_spread(parts.gain[..., None, :, :], (count, 1, 2, k)),
            averaging_weight=_spread(parts.averaging_weight[..., None, :], (count, 1, 2)),
            query=parts.query,
            readout=parts.readout,
            start=parts.start,
            inverse_batch_size=ones,
            lr_scaled=parts.lr_scaled,
        )
        word = Word(none, np.ldexp(lr, -exponent), inverse_batch_size, lengths, none - 1)
        found: RiskGradient = backends.current_backend().risk_and_gradient(batch, word, spans)
        return found

    def _by_powers(
        self, values: Values, batch_size: Any, shape: tuple[int, ...], compute: Callable[[FilterBatch, Any], FloatArray]
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


def rows(problem: NoisyQuadratic, optimizer: Optimizer, values: Values, batch_size: Any, count: int) -> FilterBatch:
    """Rows of hyperparameters on the nodes of a problem, as the backends take them."""
    nodes = _prepared(problem)
    power = np.asarray(values.get("power", 0.0))
    if power.ndim == 0:
        curvature = _preconditioned(problem, float(power))[None, :]
        power_index = np.zeros(count, dtype=np.int64)
    else:
        powers, power_index = np.unique(power, return_inverse=True)
        curvature = np.stack([_preconditioned(problem, float(p)) for p in powers])
    with np.errstate(over="ignore"):  # a batch size below 1e-308: infinitely much noise
        inverse_batch_size = 1.0 / np.asarray(batch_size)
    parts = optimizer.map_at(values).packed
    k = len(parts.start)
    return FilterBatch(
        curvature=curvature,
        power_index=power_index,
        start_weight=nodes.start_weight if any(parts.start) else np.zeros_like(nodes.start_weight),  # no 0 * inf
        noise_weight=nodes.noise_weight if parts.gain.any() else np.zeros_like(nodes.noise_weight),
        lr=_spread(values["lr"], (count,)),
        transition=_spread(parts.transition[..., None, :, :, :], (count, 1, 2, k, k)),
        gain=_spread(parts.gain[..., None, :, :], (count, 1, 2, k)),
        averaging_weight=_spread(parts.averaging_weight[..., None, :], (count, 1, 2)),
        query=parts.query,
        readout=parts.readout,
        start=parts.start,
        inverse_batch_size=np.full(count, inverse_batch_size),
        lr_scaled=parts.lr_scaled,
    )


class _Prepared(NamedTuple):
    curvature: FloatArray
    start_weight: FloatArray
    noise_weight: FloatArray


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


def _spread(value: Any, shape: tuple[int, ...]) -> FloatArray:
    out = np.empty(shape)
    out[...] = value
    return out
