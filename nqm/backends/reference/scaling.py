"""Fits to training logs: SGD on a power law along pieces of constant learning rate, with tangents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..._checks import FloatArray, IntArray

__all__ = ["effective_lrs", "mode_sums"]


def _pieces_in_turn(pieces: Any) -> Iterator[tuple[IntArray, IntArray]]:
    """Rows that have a first, second, ... piece, and these pieces."""
    counts = np.diff(pieces.first)
    for turn in range(counts.max(initial=0)):
        rows = np.flatnonzero(counts > turn)
        yield rows, pieces.first[rows] + turn


def effective_lrs(pieces: Any, growth: float, decay: float) -> tuple[FloatArray, FloatArray]:
    """Learning rates over weights that grow under normalised updates and shrink by decay, and their derivatives.

        dV/dk = growth s^2 - 2 decay s V,   V = 1 at each row's first step,   g = 2 s / (sqrt(V) + sqrt(V'))

    with V before and V' after a piece. pieces: with first (rows + 1,), each row's first piece, and the end; lengths,
    lrs s: (pieces,). Returns g (pieces,) and its derivatives by growth and by decay, (pieces, 2).
    """
    found, tangents = np.empty(pieces.lrs.size), np.empty((pieces.lrs.size, 2))
    count = pieces.first.size - 1
    v_all, d_all = np.ones(count), np.zeros((2, count))  # V, and its derivatives by growth and decay
    for rows, j in _pieces_in_turn(pieces):
        s, m, v, (v_growth, v_decay) = pieces.lrs[j], pieces.lengths[j], v_all[rows], d_all[:, rows]
        z = 2.0 * decay * s * m
        e, gain = np.exp(-z), s * s * m
        share, slope = _mean_of_exponential(z)
        root, root_growth, root_decay = np.sqrt(v), 0.5 * v_growth / np.sqrt(v), 0.5 * v_decay / np.sqrt(v)
        v_decay = e * (v_decay - 2.0 * s * m * v) + growth * gain * slope * 2.0 * s * m
        v_growth = e * v_growth + gain * share
        v = e * v + growth * gain * share
        g = 2.0 * s / (root + np.sqrt(v))
        found[j] = g
        tangents[j, 0] = -g / (root + np.sqrt(v)) * (root_growth + 0.5 * v_growth / np.sqrt(v))
        tangents[j, 1] = -g / (root + np.sqrt(v)) * (root_decay + 0.5 * v_decay / np.sqrt(v))
        v_all[rows], d_all[:, rows] = v, (v_growth, v_decay)
    return found, tangents


@np.errstate(all="ignore")
def _mean_of_exponential(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(1 - e^-z) / z and its derivative."""
    share = np.where(z > 1e-3, -np.expm1(-z) / z, 1.0 - z * (0.5 - z * (1.0 / 6.0 - z / 24.0)))
    return share, np.where(z > 1e-3, (np.exp(-z) - share) / z, -0.5 + z * (1.0 / 3.0 - z / 8.0))


@np.errstate(all="ignore")
def mode_sums(
    log_n: FloatArray, h: FloatArray, start: FloatArray, noise: FloatArray, pieces: Any, tangents: FloatArray
) -> FloatArray:
    """b and v of every mode along each row's pieces, summed over modes at the ends of the pieces that are seen.

    A piece of m steps at learning rate g, with x = g h:

        d = (1 - x)^(2 m)     b <- d b     v <- d v + g noise (1 - d) / (2 - x)

    log_n, h: (modes,); start, noise: (rows, modes), multiplicities included; pieces: with first (rows + 1,), lengths,
    lrs, seen: (pieces,); tangents: (pieces, D), derivatives of the learning rates. Returns (seen pieces, 6 + D): sums
    over modes of b, b log n, v, v log n, w, w log n, where w is the derivative of b + v by log h; then the D
    derivatives of b + v along the tangents.
    """
    directions = tangents.shape[1]
    seen = np.asarray(pieces.seen) != 0
    place = np.cumsum(seen) - 1
    sums = np.zeros((int(seen.sum()), 6 + directions))
    all_b, all_v = start.astype(float), np.zeros(start.shape)
    all_b_h, all_v_h, all_along = np.zeros(start.shape), np.zeros(start.shape), np.zeros((directions, *start.shape))
    for rows, j in _pieces_in_turn(pieces):
        g, m, b, v = pieces.lrs[j][:, None], pieces.lengths[j][:, None], all_b[rows], all_v[rows]
        x = g * h
        rest = 1.0 - x
        d = np.exp(2.0 * m * np.log(np.abs(rest)))
        slope = np.where(rest != 0.0, -2.0 * m * x * d / rest, 0.0)  # of d by log x
        kick = noise[rows] * (1.0 - d) / (2.0 - x)  # v' = d v + g kick
        bend = (kick * x - noise[rows] * slope) / (2.0 - x)  # of kick by log x
        both = slope * (b + v) + g * bend
        by_lr = np.where(g > 0.0, both / g + kick, 0.0)  # through x = g h, and as the factor before kick
        all_along[:, rows] = d * all_along[:, rows] + by_lr * tangents[j].T[:, :, None]
        all_b_h[rows] = d * all_b_h[rows] + slope * b
        all_v_h[rows] = d * all_v_h[rows] + slope * v + g * bend
        all_b[rows], all_v[rows] = b * d, d * v + g * kick
        at = rows[seen[j]]
        w = all_b_h[at] + all_v_h[at]
        for column, values in enumerate((all_b[at], all_v[at], w)):
            sums[place[j][seen[j]], 2 * column] = values.sum(axis=1)
            sums[place[j][seen[j]], 2 * column + 1] = values @ log_n
        sums[place[j][seen[j]], 6:] = all_along[:, at].sum(axis=2).T
    return sums
