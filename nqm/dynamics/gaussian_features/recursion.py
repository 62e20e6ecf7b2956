"""The linear recursion of all second moments, and how many steps of it are taken at once.

A step's noise has variance (h (label_noise + 2 L) + h^2 E[d^2]) / B on a coordinate, with d and L those of the point
where the gradient is taken. So the second moments of all nodes obey one linear recursion, block by block but for L, a
single number that all of them add to and all of them feel:

    y' = A y + u label_noise,   A = 1 - D + u v^T,

where y holds the upper triangles of mult h E[z z^T] / 2 of each node, so that the risk is a sum over y. Few steps are
walked; many are taken by squaring A.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..._checks import FloatArray
from ..._double_double import one_step
from ...backends import current_backend
from ...backends.types import MomentRecursion
from ...optimizers import Optimizer
from ...problems.quadratic import NoisyQuadratic
from .. import additive
from ..base import Values

__all__ = ["Recursion", "Recursions"]

KEPT = 1100
"""Powers of matrices up to this size are kept for later; larger ones would fill the memory."""


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

    def cost_of_steps(self, steps: float) -> float:
        """About how many nanoseconds so many steps take one by one, as measured."""
        s, nodes = self.kick.shape
        return steps * (50.0 + {1: 0.45, 3: 0.95}.get(s, s * s / 6.0) * nodes)

    def cost_of_powers(self, levels: int) -> float:
        """About how many nanoseconds the first so many powers take."""
        size = self.kick.size
        return 0.08 * max(0, levels - max(1, len(self._powers))) * size**3 + 2.0 * levels * size**2 + 50_000.0

    def advance(self, state: FloatArray, steps: int) -> FloatArray:
        """y so many steps later; ``state`` is spent."""
        if self.label_noise == 0.0 and not np.any(state):
            return state  # at the optimum, whatever the powers do
        bits = steps.bit_length()
        if self.cost_of_steps(steps) <= self.cost_of_powers(bits):
            self.walk(state, steps)
            return state
        flat = state.ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            for bit, power in zip(range(bits), self.powers(), strict=False):
                if steps >> bit & 1:
                    flat = power.times(flat) + power.noise
        return flat.reshape(state.shape)

    def walk(self, state: FloatArray, steps: int, target: float = -1.0, last: bool = False) -> tuple[int, int]:
        """Step by step, in place: (steps taken, answer) of the backend's ``gaussian_features_steps``."""
        recursion = MomentRecursion(self.decay, self.kick, self.level, self.label_noise, self.readout)
        found: tuple[int, int] = current_backend().gaussian_features_steps(recursion, state, steps, target, last)
        return found

    def powers(self) -> Iterator[_Power]:
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


class Recursions:
    """The recursions of many rows of hyperparameters."""

    def __init__(
        self, problem: NoisyQuadratic, optimizer: Optimizer, values: Values, batch_size: Any, count: int
    ) -> None:
        assert problem.label_noise is not None
        self.row = additive.rows(problem, optimizer, values, batch_size, count)
        self.label_noise, self.optimizer = problem.label_noise, optimizer
        self.values = {name: np.broadcast_to(value, (count,)) for name, value in values.items()}

    def _gain(self, r: int, x: FloatArray, inverse_batch_size: float) -> float:
        """sum mult phi / (B - phi), as in :func:`stable_lr`, at x = lr h^(1-p); inf where a node is not stable."""
        values = {name: value[r] for name, value in self.values.items()}
        phi = inverse_batch_size * self.optimizer.noise_gain(x, values)
        if not (np.all(x < self.optimizer.stability_limit(values)) and np.all(phi < 1.0)):
            return np.inf
        return float(np.sum(2.0 * self.row.noise_weight * phi / (1.0 - phi)))

    def recursion(self, r: int, lr: float = 1.0, inverse_batch_factor: float = 1.0) -> Recursion:
        """Of row r, with its learning rate and inverse batch size times what is given."""
        with np.errstate(over="ignore", invalid="ignore"):  # what diverges at once
            return self._recursion(r, lr, inverse_batch_factor)

    def _recursion(self, r: int, lr: float, inverse_batch_factor: float) -> Recursion:
        row, k = self.row, len(self.row.start)
        h, rate = row.curvature[row.power_index[r]], row.lr[r] * lr
        inverse_batch_size = row.inverse_batch_size[r] * inverse_batch_factor
        # W = M - 1 and the gain of a step in units of curvature, states that scale with lr in units of it
        averages, weight = row.averages, row.averaging_weight[r, 0, 0]
        still = row.transition[r, 0, 0] - np.eye(k)
        if averages:
            still[-1, -1] = -weight
        matrix, kick_in = one_step(
            still.tolist(), row.gain[r, 0, 0].tolist(), row.query.tolist(), row.lr_scaled.tolist(), rate, h,
            (weight, row.readout.tolist()) if averages else None,
        )  # fmt: skip
        w = np.stack(
            [np.stack([np.broadcast_to(entry, h.shape) for entry in line], axis=-1) for line in matrix], axis=-2
        )
        if averages:  # of what the others read out after the step: of M, not of W
            w[:, -1, :-1] += weight * row.readout[:-1]
        kicks = h[:, None] * np.array(kick_in)
        upper = [(i, j) for i in range(k) for j in range(i, k)]
        decay = np.empty((len(upper), len(upper), h.size))
        kick = np.empty((len(upper), h.size))
        for a, (i, j) in enumerate(upper):
            both = kicks[:, i] * kicks[:, j] * inverse_batch_size
            kick[a] = row.noise_weight * both
            for b, (p, q) in enumerate(upper):
                found = _through(w, i, j, p, q) + both * (row.query[p] * row.query[q])
                if p < q:
                    found = found + _through(w, i, j, q, p) + both * (row.query[p] * row.query[q])
                decay[a, b] = -found
        read = np.eye(k)[-1] if averages else row.readout
        weights = [np.array([(1 + (i < j)) * v[i] * v[j] for i, j in upper]) for v in (row.query, read)]
        first = np.array([row.start_weight * row.start[i] * row.start[j] for i, j in upper])
        gain = self._gain(r, rate * h, inverse_batch_size)
        scale = h.max() ** -np.array([float(row.lr_scaled[i] + row.lr_scaled[j]) for i, j in upper])
        return Recursion(decay, kick, 2.0 * weights[0], weights[1], first, self.label_noise, gain, scale)


def _through(w: FloatArray, i: int, j: int, p: int, q: int) -> Any:
    """Entry of  1 x W + W x 1 + W x W  that takes z_p z_q to z_i z_j."""
    found = w[:, i, p] * w[:, j, q]
    if i == p:
        found = found + w[:, j, q]
    if j == q:
        found = found + w[:, i, p]
    return found
