"""From problems and optimizers to the arrays that the kernels take, and back.

Nothing is compiled and Numba is not imported before the first number is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._checks import FloatArray, IntArray

if TYPE_CHECKING:  # the kernels' side knows these only by the attributes it reads
    from collections.abc import Mapping

    from .optimizers import Optimizer
    from .problem import NoisyQuadratic

ROWS_AT_ONCE = 2**16
BATCH_OF_MARCHES = 100_000


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


def risk(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, steps: IntArray
) -> FloatArray:
    """Expected risk, one a row: values, batch_size are numbers or (R,), steps is (R,)."""
    from . import _kernels

    out = np.empty(steps.size)
    _kernels.risk_rows(*rows(problem, optimizer, values, batch_size, steps.size), steps, out)
    return out


def dyadic_risk(
    problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: Any, count: int, levels: int
) -> FloatArray:
    """Expected risk after 2^j steps, j = 0 ... levels - 1: shape (count, levels)."""
    from . import _kernels

    out = np.empty((count, levels))
    _kernels.dyadic_rows(*rows(problem, optimizer, values, batch_size, count), out)
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
    )


class March:
    """The walk of :func:`nqm._kernels.march` for a single row; ``run`` goes on until there is an answer."""

    def __init__(
        self, problem: NoisyQuadratic, optimizer: Optimizer, values: Mapping[str, Any], batch_size: float
    ) -> None:
        from . import _kernels

        self._kernels = _kernels
        self._row = rows(problem, optimizer, values, batch_size, 1)
        self._fill(16)

    def run(self, target: float, last: bool) -> float:
        """First step at or below ``target``; or the one after the last above it; inf if there is none."""
        kernels, row = self._kernels, self._row
        state = self._origin.copy()
        ahead, progress = np.empty_like(state), np.zeros(4, dtype=np.int64)
        while True:
            status = kernels.march(
                row.curvature[0], row.bias, row.noise, row.lr[0], row.fresh[0, 0], row.readout, row.start,
                row.inverse_batch[0],
                self._powers, self._boxes, state, ahead, target, last, progress, BATCH_OF_MARCHES,
            )  # fmt: skip
            if status == kernels.FOUND:
                return float(progress[2])
            if status == kernels.NEVER:
                return float("inf")
            if status == kernels.MORE_LEVELS:
                self._fill(min(54, self._powers.shape[0] + 16))

    def _fill(self, levels: int) -> None:
        kernels, row, k = self._kernels, self._row, len(self._row.start)
        blocks = -(-row.bias.size // kernels.BLOCK)
        self._powers = np.empty((levels, blocks, kernels.power_slots(k) * kernels.BLOCK))
        self._boxes = np.empty((levels, blocks, 2 * k * kernels.BLOCK))
        self._origin = np.empty((blocks, kernels.state_slots(k) * kernels.BLOCK))
        kernels.fill_levels(
            row.curvature[0], row.lr[0], row.transition[0], row.gain[0], row.fresh[0], row.query, row.readout,
            row.start, self._powers, self._boxes, self._origin,
        )  # fmt: skip


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
            np.pad(0.5 * problem.multiplicity * (problem.noise / problem.curvature), padding),
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
