"""When is the target reached? One row at a time, on the CPU: along schedules, and for what takes very many leaps.

Leaps over time and what proves them: :func:`nqm.backends.kernels.first_passage.first_passage`.
"""

from __future__ import annotations

import numpy as np

from .._checks import FloatArray
from .._status import TooManyLeaps
from .kernels import first_passage as leaps
from .kernels.blocks import BLOCK, POWER_SLOTS, STATE_SLOTS
from .kernels.carry_over import carry_over
from .kernels.words import first_passage_step_by_step, risk_along_rows
from .types import Pieces, Rows
from .zero_lr import rest_crossing

SHORT = 64  # pieces up to this length are searched step by step
LOOK = 2e8  # work between looks at the keyboard, in multiplications: less than a second
MOST = 2e10  # work for which a walk goes on: some twenty seconds


class March:
    """The search of :mod:`nqm.backends.kernels.first_passage` for one row; ``run`` goes on until there is an answer.

    ``length``: steps at most. ``carried``: the state that earlier pieces of a schedule leave, and its units.
    """

    def __init__(self, row: Rows, length: int = 2**53, carried: tuple[FloatArray, float] | None = None) -> None:
        self._row, self._length, self._curvature = row, length, row.curvature[row.which[0]]
        self._origin = self._fill(min(16, length.bit_length()))
        blocks, k = len(self._origin), len(row.start)
        self._weight, self._extra = row.noise, np.empty((0, blocks, k * BLOCK))
        if carried is not None:
            kept, unit = carried
            with np.errstate(over="ignore", invalid="ignore"):  # diverged
                self._weight = row.noise * np.square(self._curvature * unit)
            if row.inverse_batch[0] == 0.0:  # no noise has come in
                self._weight = np.zeros_like(row.noise)
            self._extra = np.empty((k, blocks, k * BLOCK))
            for block in range(blocks):
                h = self._curvature[block * BLOCK : (block + 1) * BLOCK]
                carry_over(
                    h, row.lr[0], unit, row.transition[0], row.gain[0], row.fresh[0], row.query, row.readout,
                    row.start, row.scaled, kept[block], self._origin[block], self._extra, block,
                )  # fmt: skip

    def run(self, target: float, last: bool) -> float:
        """First step at or below ``target``; or the one after the last above it (0: none); inf if there is none.

        Raises TooManyLeaps.
        """
        row, h = self._row, self._curvature
        cost = 250.0 + 4.0 * row.bias.size * len(row.start) ** 2 * (len(row.start) + len(self._extra))
        state, extra = self._origin.copy(), self._extra.copy()
        ahead, extra_ahead, progress = np.empty_like(state), np.empty_like(extra), np.zeros(4, dtype=np.int64)
        while True:
            status = leaps.first_passage(
                h, row.bias, row.noise, self._weight, row.lr[0], row.fresh[0, 0], row.readout,
                row.start, row.inverse_batch[0], self._powers, self._boxes, state, ahead, extra, extra_ahead, target,
                last, self._length, progress, max(1, int(LOOK / cost)),
            )  # fmt: skip
            if status == leaps.FOUND:
                return float(progress[2])
            if status == leaps.NEVER:
                return float("inf")
            if status == leaps.MORE_LEVELS:
                self._fill(min(leaps.MOST_LEVELS, self._powers.shape[0] + 16))
            elif progress[3] * cost > MOST:
                raise TooManyLeaps(target, int(progress[0]), int(progress[3]))

    def _fill(self, levels: int) -> FloatArray:
        """Powers and boxes of so many levels; returns the state before the first step."""
        row, k = self._row, len(self._row.start)
        blocks = -(-row.bias.size // BLOCK)
        self._powers = np.empty((levels, blocks, POWER_SLOTS[k] * BLOCK))
        self._boxes = np.empty((levels, blocks, 2 * k * BLOCK))
        origin = np.empty((blocks, STATE_SLOTS[k] * BLOCK))
        leaps.fill_levels(
            self._curvature, row.lr[0], row.transition[0], row.gain[0], row.fresh[0], row.query, row.readout,
            row.start, self._powers, self._boxes, origin, 0, levels,
        )  # fmt: skip
        return origin


def along_schedules(whole: Rows, parts: Pieces, end: int, rests: float | None, target: float, last: bool) -> float:
    """As :meth:`March.run` along pieces, for steps before ``end`` (2^53 where they hold): short pieces step by step,
    long ones by :class:`March`.

    rests: decay of the average (0: none) of an optimizer whose iterate stays where it is while lr = 0; else None.
    """
    row = whole.in_units(parts.lr.max())
    unit = float(whole.lr[0] / row.lr[0])
    filtered = (row.transition[0], row.gain[0], row.fresh[0], row.query, row.readout, row.start)
    states = first_states(row)
    lengths, at, time, answer = parts.lengths, 0, 0, 0.0
    at_once = max(1, int(LOOK / (SHORT * row.bias.size * len(row.start) ** 2)))  # short pieces
    while at < lengths.size:
        long = lengths[at:] > SHORT
        short = int(np.argmax(long)) if long.any() else long.size
        here = slice(at, at + max(min(short, at_once), 1))
        if short:
            progress = np.zeros(2, dtype=np.int64)
            status = first_passage_step_by_step(
                row.curvature[0], row.bias, row.noise, row.lr[0] * parts.lr[here], *filtered, row.scaled,
                row.inverse_batch[0] * parts.inverse_batch[here], lengths[here], states[0], target, last, progress,
            )  # fmt: skip
            found = float(progress[1]) if last or status == leaps.FOUND else np.inf
        else:
            length = int(lengths[at])
            if parts.lr[at] == 0.0 and rests is not None:  # no bound can tell that it does
                found = _at_rest(row, states[0], rests, target, last, length)
            else:
                piece = whole._replace(
                    lr=whole.lr * parts.lr[at], inverse_batch=whole.inverse_batch * parts.inverse_batch[at]
                )
                try:
                    found = March(piece, length, (states[0], unit)).run(target, last)
                except TooManyLeaps as error:
                    raise TooManyLeaps(target, time + error.steps, error.leaps) from None
            if at + 1 < lengths.size:
                risk_along_rows(
                    *row, parts.lr[here], parts.inverse_batch[here], lengths[here], np.array([-1]), states,
                    np.empty((1, 1)),
                )  # fmt: skip
            elif np.isinf(found) and end == 2**53:
                return found
            if last and np.isinf(found):
                found = float(length)
        if not last and np.isfinite(found):
            return time + found
        if last and found > 0.0:
            answer = time + found
        time += int(lengths[here].sum())
        at = here.stop
    return answer if last else np.inf


def _at_rest(row: Rows, state: FloatArray, decay: float, target: float, last: bool, length: int) -> float:
    """As :meth:`March.run` while lr = 0."""
    k, nodes, noisy = len(row.start), row.bias.size, row.inverse_batch[0] > 0.0
    slots = state.reshape(len(state), -1, BLOCK).transpose(1, 0, 2).reshape(-1, len(state) * BLOCK)
    mean, noise = slots[:k, :nodes], row.noise * np.square(row.curvature[0])
    moments = np.zeros((k, k))
    for slot, (i, j) in enumerate(zip(*np.triu_indices(k), strict=True)):
        with np.errstate(over="ignore", invalid="ignore"):
            moments[i, j] = moments[j, i] = np.sum(
                np.where(row.bias > 0.0, row.bias * mean[i] * mean[j], 0.0)
                + np.where((noise > 0.0) & noisy, noise * slots[2 * k + slot, :nodes], 0.0)
            )
    return rest_crossing(moments, decay, target, last, length)


def first_states(row: Rows) -> FloatArray:
    """States before the first step as the chain's kernels keep them: (rows, blocks, slots BLOCK)."""
    k, blocks = len(row.start), -(-row.bias.size // BLOCK)
    states = np.zeros((row.lr.size, blocks, STATE_SLOTS[k], BLOCK))
    states[:, :, :k] = np.array(row.start)[:, None]
    return states.reshape(*states.shape[:2], -1)
