"""Risk along a word, and its derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._checks import FloatArray
from ..._double_double import Pair, constant, product, product_transposed, sandwich
from ..types import FilterBatch, RiskGradient, Word
from .tiles import Filter, Moments, Tile, after, at_once, choose, concat, one_step, step_map, tile_of, to_numpy

__all__ = ["risk_and_gradient"]


@np.errstate(all="ignore")
def risk_and_gradient(batch: FilterBatch, word: Word, spans: FloatArray, xp: Any = np) -> RiskGradient:
    """Risk after J letters, and its derivatives by log lr_j, log(1 / batch_j) and V other hyperparameters.

    Row 0 is the filter, rows 1 + 2 v and 2 + 2 v are those at value + span / 2 and value - span / 2 of hyperparameter
    v. M and b are polynomials of degree two at most in each and in lr, so central differences are derivatives. Lr and
    curvature come scaled as in :func:`nqm.backends.reference.risk.risk_along`.

    Second moments Q of start and noise together follow Q_j+1 = T Q_j T^T + w G with T = M_j^s, w = noise_weight h^2.
    The risk is v Q_J v^T, v = r^T; pulled back, v_j = v_j+1 T. So what letter j adds is v w G v^T, and its slope
    2 (v dT) Q_j (v T)^T + v w dG v^T.
    """
    letters = word.repeat.size
    out = RiskGradient(0.0, np.zeros(letters), np.zeros(letters), np.zeros(spans.size))
    filters = [_letters_as_rows(batch, word, row) for row in range(1 + 2 * spans.size)]
    found, size = 0.0, max(1, at_once(xp) // letters)
    for first in range(0, batch.start_weight.size, size):  # letters are the rows of a tile
        tile = tile_of(filters[0], slice(first, first + size), xp)
        leap, d_leap = _many_steps(tile, word, *_single_steps(tile, filters, spans))
        w = tile.noise_weight * tile.h.high[:1, ...] * tile.h.high[:1, ...]
        q, v, last, read = _both_ways(tile, leap, w)
        found += float(_totals(tile, sandwich(read, last))[0])
        out.by_log_inverse_batch_size[:] += _totals(tile, sandwich(v, leap.noise) * w)
        for i, d in enumerate(d_leap):
            through = product_transposed(product(product(v, d.mean), q), product(v, leap.mean)) * 2.0
            by_letter = _totals(tile, through + sandwich(v, d.noise) * w)
            if i == 0:
                out.by_log_lr[:] += by_letter
            else:
                out.by_value[i - 1] += by_letter.sum()
    return out._replace(risk=np.inf if np.isnan(found) else found)


def _letters_as_rows(batch: FilterBatch, word: Word, row: int) -> FilterBatch:
    """The letters of a word in one row of a batch, as rows with a step map each."""
    return batch._replace(
        power_index=np.full(word.repeat.size, batch.power_index[0]),
        lr=batch.lr[0] * word.lr,
        transition=batch.transition[row, word.map][:, None],
        gain=batch.gain[row, word.map][:, None],
        averaging_weight=batch.averaging_weight[row, word.map][:, None],
        inverse_batch_size=batch.inverse_batch_size[0] * word.inverse_batch_size,
    )


def _single_steps(tile: Tile, filters: list[FilterBatch], spans: FloatArray) -> tuple[Moments, list[Moments]]:
    """One step of each letter, and its derivatives by log lr and by the hyperparameters."""
    xp, lr, h = tile.xp, tile.lr, tile.h
    changes: list[tuple[Pair, Filter, Pair, Filter, float]] = [(lr * 1.5, tile.filter, lr * 0.5, tile.filter, 1.0)]
    for v, span in enumerate(spans.tolist()):
        changes.append((lr, step_map(filters[2 * v + 1], 0, xp), lr, step_map(filters[2 * v + 2], 0, xp), span))
    m, b = one_step(tile.filter, lr, h, xp)
    slopes = []
    for lr1, filter1, lr2, filter2, span in changes:
        (m1, b1), (m2, b2) = one_step(filter1, lr1, h, xp), one_step(filter2, lr2, h, xp)
        dm, db = (m1 - m2) * (1.0 / span), (b1 - b2) * (1.0 / span)
        noise = (product_transposed(db, b) + product_transposed(b, db)) * tile.inverse_batch_size
        slopes.append(Moments(dm, noise))
    return Moments(m, product_transposed(b, b) * tile.inverse_batch_size), slopes


def _many_steps(tile: Tile, word: Word, step: Moments, d_step: list[Moments]) -> tuple[Moments, list[Moments]]:
    """All steps of each letter, and their derivatives."""
    still = tile.first_state().noise
    leap = Moments(constant(np.eye(len(tile.start)), tile.xp, tile.h.high.shape), still)
    d_leap = [Moments(still, still) for _ in d_step]
    for level in range(int(word.repeat.max()).bit_length()):
        if level:
            d_step = [_after_slope(step, d, step, d) for d in d_step]
            step = after(step, step)
        taken = (word.repeat >> level) & 1 == 1
        further = [_after_slope(step, d, leap, e) for d, e in zip(d_step, d_leap, strict=True)]
        d_leap = [choose(taken, e, d, tile.xp) for e, d in zip(further, d_leap, strict=True)]
        leap = choose(taken, after(step, leap), leap, tile.xp)
    return leap, d_leap


def _both_ways(tile: Tile, leap: Moments, w: Any) -> tuple[Pair, Pair, Pair, Pair]:
    """Moments before each letter, the readout pulled back to after each, and both after the last."""
    letters, xp = tile.h.high.shape[0], tile.xp
    moments = constant(np.outer(tile.start, tile.start), xp, w.shape) * tile.start_weight
    before, read = [], [constant([tile.filter.readout], xp, w.shape)]
    for j in range(letters):
        before.append(moments)
        moments = sandwich(leap.mean[:, :, j : j + 1, :], moments) + leap.noise[:, :, j : j + 1, :] * w
    for j in range(letters - 1, 0, -1):
        read.append(product(read[-1], leap.mean[:, :, j : j + 1, :]))
    return concat(before, xp), concat(read[::-1], xp), moments, read[0]


def _totals(tile: Tile, by_node: Pair) -> FloatArray:
    """Sums over nodes, without those that have no weight."""
    values, xp = by_node.high[0, 0, ...], tile.xp
    found: FloatArray = to_numpy(
        tile.total(xp.where(tile.start_weight + tile.noise_weight > 0.0, values, xp.zeros_like(values)))
    )
    return found


def _after_slope(steps: Moments, d_steps: Moments, what: Moments, d_what: Moments) -> Moments:
    """The derivative of ``after(steps, what)``: (dM A + M dA, dG + dM S M^T + M S dM^T + M dS M^T)."""
    m, dm, s = steps.mean, d_steps.mean, what.noise
    turned = product_transposed(product(dm, s), m) + product_transposed(product(m, s), dm)
    return Moments(product(dm, what.mean) + product(m, d_what.mean), d_steps.noise + turned + sandwich(m, d_what.noise))
