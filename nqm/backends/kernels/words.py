"""Risk along words of step maps, and first passage step by step."""

from __future__ import annotations

import numpy as np

from ..compilation import compiled
from ..types import FilterBatch, Word
from .blocks import BLOCK, OWN_POWER_SLOTS, total
from .first_passage import FOUND, NEVER
from .powers import run
from .risk import add_risk
from .shifts import follow_shift, undo_shift
from .step_maps import fill_step, new_tables, own_readout, tabulate

__all__ = ["first_passage_step_by_step", "risk_along_rows"]


@compiled
def risk_along_rows(fields, letters, states, out):
    """out[r, output_column[j]] += the risk of row r after letter j, for letters with output_column[j] >= 0.

    fields, letters: those of a FilterBatch and of a Word. Curvatures and learning rates come with the caller's power of
    two in them. states: (rows, blocks, slots BLOCK), the state before the first letter, and after the last when done.
    """
    batch, word = FilterBatch(*fields), Word(*letters)
    k = len(batch.start)
    P = np.empty(OWN_POWER_SLOTS[k] * BLOCK)
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    tables = new_tables(k)
    shifts, shifted = np.zeros((2, BLOCK)), False
    for r in range(batch.lr.size):
        readout = own_readout(batch, r, batch.start)
        noisy = 1.0 if batch.inverse_batch_size[r] > 0.0 else 0.0  # the batch size is in the state already
        for block in range(states.shape[1]):
            first = block * BLOCK
            count = min(BLOCK, batch.start_weight.size - first)
            h = batch.curvature[batch.power_index[r], first : first + count]
            weights = batch.start_weight[first : first + count], batch.noise_weight[first : first + count]
            largest = h.max()
            Z = states[r, block]
            shifted = False
            for j in range(word.repeat.size):
                lr = batch.lr[r] * word.lr[j]
                inverse_batch_size = batch.inverse_batch_size[r] * word.inverse_batch_size[j]
                tabulate(batch, r, word.map[j], lr, tables, batch.start)
                fill_step(h, 1.0, tables, inverse_batch_size, P, count)
                scales = lr, inverse_batch_size, batch.lr_scaled, readout
                shifted = follow_shift(batch.start, h, largest, scales, tables, shifts, shifted, P, Z, count)
                run(P, Z, word.repeat[j], count, batch.start)
                if word.output_column[j] >= 0:
                    terms[:] = 0.0
                    add_risk(h, weights, Z, readout, batch.start, 1.0, noisy, d, g, terms)
                    out[r, word.output_column[j]] += total(terms)
            if shifted:
                undo_shift(batch.start, shifts, Z, count)


@compiled
def first_passage_step_by_step(batch, word, states, target, last, progress):
    """Step by step along a word, one row: FOUND at the first t with risk <= target, NEVER if there is none.

    last = True: to the end, with progress[1] = the step after the last t with risk > target. progress = [t,
    answer]. states: (blocks, slots BLOCK), as in `risk_along_rows`.
    """
    k = len(batch.start)
    P = np.empty((states.shape[0], OWN_POWER_SLOTS[k] * BLOCK))
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    noisy, curvature = 1.0 if batch.inverse_batch_size[0] > 0.0 else 0.0, batch.curvature[batch.power_index[0]]
    start, start_weight, noise_weight = batch.start, batch.start_weight, batch.noise_weight
    readout, tables, one = own_readout(batch, 0, batch.start), new_tables(k), np.int64(1)
    for j in range(word.repeat.size):
        tabulate(batch, 0, word.map[j], batch.lr[0] * word.lr[j], tables, batch.start)
        inverse_batch_size = batch.inverse_batch_size[0] * word.inverse_batch_size[j]
        for block in range(states.shape[0]):
            first = block * BLOCK
            count = min(BLOCK, start_weight.size - first)
            h = curvature[first : first + count]
            fill_step(h, 1.0, tables, inverse_batch_size, P[block], count)
        for _ in range(word.repeat[j]):
            terms[:] = 0.0
            for block in range(states.shape[0]):
                first = block * BLOCK
                count = min(BLOCK, start_weight.size - first)
                h, Z = curvature[first : first + count], states[block]
                weights = start_weight[first : first + count], noise_weight[first : first + count]
                add_risk(h, weights, Z, readout, start, 1.0, noisy, d, g, terms)
                run(P[block], Z, one, count, start)
            above = not total(terms) <= target
            if above and last:
                progress[1] = progress[0] + 1
            elif not above and not last:
                progress[1] = progress[0]
                return FOUND
            progress[0] += 1
    return NEVER
