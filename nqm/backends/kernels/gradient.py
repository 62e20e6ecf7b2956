"""Risk along a word, and its derivatives.

Plain doubles: M^s is right to about s ulps, ample for a direction. Second moments Q of start and noise together.
"""

from __future__ import annotations

import numpy as np

from ..compilation import compiled, internal
from .blocks import BLOCK, copy, total
from .double_double import fma
from .step_maps import own_readout, tabulate


@internal
def gradient1(
    curvature, bias, noise, lr, transition, gain, query, readout, start, inverse_batch, lengths, by_lr, by_batch
):  # fmt: skip
    """`risk_and_gradient` for one state: q' = A q + v W G with A = a^2s, G = sum_(j<s) a^2j, W = b^2 / batch.

    Tangents of A and G with respect to a come with the doubling, lambda = d risk / d q from behind.
    """
    pieces = lr.size
    terms = np.zeros(BLOCK)
    weight = np.empty(BLOCK)
    q, grown = np.empty((pieces + 1, BLOCK)), np.empty((pieces, BLOCK))
    left_over, d_left, d_grown = np.empty((pieces, BLOCK)), np.empty((pieces, BLOCK)), np.empty((pieces, BLOCK))
    A, dA, G, dG = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    slopes, shares = np.empty(BLOCK), np.empty(BLOCK)
    for first in range(0, bias.size, BLOCK):
        count = min(BLOCK, bias.size - first)
        h = curvature[first : first + count]
        for n in range(count):
            q[0, n] = bias[first + n] * start[0] * start[0]
            weight[n] = noise[first + n] * h[n] * h[n]
        for j in range(pieces):
            t = -lr[j] * gain[0, 0] * query[0]
            W = (lr[j] * gain[0, 0]) ** 2 * inverse_batch[j]
            At, dAt, Gt, dGt = left_over[j], d_left[j], grown[j], d_grown[j]
            for n in range(count):
                a = fma(t, h[n], transition[0, 0, 0])
                A[n], dA[n], G[n], dG[n] = a * a, 2.0 * a, 1.0, 0.0
                At[n], dAt[n], Gt[n], dGt[n] = 1.0, 0.0, 0.0, 0.0
            steps = lengths[j]
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
            for n in range(count):
                q[j + 1, n] = At[n] * q[j, n] + weight[n] * W * Gt[n]
        for n in range(count):
            terms[n] += readout[0] * readout[0] * q[pieces, n]
            A[n] = readout[0] * readout[0]
        for j in range(pieces - 1, -1, -1):
            t = -lr[j] * gain[0, 0] * query[0]
            W = (lr[j] * gain[0, 0]) ** 2 * inverse_batch[j]
            slopes[:] = 0.0
            shares[:] = 0.0
            for n in range(count):
                share = A[n] * weight[n] * W * grown[j, n]
                slope = A[n] * (d_left[j, n] * q[j, n] + weight[n] * W * d_grown[j, n])
                slopes[n] = slope * t * h[n] + 2.0 * share
                shares[n] = share
                A[n] *= left_over[j, n]
            by_lr[j] += total(slopes)
            by_batch[j] += total(shares)
    return total(terms)


@internal
def product(C, A, ai, aj, B, bi, bj, scale, k, count):
    """C += scale A B for blocks of k x k matrices, k = 2 or 3. Entry (i, j) lies in slot i ai + j aj: (k, 1) plain,
    (1, k) transposed."""
    N = BLOCK
    for i in range(k):
        for j in range(k):
            c, a, b = (k * i + j) * N, i * ai * N, j * bj * N
            a1, b1, a2, b2 = a + aj * N, b + bi * N, a + 2 * aj * N, b + 2 * bi * N
            if k == 2:
                for n in range(count):
                    C[c + n] += scale * (A[a + n] * B[b + n] + A[a1 + n] * B[b1 + n])
            else:
                for n in range(count):
                    C[c + n] += scale * (A[a + n] * B[b + n] + A[a1 + n] * B[b1 + n] + A[a2 + n] * B[b2 + n])


@internal
def sandwich(C, M, mi, mj, S, work, k, count):
    """C += M S M^T; with (mi, mj) = (1, k), C += M^T S M."""
    work[:] = 0.0
    product(work, M, mi, mj, S, k, 1, 1.0, k, count)
    product(C, work, k, 1, M, mj, mi, 1.0, k, count)


@internal
def forward(M, G, Q, before, weight, steps, work, k, count):
    """Fill M[l], G[l] for 2^l steps from M[0], G[0]; before[l] = Q before it takes those; returns levels used."""
    N = BLOCK
    level = 0
    while True:
        if steps & 1:
            copy(Q, before[level])
            Q[:] = 0.0
            sandwich(Q, M[level], k, 1, before[level], work, k, count)
            for slot in range(k * k):
                for n in range(count):
                    Q[slot * N + n] += weight[n] * G[level, slot * N + n]
        steps >>= 1
        level += 1
        if steps == 0:
            return level
        M[level] = 0.0
        product(M[level], M[level - 1], k, 1, M[level - 1], k, 1, 1.0, k, count)
        copy(G[level - 1], G[level])
        sandwich(G[level], M[level - 1], k, 1, G[level - 1], work, k, count)


@internal
def first_level(h, constant, linear, b, inverse_batch, M, G, k, count):
    N = BLOCK
    for i in range(k):
        for j in range(k):
            slot = (k * i + j) * N
            for n in range(count):
                M[slot + n] = fma(linear[0, i, j], h[n], constant[0, i, j])
            G[slot : slot + count] = inverse_batch * b[i] * b[j]


@internal
def lane_sum(values, scale, count, work):
    work[:] = 0.0
    for n in range(count):
        work[n] = values[n] * scale[n]
    return total(work)


@compiled
def risk_and_gradient(
    curvature, bias, noise, lr, transition, gain, fresh, query, readout, start, scaled, inverse_batch, lengths,
    spans, by_lr, by_batch, by_value,
):  # fmt: skip
    """Risk after all pieces of one row, and its derivatives by log lr_j, log(1 / batch_j) and other hyperparameters.

    lr, inverse_batch, lengths, by_lr, by_batch: (pieces,). transition: (1 + 2 V, 2, k, k), gain: (1 + 2 V, 2, k),
    fresh: (1 + 2 V, 2): the filter, then for each of V hyperparameters the filter at value + span / 2 and at
    value - span / 2; entries are polynomials of degree two at most, so central differences are derivatives.
    k > 1 goes backwards through the doubling: adjoints of M^s and G_s, down to those of a single step.
    """
    k = len(start)
    by_lr[:] = 0.0
    by_batch[:] = 0.0
    by_value[:] = 0.0
    if k == 1:
        return gradient1(
            curvature, bias, noise, lr, transition[0], gain[0], query, readout, start, inverse_batch, lengths, by_lr,
            by_batch,
        )  # fmt: skip
    N = BLOCK
    pieces, kk = lr.size, k * k
    levels = 1
    while (lengths.max() >> levels) > 0:
        levels += 1
    constant, linear, b = np.empty((2, k, k)), np.empty((2, k, k)), np.empty(k)
    constant1, linear1, b1 = np.empty((2, k, k)), np.empty((2, k, k)), np.empty(k)
    constant2, linear2, b2 = np.empty((2, k, k)), np.empty((2, k, k)), np.empty(k)
    constant_bar, linear_bar, b_bar = np.empty((k, k)), np.empty((k, k)), np.empty(k)
    M, G, before = np.empty((levels, kk * N)), np.empty((levels, kk * N)), np.empty((levels, kk * N))
    M_bar, G_bar = np.empty((levels, kk * N)), np.empty((levels, kk * N))
    Q, L, new = np.empty((pieces + 1, kk * N)), np.empty(kk * N), np.empty(kk * N)
    work, terms, weight, ones = np.empty(kk * N), np.zeros(N), np.empty(N), np.ones(N)
    read = own_readout(readout, fresh[0], start)
    for first in range(0, bias.size, N):
        count = min(N, bias.size - first)
        h = curvature[first : first + count]
        for n in range(count):
            weight[n] = noise[first + n] * h[n] * h[n]
        for i in range(k):
            for j in range(k):
                for n in range(count):
                    Q[0, (k * i + j) * N + n] = bias[first + n] * start[i] * start[j]
                    L[(k * i + j) * N + n] = read[i] * read[j]
        for p in range(pieces):
            tabulate(lr[p], transition[0], gain[0], fresh[0], query, readout, scaled, constant, linear, b)
            first_level(h, constant, linear, b, inverse_batch[p], M[0], G[0], k, count)
            copy(Q[p], Q[p + 1])
            forward(M, G, Q[p + 1], before, weight, lengths[p], work, k, count)
        for slot in range(kk):
            for n in range(count):
                terms[n] += L[slot * N + n] * Q[pieces, slot * N + n]
        for p in range(pieces - 1, -1, -1):
            tabulate(lr[p], transition[0], gain[0], fresh[0], query, readout, scaled, constant, linear, b)
            first_level(h, constant, linear, b, inverse_batch[p], M[0], G[0], k, count)
            copy(Q[p], new)
            used = forward(M, G, new, before, weight, lengths[p], work, k, count)
            for level in range(used - 1, -1, -1):
                m_bar, g_bar = M_bar[level], G_bar[level]
                m_bar[:] = 0.0
                g_bar[:] = 0.0
                if level + 1 < used:  # M' = M M, G' = G + M G M^T
                    above, g_above = M_bar[level + 1], G_bar[level + 1]
                    product(m_bar, above, k, 1, M[level], 1, k, 1.0, k, count)
                    product(m_bar, M[level], 1, k, above, k, 1, 1.0, k, count)
                    work[:] = 0.0
                    product(work, M[level], k, 1, G[level], k, 1, 1.0, k, count)
                    product(m_bar, g_above, k, 1, work, k, 1, 2.0, k, count)
                    copy(g_above, g_bar)
                    sandwich(g_bar, M[level], 1, k, g_above, work, k, count)
                if (lengths[p] >> level) & 1:  # Q' = M Q M^T + weight G
                    work[:] = 0.0
                    product(work, M[level], k, 1, before[level], k, 1, 1.0, k, count)
                    product(m_bar, L, k, 1, work, k, 1, 2.0, k, count)
                    for slot in range(kk):
                        for n in range(count):
                            g_bar[slot * N + n] += weight[n] * L[slot * N + n]
                    new[:] = 0.0
                    sandwich(new, M[level], 1, k, L, work, k, count)
                    copy(new, L)
            b_bar[:] = 0.0
            for i in range(k):
                for j in range(k):
                    slot = (k * i + j) * N
                    constant_bar[i, j] = lane_sum(M_bar[0, slot:], ones, count, work)
                    linear_bar[i, j] = lane_sum(M_bar[0, slot:], h, count, work)
                    g = lane_sum(G_bar[0, slot:], ones, count, work)
                    b_bar[i] += 2.0 * g * inverse_batch[p] * b[j]
                    by_batch[p] += g * inverse_batch[p] * b[i] * b[j]
            for v in range(1 + by_value.size):  # v = 0: lr
                o, q = max(0, 2 * v - 1), 2 * v
                up, down = (1.5 * lr[p], 0.5 * lr[p]) if v == 0 else (lr[p], lr[p])
                tabulate(up, transition[o], gain[o], fresh[o], query, readout, scaled, constant1, linear1, b1)
                tabulate(down, transition[q], gain[q], fresh[q], query, readout, scaled, constant2, linear2, b2)
                slope = 0.0
                for i in range(k):
                    slope += b_bar[i] * (b1[i] - b2[i])
                    for j in range(k):
                        slope += constant_bar[i, j] * (constant1[0, i, j] - constant2[0, i, j])
                        slope += linear_bar[i, j] * (linear1[0, i, j] - linear2[0, i, j])
                if v == 0:
                    by_lr[p] += slope
                else:
                    by_value[v - 1] += slope / spans[v - 1]
    return total(terms)
