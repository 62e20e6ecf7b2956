"""Expected risk: after a number of steps, and along words of step maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._checks import FloatArray, IntArray
from ..._double_double import exact, product_transposed
from ..types import FilterBatch, Word
from .tiles import Moments, Tile, after, choose, one_step, step_map, tile_of, tiles, to_numpy

__all__ = ["absolute", "dyadic_risk", "letter_step", "risk", "risk_along", "take_steps"]


@np.errstate(all="ignore")
def risk(batch: FilterBatch, steps: IntArray, xp: Any = np) -> FloatArray:
    """Expected risk of each row after ``steps`` (R,) steps: (R,)."""
    out = np.zeros(steps.size)
    for rows, part, nodes in tiles(batch, xp):
        tile = tile_of(part, nodes, xp)
        power, state = tile.one_step(), tile.first_state()
        for level in range(int(steps[rows].max()).bit_length()):
            power = after(power, power) if level else power
            state = choose((steps[rows] >> level) & 1 == 1, after(power, state), state, xp)
        out[rows] += to_numpy(tile.risks(state))
    return np.where(np.isnan(out), np.inf, out)


@np.errstate(all="ignore")
def dyadic_risk(batch: FilterBatch, levels: int, xp: Any = np) -> FloatArray:
    """Expected risk after 2^j steps, j = 0 ... levels - 1: (R, levels)."""
    out = np.zeros((batch.lr.size, levels))
    for rows, part, nodes in tiles(batch, xp):
        tile = tile_of(part, nodes, xp)
        power = tile.one_step()
        for level in range(levels):
            power = after(power, power) if level else power
            out[rows, level] += to_numpy(tile.risks(after(power, tile.first_state())))
    return np.where(np.isnan(out), np.inf, out)


@np.errstate(all="ignore")
def risk_along(batch: FilterBatch, word: Word, columns: int, xp: Any = np) -> FloatArray:
    """Expected risk along a word, added up where output columns are the same: (R, columns).

    Lr and curvature come scaled by a power of two, so that the largest lr is about 1. Noise is in absolute units.
    """
    out = np.zeros((batch.lr.size, columns))
    for rows, part, nodes in tiles(batch, xp):
        tile = tile_of(part, nodes, xp)
        state, reader = tile.first_state(), absolute(tile)
        for j, column in enumerate(word.output_column.tolist()):
            state = take_steps(letter_step(tile, part, word, j), state, int(word.repeat[j]))
            if column >= 0:
                out[rows, column] += to_numpy(reader.risks(state))
    return np.where(np.isnan(out), np.inf, out)


def absolute(tile: Tile) -> Tile:
    """The tile that reads risks off states with noise in absolute units."""
    ones = tile.xp.ones_like(tile.inverse_batch_size)
    noisy = tile.xp.where(
        tile.inverse_batch_size > 0.0, ones, tile.xp.zeros_like(ones)
    )  # what is not there adds nothing
    return tile._replace(lr=exact(ones, tile.xp), inverse_batch_size=noisy)


def letter_step(tile: Tile, batch: FilterBatch, word: Word, j: int) -> Moments:
    """One step of letter j, in the filter's own coordinates with states of lr_scaled = 1 in units of lr."""
    lr = exact(tile.lr.high * float(word.lr[j]), tile.xp)
    m, b = one_step(step_map(batch, int(word.map[j]), tile.xp), lr, tile.h, tile.xp)
    return Moments(m, product_transposed(b, b) * (tile.inverse_batch_size * float(word.inverse_batch_size[j])))


def take_steps(power: Moments, state: Moments, steps: int) -> Moments:
    """The state so many steps of ``power`` on."""
    for level in range(steps.bit_length()):
        power = after(power, power) if level else power
        state = after(power, state) if steps >> level & 1 else state
    return state
