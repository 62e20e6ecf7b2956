"""Fits to training logs: SGD on a power law along pieces of constant learning rate, with tangents.

Plain float64: a fit's losses have three to five digits, and pieces are far shorter than the 10^13 steps at which
rounding would show.
"""

from __future__ import annotations

import numpy as np

from ..compilation import compiled

__all__ = ["SUMS", "fill_effective_lrs", "fill_mode_sums"]

SUMS = 6


@compiled
def fill_effective_lrs(pieces, growth, decay, found, tangents):
    """Learning rates over weights that grow under normalised updates and shrink by decay; into found and tangents.

        dV/dk = growth s^2 - 2 decay s V,   V = 1 at each row's first step,   g = 2 s / (sqrt(V) + sqrt(V'))

    with V before and V' after a piece: without decay, g is the mean of s / sqrt(V) over it.
    pieces: with first (rows + 1,), each row's first piece, and the end; lengths, lrs s: (pieces,). found g: (pieces,);
    tangents: (pieces, 2), the derivatives of g by growth and by decay.
    """
    first, lengths, lrs = pieces.first, pieces.lengths, pieces.lrs
    for row in range(first.size - 1):
        v, v_growth, v_decay = 1.0, 0.0, 0.0
        for j in range(first[row], first[row + 1]):
            s, m = lrs[j], lengths[j]
            z = 2.0 * decay * s * m
            e = np.exp(-z)
            if z > 1e-3:
                share = -np.expm1(-z) / z
                slope = (e - share) / z
            else:  # (1 - e^-z) / z and its derivative
                share = 1.0 - z * (0.5 - z * (1.0 / 6.0 - z / 24.0))
                slope = -0.5 + z * (1.0 / 3.0 - z / 8.0)
            gain = s * s * m
            root, root_growth, root_decay = np.sqrt(v), 0.5 * v_growth / np.sqrt(v), 0.5 * v_decay / np.sqrt(v)
            v_decay = e * (v_decay - 2.0 * s * m * v) + growth * gain * slope * 2.0 * s * m
            v_growth = e * v_growth + gain * share
            v = e * v + growth * gain * share
            roots = root + np.sqrt(v)
            g = 2.0 * s / roots
            found[j] = g
            tangents[j, 0] = -g / roots * (root_growth + 0.5 * v_growth / np.sqrt(v))
            tangents[j, 1] = -g / roots * (root_decay + 0.5 * v_decay / np.sqrt(v))


@compiled
def fill_mode_sums(log_n, h, start, noise, pieces, tangents, sums):
    """b and v of every mode along each row's pieces, summed over modes at the ends of the pieces that are seen.

    A piece of m steps at learning rate g, with x = g h:

        d = (1 - x)^(2 m)     b <- d b     v <- d v + g noise (1 - d) / (2 - x)

    log_n, h: (modes,); start, noise: (rows, modes), multiplicities included; pieces: with first (rows + 1,), lengths,
    lrs, seen: (pieces,); tangents: (pieces, D), derivatives of the learning rates. sums: (seen pieces, 6 + D) with the
    sums over modes of b, b log n, v, v log n, w, w log n, where w is the derivative of b + v by log h; then the D
    derivatives of b + v along the tangents.
    """
    first, lengths, lrs, seen = pieces.first, pieces.lengths, pieces.lrs, pieces.seen
    directions = tangents.shape[1]
    modes = h.size
    b, v, b_h, v_h = np.empty(modes), np.empty(modes), np.empty(modes), np.empty(modes)
    along = np.empty((directions, modes))
    place = 0
    for row in range(first.size - 1):
        for i in range(modes):
            b[i] = start[row, i]
        v[:] = 0.0
        b_h[:] = 0.0
        v_h[:] = 0.0
        along[:] = 0.0
        for j in range(first[row], first[row + 1]):
            g, m = lrs[j], lengths[j]
            for i in range(modes):
                x = g * h[i]
                rest = 1.0 - x
                d = np.exp(2.0 * m * np.log(abs(rest)))
                slope = -2.0 * m * x * d / rest if rest != 0.0 else 0.0  # of d by log x
                kick = noise[row, i] * (1.0 - d) / (2.0 - x)  # v' = d v + g kick
                bend = (kick * x - noise[row, i] * slope) / (2.0 - x)  # of kick by log x
                both = slope * (b[i] + v[i]) + g * bend
                for k in range(directions):
                    # a learning rate acts through x = g h, and as the factor before kick
                    along[k, i] = d * along[k, i] + (both / g + kick if g > 0.0 else 0.0) * tangents[j, k]
                b_h[i] = d * b_h[i] + slope * b[i]
                v_h[i] = d * v_h[i] + slope * v[i] + g * bend
                b[i] *= d
                v[i] = d * v[i] + g * kick
            if seen[j]:
                for i in range(modes):
                    w = b_h[i] + v_h[i]
                    sums[place, 0] += b[i]
                    sums[place, 1] += b[i] * log_n[i]
                    sums[place, 2] += v[i]
                    sums[place, 3] += v[i] * log_n[i]
                    sums[place, 4] += w
                    sums[place, 5] += w * log_n[i]
                    for k in range(directions):
                        sums[place, 6 + k] += along[k, i]
                place += 1
