"""When is the target reached? One row at a time, in compiled code: along words, and for what takes very many leaps.

Leaps over time and what proves them: :mod:`nqm.backends.kernels.first_passage`.
"""

from __future__ import annotations

import numpy as np

from .._checks import FloatArray
from .._status import TooManyLeaps
from .kernels import first_passage as kernel
from .kernels.blocks import BLOCK, POWER_SLOTS, STATE_SLOTS
from .kernels.carry_over import carry_over
from .kernels.words import first_passage_step_by_step, risk_along_rows
from .types import FilterBatch, Word
from .zero_lr import first_passage_at_zero_lr

__all__ = ["FirstPassageSearch", "first_passage_along", "first_states"]

SHORT = 64  # letters up to this length are searched step by step
LOOK = 2e8  # work between checks for Ctrl-C, in multiplications: less than a second
MOST = 2e10  # work for which a search goes on: some twenty seconds


class FirstPassageSearch:
    """The search of :mod:`nqm.backends.kernels.first_passage` for one row; ``run`` goes on until there is an answer.

    ``length``: steps at most. ``carried``: the state that earlier letters of a word leave, and its units.
    """

    def __init__(
        self, batch: FilterBatch, length: int = 2**53, carried: tuple[FloatArray, float] | None = None
    ) -> None:
        self._batch, self._length = batch, length
        self._search = self._filled(min(16, length.bit_length()))
        if carried is not None:
            (kept, unit), k = carried, len(batch.start)
            with np.errstate(over="ignore", invalid="ignore"):  # diverged
                weight = batch.noise_weight * np.square(batch.curvature[batch.power_index[0]] * unit)
            if batch.inverse_batch_size[0] == 0.0:  # no noise has come in
                weight = np.zeros_like(batch.noise_weight)
            columns = np.empty((k, len(kept), k * BLOCK))
            self._search = self._search._replace(
                carried_weight=weight, columns=columns, columns_ahead=np.empty_like(columns)
            )
            carry_over(tuple(batch), unit, kept, tuple(self._search))

    def run(self, target_risk: float, last: bool) -> float:
        """First step at or below ``target_risk``; or the one after the last above it (0: none); inf if there is none.

        Raises TooManyLeaps.
        """
        batch, search, k = self._batch, self._search, len(self._batch.start)
        cost = 250.0 + 4.0 * batch.start_weight.size * k**2 * (k + len(search.columns))
        budget = max(1, int(LOOK / cost))
        while True:
            status = kernel.first_passage(tuple(batch), 0, tuple(search), target_risk, last, self._length, budget)
            steps, _, answer, leaps, levels = search.progress.tolist()
            if status == kernel.FOUND:
                return float(answer)
            if status == kernel.NEVER:
                return float("inf")
            if status == kernel.MORE_LEVELS:
                more = self._filled(min(kernel.MOST_LEVELS, levels + 16))
                search = search._replace(powers=more.powers, boxes=more.boxes)
                search.progress[4] = more.progress[4]
            elif leaps * cost > MOST:
                raise TooManyLeaps(target_risk, steps, leaps)

    def _filled(self, levels: int) -> kernel.Search:
        """A search with so many levels, before the first step."""
        batch, k = self._batch, len(self._batch.start)
        blocks = -(-batch.start_weight.size // BLOCK)
        state, columns = np.empty((blocks, STATE_SLOTS[k] * BLOCK)), np.empty((0, blocks, k * BLOCK))
        search = kernel.Search(
            np.empty((levels, blocks, POWER_SLOTS[k] * BLOCK)), np.empty((levels, blocks, 2 * k * BLOCK)),
            state, np.empty_like(state), batch.noise_weight, columns, columns, np.zeros(5, dtype=np.int64),
        )  # fmt: skip
        kernel.fill_levels(tuple(batch), 0, tuple(search), 0, levels)
        return search


def first_passage_along(
    whole: FilterBatch, word: Word, end: int, resting_decay: float | None, target_risk: float, last: bool
) -> float:
    """As :meth:`FirstPassageSearch.run` along a word, for steps before ``end`` (2^53 where its last letter holds).

    Short letters step by step, long ones by :class:`FirstPassageSearch`. resting_decay: decay of the average (0: none)
    of an optimizer whose iterate stays where it is while lr = 0; else None.
    """
    batch = whole.in_units(word.lr.max())
    unit = float(whole.lr[0] / batch.lr[0])
    states = first_states(batch)
    lengths, at, time, answer = word.repeat, 0, 0, 0.0
    at_once = max(1, int(LOOK / (SHORT * batch.start_weight.size * len(batch.start) ** 2)))  # short letters
    while at < lengths.size:
        long = lengths[at:] > SHORT
        short = int(np.argmax(long)) if long.any() else long.size
        here = slice(at, at + max(min(short, at_once), 1))
        if short:
            found = _step_by_step(batch, word.part(here), states, target_risk, last)
        else:
            length = int(lengths[at])
            if word.lr[at] == 0.0 and resting_decay is not None:  # no bound can tell that it does
                found = _at_zero_lr(batch, states[0], resting_decay, target_risk, last, length)
            else:
                try:
                    found = FirstPassageSearch(whole.letter(word, at), length, (states[0], unit)).run(target_risk, last)
                except TooManyLeaps as error:
                    raise TooManyLeaps(target_risk, time + error.steps, error.leaps) from None
            if at + 1 < lengths.size:
                silent = word.part(here)._replace(output_column=np.array([-1]))
                risk_along_rows(tuple(batch), tuple(silent), states, np.empty((1, 1)))
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


def _step_by_step(batch: FilterBatch, word: Word, states: FloatArray, target_risk: float, last: bool) -> float:
    """The search along short letters; states: those before the first one, and after the last when done."""
    progress = np.zeros(2, dtype=np.int64)
    status = first_passage_step_by_step(batch, word, states[0], target_risk, last, progress)
    return float(progress[1]) if last or status == kernel.FOUND else np.inf


def _at_zero_lr(
    batch: FilterBatch, state: FloatArray, decay: float, target_risk: float, last: bool, length: int
) -> float:
    """As :meth:`FirstPassageSearch.run` while lr = 0."""
    k, nodes, noisy = len(batch.start), batch.start_weight.size, batch.inverse_batch_size[0] > 0.0
    slots = state.reshape(len(state), -1, BLOCK).transpose(1, 0, 2).reshape(-1, len(state) * BLOCK)
    mean, noise = slots[:k, :nodes], batch.noise_weight * np.square(batch.curvature[0])
    moments = np.zeros((k, k))
    for slot, (i, j) in enumerate(zip(*np.triu_indices(k), strict=True)):
        with np.errstate(over="ignore", invalid="ignore"):
            moments[i, j] = moments[j, i] = np.sum(
                np.where(batch.start_weight > 0.0, batch.start_weight * mean[i] * mean[j], 0.0)
                + np.where((noise > 0.0) & noisy, noise * slots[2 * k + slot, :nodes], 0.0)
            )
    return first_passage_at_zero_lr(moments, decay, target_risk, last, length)


def first_states(batch: FilterBatch) -> FloatArray:
    """States before the first step as the kernels for words keep them: (rows, blocks, slots BLOCK)."""
    k, blocks = len(batch.start), -(-batch.start_weight.size // BLOCK)
    states = np.zeros((batch.lr.size, blocks, STATE_SLOTS[k], BLOCK))
    states[:, :, :k] = np.array(batch.start)[:, None]
    return states.reshape(*states.shape[:2], -1)
