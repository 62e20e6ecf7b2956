"""Risk along words, and first passage step by step."""

from __future__ import annotations

import numpy as np

from ..compilation import compiled
from .blocks import BLOCK, OWN_POWER_SLOTS, total
from .first_passage import FOUND, NEVER
from .powers import run
from .risk import add_noise_risk, add_start_risk, read_state
from .shifts import choose_shifts, shift_state, shift_step
from .step_maps import fill_step, own_readout, tabulate


@compiled
def risk_along_rows(
    curvature, which, bias, noise, lr, transition, gain, fresh, query, readout, start, inverse_batch,
    scaled, piece_lr, piece_inverse_batch, lengths, column, states, out,
):  # fmt: skip
    """out[r, column[j]] += the risk of row r after piece j, for pieces with column[j] >= 0.

    As `risk_rows`, with learning rate lr[r] piece_lr[j] and inverse batch size inverse_batch[r] piece_inverse_batch[j]
    for lengths[j] steps. curvature: (powers, nodes) with the caller's power of two in it. states: (rows, blocks,
    slots BLOCK), the state before the first piece, and after the last when done.
    """
    k = len(start)
    P = np.empty(OWN_POWER_SLOTS[k] * BLOCK)
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    constant, linear, b = np.empty((2, k, k)), np.empty((2, k, k)), np.empty(k)
    shift, before, none = np.empty(BLOCK), np.empty(BLOCK), np.zeros(BLOCK)
    for r in range(lr.size):
        read = own_readout(readout, fresh[r], start)
        noisy = 1.0 if inverse_batch[r] > 0.0 else 0.0  # the batch size is in the state already
        for block in range(states.shape[1]):
            first = block * BLOCK
            count = min(BLOCK, bias.size - first)
            h = curvature[which[r], first : first + count]
            largest = h.max()
            Z = states[r, block]
            shifted = False
            for j in range(lengths.size):
                rate, share = lr[r] * piece_lr[j], inverse_batch[r] * piece_inverse_batch[j]
                tabulate(rate, transition[r], gain[r], fresh[r], query, readout, scaled, constant, linear, b)
                fill_step(h, constant, linear, b, share, P, count)
                if k > 1:
                    before, shift, was = shift, before, shifted
                    shifted = choose_shifts(h, largest, rate, scaled, constant, linear, shift, count)
                    if shifted:
                        shift_step(P, b, share, shift, count)
                    if was or shifted:
                        shift_state(Z, before if was else none, shift if shifted else none, k, count)
                run(P, Z, lengths[j], count, start)
                if column[j] >= 0:
                    terms[:] = 0.0
                    read_state(Z, read, start, d, g, count)
                    add_start_risk(bias[first : first + count], d, terms, count)
                    add_noise_risk(h, noise[first : first + count], 1.0, noisy, g, terms, count)
                    out[r, column[j]] += total(terms)
            if shifted:
                shift_state(Z, shift, none, k, count)


@compiled
def first_passage_step_by_step(
    curvature, bias, noise, lr, transition, gain, fresh, query, readout, start, scaled, inverse_batch, lengths, states,
    target, last, progress,
):  # fmt: skip
    """Step by step along pieces, one row: FOUND at the first t with risk <= target, NEVER if there is none.

    last = True: to the end, with progress[1] = the step after the last t with risk > target. progress = [t, answer].
    states: (blocks, slots BLOCK), as in `risk_along_rows`.
    """
    k = len(start)
    blocks = states.shape[0]
    P = np.empty((blocks, OWN_POWER_SLOTS[k] * BLOCK))
    d, g, terms = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    constant, linear, b = np.empty((2, k, k)), np.empty((2, k, k)), np.empty(k)
    read, one = own_readout(readout, fresh, start), np.int64(1)
    noisy = 1.0 if inverse_batch[0] > 0.0 else 0.0  # for all pieces alike: the batch size is in the state already
    for j in range(lengths.size):
        tabulate(lr[j], transition, gain, fresh, query, readout, scaled, constant, linear, b)
        for block in range(blocks):
            first = block * BLOCK
            count = min(BLOCK, bias.size - first)
            fill_step(curvature[first : first + count], constant, linear, b, inverse_batch[j], P[block], count)
        for _ in range(lengths[j]):
            terms[:] = 0.0
            for block in range(blocks):
                first = block * BLOCK
                count = min(BLOCK, bias.size - first)
                Z = states[block]
                read_state(Z, read, start, d, g, count)
                add_start_risk(bias[first : first + count], d, terms, count)
                h, c = curvature[first : first + count], noise[first : first + count]
                add_noise_risk(h, c, 1.0, noisy, g, terms, count)
                run(P[block], Z, one, count, start)
            above = not total(terms) <= target
            if above and last:
                progress[1] = progress[0] + 1
            elif not above and not last:
                progress[1] = progress[0]
                return FOUND
            progress[0] += 1
    return NEVER
