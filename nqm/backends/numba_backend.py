"""The backend "numba": compiled code, rows spread over threads.

A row is computed by one thread from beginning to end, and very many nodes in segments of a fixed size whose risks are
added up in order: the bits do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .._checks import FloatArray, IntArray
from .first_passage import FirstPassageSearch, first_passage_along, first_states
from .kernels.blocks import STATE_SLOTS
from .kernels.first_passage import first_passage_rows
from .kernels.gaussian_features import take_steps
from .kernels.gradient import gradient_of_row
from .kernels.newton import newton_steps_to
from .kernels.risk import dyadic_rows, risk_rows
from .kernels.scaling import SUMS, fill_effective_lrs, fill_mode_sums
from .kernels.words import risk_along_rows
from .selection import threads
from .types import FilterBatch, MomentRecursion, RiskGradient, Word

__all__ = [
    "dyadic_risk", "effective_lrs", "first_passage", "first_passage_along", "gaussian_features_steps", "mode_sums",
    "newton_steps", "risk", "risk_along", "risk_and_gradient",
]  # fmt: skip

SEGMENT = 2**16
"""Nodes of a segment: a multiple of a block."""

WORTH = 2e6
"""Work for which a thread is started, in multiplications of two numbers: about a millisecond."""

MOST_DOUBLINGS = 56.0
"""What up to 2^53 steps take, and to set up and to read: as many products of two powers."""

LONGEST = 2e9
"""Work after which a thread checks for Ctrl-C: about a second."""

NUMBERS_AT_ONCE = 2**18
"""Intermediate results that a thread keeps."""

MANY_LETTERS = 2**14
"""Letters of a word after which a thread checks for Ctrl-C; where there are more, rows come one by one."""

LEAPS = 2000
"""Leaps over time after which a row is left to :class:`FirstPassageSearch`, which checks for Ctrl-C."""


def risk(batch: FilterBatch, steps: IntArray) -> FloatArray:
    """Expected risk of each row after ``steps`` (R,) steps."""
    if steps.size * MOST_DOUBLINGS * _size(batch) < 2.0 * WORTH:  # what is asked for thousands of times
        out = np.empty(steps.size)
        risk_rows(tuple(batch), steps, out)
        return out

    def work(part: FilterBatch, rows: slice, out: FloatArray) -> None:
        risk_rows(tuple(part), steps[rows], out)

    return _sum_over_nodes(batch, work, (), steps.size * (2.0 + int(steps.max()).bit_length()))


def dyadic_risk(batch: FilterBatch, levels: int) -> FloatArray:
    """Expected risk after 2^j steps, j = 0 ... levels - 1: (R, levels)."""

    def work(part: FilterBatch, rows: slice, out: FloatArray) -> None:
        dyadic_rows(tuple(part), out)

    return _sum_over_nodes(batch, work, (levels,), 2.0 * levels * batch.lr.size)


def risk_along(batch: FilterBatch, word: Word, columns: int) -> FloatArray:
    """Expected risk along a word, added up where output columns are the same: (R, columns).

    Curvatures and learning rates come scaled by a power of two, so that the largest learning rate is about 1.
    """

    def work(part: FilterBatch, rows: slice, out: FloatArray) -> None:
        at_once = max(1, NUMBERS_AT_ONCE // (part.start_weight.size * STATE_SLOTS[len(part.start)]))
        if word.repeat.size > MANY_LETTERS:
            at_once = 1
        for first in range(0, part.lr.size, at_once):
            some = slice(first, first + at_once)
            few = part.part(some)
            states = first_states(few)
            for letter in range(0, word.repeat.size, MANY_LETTERS):
                letters = tuple(word.part(slice(letter, letter + MANY_LETTERS)))
                risk_along_rows(tuple(few), letters, states, out[some])

    doublings = float(np.log2(word.repeat + 2.0).sum())
    found = _sum_over_nodes(batch, work, (columns,), doublings * batch.lr.size)
    found[np.isnan(found)] = np.inf
    return found


def risk_and_gradient(batch: FilterBatch, word: Word, spans: FloatArray) -> RiskGradient:
    """A risk along a word and its derivatives: see :func:`nqm.backends.kernels.gradient.gradient_of_row`."""
    letters = word.repeat.size
    found = RiskGradient(0.0, np.empty(letters), np.empty(letters), np.empty(spans.size))
    return found._replace(risk=gradient_of_row(batch, batch.start, word, spans, found))


def first_passage(batch: FilterBatch, target_risks: FloatArray, last: bool) -> FloatArray:
    """First step with risk at or below the target, or (``last``) the one after the last above it: (R,).

    inf: never within 2^53 steps. Raises TooManyLeaps where a row takes too many leaps over time to tell.
    """
    out = np.full(target_risks.size, np.nan)

    def work(part: FilterBatch, rows: slice, found: FloatArray) -> None:
        first_passage_rows(tuple(part), target_risks[rows], last, LEAPS, found)

    if target_risks.size > 1:
        leap = 4.0 * _size(batch) * target_risks.size  # of all rows
        _in_threads(
            [(batch, part, out) for part in _slices(target_risks.size, 25.0 * leap, LEAPS * leap)], work, 25.0 * leap
        )
    return search_one_by_one(batch, target_risks, last, out)


def search_one_by_one(batch: FilterBatch, target_risks: FloatArray, last: bool, found: FloatArray) -> FloatArray:
    """``found`` with an answer for the rows that are NaN, from searches that can be interrupted."""
    for i in np.flatnonzero(np.isnan(found)):
        found[i] = FirstPassageSearch(batch.part(slice(i, i + 1))).run(float(target_risks[i]), last)
    return found


# --- what is not about rows --------------------------------------------------------------------------------------


def newton_steps(
    values: FloatArray, center: FloatArray, size: FloatArray, radius: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Minima (S, n) over boxes of quadratics through stencils, and what they promise (S,).

    See :func:`nqm.backends.kernels.newton.newton_steps_to`.
    """
    points, gains = np.empty_like(center), np.empty(len(center))
    newton_steps_to(values, center, size, radius, low, high, points, gains)
    return points, gains


LOOK = 3e8
"""Multiplications of a recursion between checks for Ctrl-C: about a third of a second."""


def gaussian_features_steps(
    recursion: MomentRecursion, state: FloatArray, steps: int, target_risk: float, last: bool
) -> tuple[int, int]:
    """Take ``steps`` steps of a recursion of second moments, in place: (steps taken, answer).

    last = False: stops before the first step with risk <= target_risk, with the answer 1, else 0. last = True: goes on,
    and the answer is the number of steps taken when last above the target, plus one. target_risk < 0 looks for nothing.
    """
    progress = np.zeros(2, dtype=np.int64)
    at_once = max(1, int(LOOK / (recursion.decay.size + 100.0)))
    while progress[0] < steps and (last or not progress[1]):
        some = min(at_once, steps - int(progress[0]))
        take_steps(recursion, state, some, target_risk, last, progress)
    return int(progress[0]), int(progress[1])


def effective_lrs(pieces: Any, growth: float, decay: float) -> tuple[FloatArray, FloatArray]:
    """Learning rates over weights whose norm changes, and their derivatives by growth and decay, (pieces, 2).

    See :func:`nqm.backends.kernels.scaling.fill_effective_lrs`.
    """
    found, tangents = np.empty(pieces.lrs.size), np.empty((pieces.lrs.size, 2))
    fill_effective_lrs(pieces, growth, decay, found, tangents)
    return found, tangents


def mode_sums(
    log_n: FloatArray, h: FloatArray, start: FloatArray, noise: FloatArray, pieces: Any, tangents: FloatArray
) -> FloatArray:
    """Sums over modes at the end of every piece that is seen: see
    :func:`nqm.backends.kernels.scaling.fill_mode_sums`."""
    sums = np.zeros((int(np.count_nonzero(pieces.seen)), SUMS + tangents.shape[1]))
    fill_mode_sums(log_n, h, start, noise, pieces, tangents, sums)
    return sums


# --- rows and nodes on threads -----------------------------------------------------------------------------------


def _size(batch: FilterBatch) -> float:
    """Multiplications for a product of two powers on all nodes, roughly."""
    return batch.start_weight.size * len(batch.start) ** 3


def _sum_over_nodes(
    batch: FilterBatch, work: Callable[[FilterBatch, slice, FloatArray], None], shape: tuple[int, ...], doublings: float
) -> FloatArray:
    """Risks (R, *shape), filled by ``work(part, rows, out)``, which is given at most a segment of nodes."""
    rows, nodes = batch.lr.size, batch.start_weight.size
    out = np.zeros((rows, *shape))
    if nodes <= SEGMENT:
        cost = doublings * _size(batch)
        if cost < 2.0 * WORTH:
            work(batch, slice(None), out)
        else:
            _in_threads([(batch, part, out) for part in _slices(rows, cost)], work, cost)
        return out
    together = max(1, NUMBERS_AT_ONCE // out.size)
    for begin in range(0, nodes, together * SEGMENT):
        segments = [batch.on_nodes(slice(n, n + SEGMENT)) for n in range(begin, nodes, SEGMENT)[:together]]
        risks = np.zeros((len(segments), *out.shape))
        cost = doublings * _size(segments[0])
        jobs = [(s, part, r) for s, r in zip(segments, risks, strict=True) for part in _slices(rows, cost)]
        _in_threads(jobs, work, cost * len(segments))
        for found in risks:
            out += found
    return out


def _slices(rows: int, cost: float, most: float | None = None) -> list[slice]:
    """Rows cut for threads: more parts than threads, as rows differ, and none of more than about a second, unless a
    single row takes longer. ``most``: the cost at most."""
    parts = min(rows, max(1, math.ceil((most or cost) / LONGEST), int(min(4 * threads(), cost / WORTH))))
    step = math.ceil(rows / parts)
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]


def _in_threads(
    jobs: list[tuple[FilterBatch, slice, FloatArray]],
    work: Callable[[FilterBatch, slice, FloatArray], None],
    cost: float,
) -> None:
    """``work`` on all jobs: in this thread where more do not pay."""

    def do(job: tuple[FilterBatch, slice, FloatArray]) -> None:
        batch, part, out = job
        work(batch.part(part), part, out[part])

    count = int(min(threads(), len(jobs), cost / WORTH))
    if count < 2:
        for job in jobs:
            do(job)
        return
    with ThreadPoolExecutor(count) as pool:
        for _ in pool.map(do, jobs):
            pass
