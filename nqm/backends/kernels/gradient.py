"""Risk along a word, and its derivatives, with second moments Q of start and noise together.

In plain doubles: M^s is right to about s ulps, ample for a direction. More than one state goes backwards through the
doubling: adjoints of M^s and G_s, down to those of a single step.
"""

from __future__ import annotations

import numpy as np

from ..compilation import compiled, inlined, internal
from .blocks import BLOCK, copy, total
from .double_double import fma
from .step_maps import new_tables, own_readout, tabulate

__all__ = ["gradient_of_row"]


@compiled
def gradient_of_row(batch, start, word, spans, found):
    """The risk after all letters; found[1:] <- its derivatives by log lr, log(1 / batch size), other hyperparameters.

    Row 0 of ``batch`` is the filter, rows 1 + 2 v and 2 + 2 v are the filter at value + span / 2 and value - span / 2
    of hyperparameter v; entries are polynomials of degree two at most, so central differences are derivatives.
    """
    by_lr, by_batch, by_value = found.by_log_lr, found.by_log_inverse_batch_size, found.by_value
    by_lr[:] = 0.0
    by_batch[:] = 0.0
    by_value[:] = 0.0
    if len(start) == 1:
        return _gradient1(batch, word, spans, by_lr, by_batch, by_value)
    return _gradient_in_matrices(batch, start, word, spans, by_lr, by_batch, by_value)


# --- one state ---------------------------------------------------------------------------------------------------


@internal
def _gradient1(batch, word, spans, by_lr, by_batch, by_value):
    """q' = A q + v W G with A = a^2s, G = sum_(j<s) a^2j, W = b^2 / batch.

    Tangents of A and G with respect to a come with the doubling, lambda = d risk / d q from behind.
    """
    letters = word.repeat.size
    terms, weight, loss = np.zeros(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    q, grown = np.empty((letters + 1, BLOCK)), np.empty((letters, BLOCK))
    left_over, d_left, d_grown = np.empty((letters, BLOCK)), np.empty((letters, BLOCK)), np.empty((letters, BLOCK))
    slopes, noises, work = np.empty(BLOCK), np.empty(BLOCK), np.empty((4, BLOCK))
    start, readout = batch.start[0], batch.readout[0]
    for first in range(0, batch.start_weight.size, BLOCK):
        count = min(BLOCK, batch.start_weight.size - first)
        h = batch.curvature[batch.power_index[0], first : first + count]
        for n in range(count):
            q[0, n] = batch.start_weight[first + n] * start * start
            weight[n] = batch.noise_weight[first + n] * h[n] * h[n]
        for j in range(letters):
            a, t, b, inverse_batch_size = _scalar_step(batch, 0, word, j)
            W = b**2 * inverse_batch_size
            _run1(t, a, h, word.repeat[j], left_over[j], d_left[j], grown[j], d_grown[j], work, count)
            for n in range(count):
                q[j + 1, n] = left_over[j, n] * q[j, n] + weight[n] * W * grown[j, n]
        for n in range(count):
            terms[n] += readout * readout * q[letters, n]
            loss[n] = readout * readout
        for j in range(letters - 1, -1, -1):
            _, t, b, inverse_batch_size = _scalar_step(batch, 0, word, j)
            W = b**2 * inverse_batch_size
            slopes[:] = 0.0
            noises[:] = 0.0
            for n in range(count):
                noise = loss[n] * weight[n] * W * grown[j, n]
                slope = loss[n] * (d_left[j, n] * q[j, n] + weight[n] * W * d_grown[j, n])
                slopes[n] = slope * t * h[n] + 2.0 * noise
                noises[n] = noise
            by_lr[j] += total(slopes)
            by_batch[j] += total(noises)
            for v in range(by_value.size):
                a1, t1, b1, _ = _scalar_step(batch, 1 + 2 * v, word, j)
                a2, t2, b2, _ = _scalar_step(batch, 2 + 2 * v, word, j)
                kick = 2.0 * b * (b1 - b2) * inverse_batch_size  # of W
                slopes[:] = 0.0
                for n in range(count):
                    slope = d_left[j, n] * q[j, n] + weight[n] * W * d_grown[j, n]
                    change = slope * (a1 - a2 + (t1 - t2) * h[n]) + weight[n] * grown[j, n] * kick
                    slopes[n] = loss[n] * change
                by_value[v] += total(slopes) / spans[v]
            for n in range(count):
                loss[n] *= left_over[j, n]
    return total(terms)


@inlined
def _scalar_step(batch, r, word, j):
    """Of row r and letter j: a at h = 0, how it changes with h, b, and 1 / batch."""
    lr, gain = batch.lr[0] * word.lr[j], batch.gain[r, word.map[j], 0, 0]
    inverse_batch_size = batch.inverse_batch_size[0] * word.inverse_batch_size[j]
    return batch.transition[r, word.map[j], 0, 0, 0], -lr * gain * batch.query[0], lr * gain, inverse_batch_size


@internal
def _run1(t, transition, h, steps, At, dAt, Gt, dGt, work, count):
    """A and G of ``steps`` steps, and their derivatives by a."""
    A, dA, G, dG = work[0], work[1], work[2], work[3]
    for n in range(count):
        a = fma(t, h[n], transition)
        A[n], dA[n], G[n], dG[n] = a * a, 2.0 * a, 1.0, 0.0
        At[n], dAt[n], Gt[n], dGt[n] = 1.0, 0.0, 0.0, 0.0
    while steps > 0:
        if steps & 1:
            for n in range(count):
                dGt[n] = dG[n] + dA[n] * Gt[n] + A[n] * dGt[n]
                Gt[n] = G[n] + A[n] * Gt[n]
                dAt[n] = dA[n] * At[n] + A[n] * dAt[n]
                At[n] = A[n] * At[n]
        steps >>= 1
        if steps > 0:
            for n in range(count):
                dG[n] += dA[n] * G[n] + A[n] * dG[n]
                G[n] += A[n] * G[n]
                dA[n] = 2.0 * A[n] * dA[n]
                A[n] = A[n] * A[n]


# --- more states -------------------------------------------------------------------------------------------------


@internal
def _gradient_in_matrices(batch, start, word, spans, by_lr, by_batch, by_value):
    N = BLOCK
    k = len(start)
    letters, kk, levels = word.repeat.size, k * k, 1
    while (word.repeat.max() >> levels) > 0:
        levels += 1
    tables, change = new_tables(k), (new_tables(k), new_tables(k), new_tables(k))
    M, G, before = np.empty((levels, kk * N)), np.empty((levels, kk * N)), np.empty((levels, kk * N))
    M_bar, G_bar = np.empty((levels, kk * N)), np.empty((levels, kk * N))
    Q, L, new = np.empty((letters + 1, kk * N)), np.empty(kk * N), np.empty(kk * N)
    work, terms, weight = np.empty(kk * N), np.zeros(N), np.empty(N)
    readout = own_readout(batch, 0, start)
    for first in range(0, batch.start_weight.size, N):
        count = min(N, batch.start_weight.size - first)
        h = batch.curvature[batch.power_index[0], first : first + count]
        for n in range(count):
            weight[n] = batch.noise_weight[first + n] * h[n] * h[n]
        for i in range(k):
            for j in range(k):
                for n in range(count):
                    Q[0, (k * i + j) * N + n] = batch.start_weight[first + n] * start[i] * start[j]
                    L[(k * i + j) * N + n] = readout[i] * readout[j]
        for p in range(letters):
            copy(Q[p], Q[p + 1])
            _one_step(batch, start, word, p, h, tables, M[0], G[0], count)
            _forward(M, G, Q[p + 1], before, weight, word.repeat[p], work, k, count)
        for slot in range(kk):
            for n in range(count):
                terms[n] += L[slot * N + n] * Q[letters, slot * N + n]
        for p in range(letters - 1, -1, -1):
            copy(Q[p], new)
            _one_step(batch, start, word, p, h, tables, M[0], G[0], count)
            used = _forward(M, G, new, before, weight, word.repeat[p], work, k, count)
            for level in range(used - 1, -1, -1):
                taken = (word.repeat[p] >> level) & 1
                _backward(M, G, M_bar, G_bar, before, L, new, weight, level, used, taken, work, k, count)
            _sum_adjoints(batch, word, p, h, tables, M_bar[0], G_bar[0], change[0], by_batch, work, count)
            _add_slopes(batch, start, word, p, spans, change, by_lr, by_value)
    return total(terms)


@internal
def _one_step(batch, start, word, p, h, tables, M, G, count):
    """M and G of a letter's single step."""
    constant, linear, b = tables
    N = BLOCK
    k = b.size
    tabulate(batch, 0, word.map[p], batch.lr[0] * word.lr[p], tables, start)
    inverse_batch_size = batch.inverse_batch_size[0] * word.inverse_batch_size[p]
    for i in range(k):
        for j in range(k):
            slot = (k * i + j) * N
            for n in range(count):
                M[slot + n] = fma(linear[0, i, j], h[n], constant[0, i, j])
            G[slot : slot + count] = inverse_batch_size * b[i] * b[j]


@internal
def _forward(M, G, Q, before, weight, steps, work, k, count):
    """Fill M[l], G[l] for 2^l steps from M[0], G[0]; before[l] = Q before it takes those; returns levels used."""
    N = BLOCK
    level = 0
    while True:
        if steps & 1:
            copy(Q, before[level])
            Q[:] = 0.0
            _sandwich(Q, M[level], k, 1, before[level], work, k, count)
            for slot in range(k * k):
                for n in range(count):
                    Q[slot * N + n] += weight[n] * G[level, slot * N + n]
        steps >>= 1
        level += 1
        if steps == 0:
            return level
        M[level] = 0.0
        _product(M[level], M[level - 1], k, 1, M[level - 1], k, 1, 1.0, k, count)
        copy(G[level - 1], G[level])
        _sandwich(G[level], M[level - 1], k, 1, G[level - 1], work, k, count)


@internal
def _backward(M, G, M_bar, G_bar, before, L, new, weight, level, used, taken, work, k, count):
    """M_bar[l], G_bar[l] <- derivatives of the risk by those of 2^l steps; L: by the moments, before them when done."""
    N = BLOCK
    m_bar, g_bar = M_bar[level], G_bar[level]
    m_bar[:] = 0.0
    g_bar[:] = 0.0
    if level + 1 < used:  # M' = M M, G' = G + M G M^T
        above, g_above = M_bar[level + 1], G_bar[level + 1]
        _product(m_bar, above, k, 1, M[level], 1, k, 1.0, k, count)
        _product(m_bar, M[level], 1, k, above, k, 1, 1.0, k, count)
        work[:] = 0.0
        _product(work, M[level], k, 1, G[level], k, 1, 1.0, k, count)
        _product(m_bar, g_above, k, 1, work, k, 1, 2.0, k, count)
        copy(g_above, g_bar)
        _sandwich(g_bar, M[level], 1, k, g_above, work, k, count)
    if taken:  # Q' = M Q M^T + weight G
        work[:] = 0.0
        _product(work, M[level], k, 1, before[level], k, 1, 1.0, k, count)
        _product(m_bar, L, k, 1, work, k, 1, 2.0, k, count)
        for slot in range(k * k):
            for n in range(count):
                g_bar[slot * N + n] += weight[n] * L[slot * N + n]
        new[:] = 0.0
        _sandwich(new, M[level], 1, k, L, work, k, count)
        copy(new, L)


@internal
def _sum_adjoints(batch, word, p, h, tables, M_bar, G_bar, adjoint, by_batch, work, count):
    """adjoint <- derivatives of the risk by a letter's tables, summed over a block; adds to that by log(1 / batch)."""
    constant_bar, linear_bar, b_bar = adjoint
    b = tables[2]
    k, N = b.size, BLOCK
    inverse_batch_size = batch.inverse_batch_size[0] * word.inverse_batch_size[p]
    b_bar[:] = 0.0
    for i in range(k):
        for j in range(k):
            slot = (k * i + j) * N
            constant_bar[0, i, j] = _sum(M_bar[slot:], count, work)
            linear_bar[0, i, j] = _sum_of_products(M_bar[slot:], h, count, work)
            g = _sum(G_bar[slot:], count, work)
            b_bar[i] += 2.0 * g * inverse_batch_size * b[j]
            by_batch[p] += g * inverse_batch_size * b[i] * b[j]


@internal
def _add_slopes(batch, start, word, p, spans, change, by_lr, by_value):
    """Add what the adjoint says of changes of a letter's tables by its learning rate and by the hyperparameters."""
    (constant_bar, linear_bar, b_bar), high, low = change
    k, lr, m = b_bar.size, batch.lr[0] * word.lr[p], word.map[p]
    for v in range(1 + by_value.size):  # v = 0: lr
        above, below = (1.5 * lr, 0.5 * lr) if v == 0 else (lr, lr)
        tabulate(batch, max(0, 2 * v - 1), m, above, high, start)
        tabulate(batch, 2 * v, m, below, low, start)
        slope = 0.0
        for i in range(k):
            slope += b_bar[i] * (high[2][i] - low[2][i])
            for j in range(k):
                slope += constant_bar[0, i, j] * (high[0][0, i, j] - low[0][0, i, j])
                slope += linear_bar[0, i, j] * (high[1][0, i, j] - low[1][0, i, j])
        if v == 0:
            by_lr[p] += slope
        else:
            by_value[v - 1] += slope / spans[v - 1]


@internal
def _product(C, A, ai, aj, B, bi, bj, scale, k, count):
    """C += scale A B for blocks of k x k matrices. Entry (i, j) lies in slot i ai + j aj: (k, 1) plain, (1, k)
    transposed."""
    N = BLOCK
    for i in range(k):
        for j in range(k):
            c, a, b = (k * i + j) * N, i * ai * N, j * bj * N
            a1, b1, a2, b2 = a + aj * N, b + bi * N, a + 2 * aj * N, b + 2 * bi * N
            if k == 2:
                for n in range(count):
                    C[c + n] += scale * (A[a + n] * B[b + n] + A[a1 + n] * B[b1 + n])
            elif k == 3:
                for n in range(count):
                    C[c + n] += scale * (A[a + n] * B[b + n] + A[a1 + n] * B[b1 + n] + A[a2 + n] * B[b2 + n])
            else:
                for p in range(k):
                    left, right = a + p * aj * N, b + p * bi * N
                    for n in range(count):
                        C[c + n] += scale * (A[left + n] * B[right + n])


@internal
def _sandwich(C, M, mi, mj, S, work, k, count):
    """C += M S M^T; with (mi, mj) = (1, k), C += M^T S M."""
    work[:] = 0.0
    _product(work, M, mi, mj, S, k, 1, 1.0, k, count)
    _product(C, work, k, 1, M, mj, mi, 1.0, k, count)


@internal
def _sum(values, count, work):
    work[:] = 0.0
    for n in range(count):
        work[n] = values[n]
    return total(work)


@internal
def _sum_of_products(values, scale, count, work):
    work[:] = 0.0
    for n in range(count):
        work[n] = values[n] * scale[n]
    return total(work)
