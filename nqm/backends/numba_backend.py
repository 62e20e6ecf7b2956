"""The engine "numba": compiled code, rows spread over threads.

A row is computed by one thread from beginning to end, and very many nodes in segments of a fixed size whose risks are
added up in order: the bits do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .._checks import FloatArray, IntArray
from .first_passage import first_states
from .kernels.blocks import STATE_SLOTS
from .kernels.first_passage import first_passage_rows
from .kernels.gradient import risk_and_gradient
from .kernels.risk import dyadic_rows, risk_rows
from .kernels.words import risk_along_rows
from .selection import threads
from .types import Pieces, Rows, Slopes

SEGMENT = 2**16
"""Nodes of a segment: a multiple of a block."""

WORTH = 2e6
"""Work for which a thread is started, in multiplications of two numbers: about a millisecond."""

LONGEST = 2e9
"""Work after which a thread looks up: about a second."""

NUMBERS_AT_ONCE = 2**18
"""Intermediate results that a thread keeps."""

MANY_PIECES = 2**14
"""Pieces of a schedule after which a thread looks up; where there are more, rows come one by one."""

LEAPS = 2000
"""Leaps over time after which a row is left to :mod:`nqm.backends.first_passage`, which looks at the keyboard."""


def risk(row: Rows, steps: IntArray) -> FloatArray:
    """Expected risk of each row after ``steps`` (R,) steps."""

    def work(part: Rows, rows: slice, out: FloatArray) -> None:
        risk_rows(*part[:-1], steps[rows], out)

    return _sum_over_nodes(row, work, (), steps.size * (2.0 + int(steps.max()).bit_length()))


def dyadic_risk(row: Rows, levels: int) -> FloatArray:
    """Expected risk after 2^j steps, j = 0 ... levels - 1: (R, levels)."""

    def work(part: Rows, rows: slice, out: FloatArray) -> None:
        dyadic_rows(*part[:-1], out)

    return _sum_over_nodes(row, work, (levels,), 2.0 * levels * row.lr.size)


def chained_risk(row: Rows, parts: Pieces, columns: int) -> FloatArray:
    """Expected risk along pieces, added up where their column is the same: (R, columns)."""

    def work(part: Rows, rows: slice, out: FloatArray) -> None:
        at_once = max(1, NUMBERS_AT_ONCE // (part.bias.size * STATE_SLOTS[len(part.start)]))
        if parts.lengths.size > MANY_PIECES:
            at_once = 1
        for first in range(0, part.lr.size, at_once):
            some = slice(first, first + at_once)
            few = part.part(some)
            states = first_states(few)
            for piece in range(0, parts.lengths.size, MANY_PIECES):
                there = slice(piece, piece + MANY_PIECES)
                risk_along_rows(*few, *(column[there] for column in parts), states, out[some])

    doublings = float(np.log2(parts.lengths + 2.0).sum())
    found = _sum_over_nodes(row, work, (columns,), doublings * row.lr.size)
    found[np.isnan(found)] = np.inf
    return found


def slopes(
    curvature: FloatArray, bias: FloatArray, noise: FloatArray, lr: FloatArray, transition: FloatArray,
    gain: FloatArray, fresh: FloatArray, query: FloatArray, readout: FloatArray, start: tuple[float, ...],
    scaled: IntArray, inverse_batch: FloatArray, lengths: IntArray, spans: FloatArray,
) -> Slopes:  # fmt: skip
    """A risk along pieces and its derivatives: see :func:`nqm.backends.kernels.gradient.risk_and_gradient`."""
    found = Slopes(0.0, np.empty(lr.size), np.empty(lr.size), np.empty(spans.size))
    risk = risk_and_gradient(
        curvature, bias, noise, lr, transition, gain, fresh, query, readout, start, scaled, inverse_batch, lengths,
        spans, *found[1:],
    )  # fmt: skip
    return found._replace(risk=risk)


def crossings(row: Rows, targets: FloatArray, last: bool) -> FloatArray:
    """First step at or below the target, or the one after the last above it; inf: never, NaN: not found in few
    leaps."""
    out = np.empty(targets.size)
    if targets.size == 1:  # the walk that can be interrupted
        out[0] = np.nan
        return out

    def work(part: Rows, rows: slice, found: FloatArray) -> None:
        first_passage_rows(*part[:-1], targets[rows], last, LEAPS, found)

    leap = 4.0 * _size(row) * targets.size  # of all rows
    _in_threads([(row, part, out) for part in _slices(targets.size, 25.0 * leap, LEAPS * leap)], work, 25.0 * leap)
    return out


def _size(row: Rows) -> float:
    """Multiplications for a product of two powers on all nodes, roughly."""
    return row.bias.size * len(row.start) ** 3


def _sum_over_nodes(
    row: Rows, work: Callable[[Rows, slice, FloatArray], None], shape: tuple[int, ...], doublings: float
) -> FloatArray:
    """Risks (R, *shape), filled by ``work(part, rows, out)``, which is given at most a segment of nodes."""
    rows, nodes = row.lr.size, row.bias.size
    out = np.zeros((rows, *shape))
    if nodes <= SEGMENT:
        cost = doublings * _size(row)
        if cost < 2.0 * WORTH:  # what small problems ask for thousands of times
            work(row, slice(None), out)
        else:
            _in_threads([(row, part, out) for part in _slices(rows, cost)], work, cost)
        return out
    together = max(1, NUMBERS_AT_ONCE // out.size)
    for begin in range(0, nodes, together * SEGMENT):
        segments = [row.on_nodes(slice(n, n + SEGMENT)) for n in range(begin, nodes, SEGMENT)[:together]]
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
    jobs: list[tuple[Rows, slice, FloatArray]], work: Callable[[Rows, slice, FloatArray], None], cost: float
) -> None:
    """``work`` on all jobs: in this thread where more do not pay."""

    def do(job: tuple[Rows, slice, FloatArray]) -> None:
        row, part, out = job
        work(row.part(part), part, out[part])

    count = int(min(threads(), len(jobs), cost / WORTH))
    if count < 2:
        for job in jobs:
            do(job)
        return
    with ThreadPoolExecutor(count) as pool:
        for _ in pool.map(do, jobs):
            pass
