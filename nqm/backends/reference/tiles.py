"""The readable backend's arrays: the mathematics in 32 digits, for rows of hyperparameters and nodes of the spectrum.

Written for any namespace ``xp`` of the Python array API standard: NumPy, or ``array_api_compat.cupy`` on a GPU.

One coordinate of the noisy quadratic under a linear optimizer is z' = M z + b eps, with a state z of k numbers. After s
steps, z = M^s z_0 + noise of covariance G_s, and both come by doubling from a single step:

    M^2s = M^s M^s,   G_2s = G_s + M^s G_s M^s^T,   M^1 = M,   G_1 = b b^T.

The risk of a coordinate is start_weight d^2 + noise_weight / B (lr h)^2 g: of d = r . u, how much of the start is left
in the mean u, and g = r^T S r, how much noise has come in. M^s amplifies the rounding of M by s, up to 2^53, so
everything is in double-double numbers, in the filter's own coordinates. (At the far end of critical damping,
lr h = (1 + sqrt(m))^2 with momentum m, M^s is r^s (1 + s K) with K^2 = 0, and rounding errors grow like s^3 10^-32:
what is left of the start after s > 10^7 steps has fewer than 12 digits.) Matrices are arrays (k, k, R, n): rows of
hyperparameters and nodes of the spectrum lie along the last two axes (:mod:`nqm._double_double`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from ... import _double_double as double_double
from ..._checks import FloatArray, IntArray
from ..._double_double import Pair, constant, dot, exact, product, product_transposed, sandwich
from ..types import FilterBatch

__all__ = [
    "Array",
    "Filter",
    "Moments",
    "Tile",
    "after",
    "at_once",
    "choose",
    "concat",
    "map_tree",
    "one_step",
    "step_map",
    "take",
    "tile_of",
    "tiles",
    "to_numpy",
]

Array = Any  # of the namespace

TILE = 2**13
"""Nodes times rows that are computed at once on the CPU: memory is some hundred times as many numbers."""

DEVICE = 2**8
"""Times as many on a GPU, whose calls take long to start."""


# --- arrays by rows ----------------------------------------------------------------------------------------------


def map_tree(function: Any, *trees: Any) -> Any:
    """``function`` of the arrays in pairs, moments or boxes, one by one."""
    first = trees[0]
    if isinstance(first, Pair):
        return Pair(function(*[p.high for p in trees]), function(*[p.low for p in trees]))
    if isinstance(first, tuple):
        return type(first)(*[map_tree(function, *parts) for parts in zip(*trees, strict=True)])
    return function(*trees)


def choose(rows: Any, yes: Any, no: Any, xp: Any) -> Any:
    """One or the other, by row."""
    mask = xp.asarray(rows[:, None])
    return map_tree(lambda a, b: xp.where(mask, a, b), yes, no)


def take(tree: Any, rows: IntArray, xp: Any) -> Any:
    at = xp.asarray(rows)
    return map_tree(lambda a: xp.take(a, at, axis=-2), tree)


def concat(trees: list[Any], xp: Any) -> Any:
    """The rows of one after those of the other."""
    return map_tree(lambda *a: xp.concat(a, axis=-2), *trees)


def to_numpy(x: Array) -> Any:
    return np.asarray(x.get() if hasattr(x, "get") else x)  # CuPy's arrays come to the CPU only when asked


# --- steps and states --------------------------------------------------------------------------------------------


class Moments(NamedTuple):
    """Of s steps: M^s (k, k, R, n) and G_s (k, k, R, n). Of a state: its mean u (k, 1, R, n) and covariance S."""

    mean: Pair
    noise: Pair


def after(steps: Moments, what: Moments) -> Moments:
    """``steps`` after a state, or after other steps: (M u, G + M S M^T)."""
    return Moments(product(steps.mean, what.mean), steps.noise + sandwich(steps.mean, what.noise))


class Filter(NamedTuple):
    """One step map of each row; with an average, ``mixture`` is what it is an average of."""

    transition: Pair  # (k, k, R, 1)
    gain: Pair  # (k, 1, R, 1)
    averaging_weight: Pair  # (R, 1)
    query: list[float]
    lr_scaled: list[int]
    mixture: list[float]
    readout: list[float]
    average: bool


def step_map(batch: FilterBatch, m: int, xp: Any) -> Filter:
    """Map m of each row."""
    k, readout = len(batch.start), batch.readout.tolist()

    def pair(parts: FloatArray) -> Pair:  # (R, 2, ...) to (..., R, 1)
        high, low = (np.moveaxis(parts[:, i], 0, -1)[..., None] for i in range(2))
        return Pair(xp.asarray(high), xp.asarray(low))

    weight = batch.averaging_weight[:, m]
    return Filter(
        pair(batch.transition[:, m]), pair(batch.gain[:, m, ..., None]), pair(weight),
        batch.query.tolist(), batch.lr_scaled.tolist(), readout,
        np.eye(k)[-1].tolist() if batch.averages else readout, k > 2 and bool(np.any(weight[:, 0] > 0.0)),
    )  # fmt: skip


def one_step(of: Filter, lr: Pair, h: Pair, xp: Any) -> tuple[Pair, Pair]:
    """M (k, k, R, n) and b (k, 1, R, 1) of :func:`nqm._double_double.one_step`, the states of lr_scaled = 1 in units
    of lr."""
    states = range(len(of.lr_scaled))
    m, b = double_double.one_step(
        [[of.transition[i, j, ...] for j in states] for i in states],
        [of.gain[i, 0, ...] for i in states],
        of.query,
        of.lr_scaled,
        lr,
        h,
        (of.averaging_weight, of.mixture) if of.average else None,
    )

    def stacked(entries: list[Any], like: Pair) -> Pair:
        zero = exact(xp.zeros_like(like.high), xp)
        return map_tree(lambda *x: xp.stack(x), *[zero + entry for entry in entries])

    return map_tree(lambda *x: xp.stack(x), *[stacked(row, h) for row in m]), stacked(b, lr)[:, None, ...]


# --- tiles -------------------------------------------------------------------------------------------------------


class Tile(NamedTuple):
    """R rows on n nodes that are computed at once, as arrays of the namespace."""

    filter: Filter
    start: tuple[float, ...]
    lr: Pair  # (R, 1)
    h: Pair  # (R, n)
    start_weight: Array  # (n,)
    noise_weight: Array  # (n,)
    inverse_batch_size: Array  # (R, 1)
    xp: Any

    def first_state(self) -> Moments:
        """z0 without noise."""
        u, k, shape = np.array(self.start)[:, None], len(self.start), self.h.high.shape
        return Moments(constant(u, self.xp, shape), constant(np.zeros((k, k)), self.xp, shape))

    def one_step(self) -> Moments:
        """For noise in units of lr sqrt(c / B): M = A - x gain query^T with x = lr h, and G = gain gain^T."""
        m, b = one_step(self.filter, exact(self.xp.ones_like(self.lr.high), self.xp), self.lr * self.h, self.xp)
        return Moments(m, exact(self.xp.zeros_like(m.high), self.xp) + product_transposed(b, b))

    def read(self, state: Moments) -> tuple[Array, Array]:
        """d = r . u and g = r^T S r, (R, n)."""
        r, zero = self.filter.readout, exact(self.xp.zeros_like(self.h.high), self.xp)
        g = [dot(r, state.noise[:, i : i + 1, ...], zero) * p for i, p in enumerate(r) if p != 0.0]
        return dot(r, state.mean, zero).high, reduce(Pair.__add__, g, zero).high

    def risks(self, state: Moments) -> Array:
        """Risk of each row, summed over the nodes: (R,)."""
        d, g = self.read(state)
        return self.total(self.weighted(self.start_weight, d * d) + self.noise_risks(g))

    def noise_risks(self, g: Array) -> Array:
        """noise_weight / B (lr h)^2 g, (R, n)."""
        x = self.lr.high * self.h.high
        return self.weighted(self.noise_weight * self.inverse_batch_size, x * (x * g))

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


def at_once(xp: Any) -> int:
    """Nodes times rows of a tile."""
    return TILE * (DEVICE if xp.__name__.endswith("cupy") else 1)


def tiles(batch: FilterBatch, xp: Any) -> Iterator[tuple[slice, FilterBatch, slice]]:
    """Rows, their batch, and nodes, of each tile. A row is cut into the same nodes however many rows there are."""
    nodes = min(batch.start_weight.size, at_once(xp))
    rows = max(1, at_once(xp) // nodes)
    for first in range(0, batch.lr.size, rows):
        some = slice(first, first + rows)
        for node in range(0, batch.start_weight.size, nodes):
            yield some, batch.part(some), slice(node, node + nodes)


def tile_of(batch: FilterBatch, nodes: slice, xp: Any) -> Tile:
    """All rows on some nodes, with their first step maps."""
    lr, h = xp.asarray(batch.lr[:, None]), xp.asarray(batch.curvature[:, nodes][batch.power_index])
    start_weight, noise_weight, inverse_batch_size = (
        xp.asarray(x) for x in (batch.start_weight[nodes], batch.noise_weight[nodes], batch.inverse_batch_size[:, None])
    )
    return Tile(
        step_map(batch, 0, xp), batch.start, exact(lr, xp), exact(h, xp), start_weight, noise_weight,
        inverse_batch_size, xp,
    )  # fmt: skip
