"""Many searches at once, their questions answered together.

A search asks for few rows at a time and decides by the answers what to ask next: too little for a GPU. Here each runs
in a thread of its own; when all of them wait for an answer, their rows are put together and computed in one call.
Rows know nothing of each other, so the answers are those that each search would get alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from .._checks import FloatArray, IntArray
from . import selection
from .types import Rows

T = TypeVar("T")

SEARCHES_AT_ONCE = 256


def together(searches: Sequence[Callable[[], T]]) -> Iterator[tuple[int, T]]:
    """(index, result) of each search, as they get done."""
    for first in range(0, len(searches), SEARCHES_AT_ONCE):
        some = searches[first : first + SEARCHES_AT_ONCE]
        gathered = Gathered(selection.current(), len(some))
        with ThreadPoolExecutor(len(some)) as pool:
            try:
                futures = {pool.submit(gathered.run, search): first + i for i, search in enumerate(some)}
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:
                gathered.stop()
                raise


class Gathered:
    """An engine for a number of searches, in the place of the chosen one; what it does not gather it hands on."""

    def __init__(self, chosen: selection.Choice, searches: int) -> None:
        with selection.using(chosen):
            self._engine = selection.chosen()
        self._stands_in, self._running = replace(chosen, engine=self), searches
        self._changed = threading.Condition()
        self._waiting: list[_Question] = []
        self._stopped = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, search: Callable[[], T]) -> T:
        """The search, with this engine in its thread."""
        try:
            with selection.using(self._stands_in):
                return search()
        finally:
            with self._changed:
                self._running -= 1
                self._answer()

    def stop(self) -> None:
        """End the searches at their next question."""
        with self._changed:
            self._stopped = True
            self._answer()

    def risk(self, row: Rows, steps: IntArray) -> FloatArray:
        return self._ask(_Question("risk", row, steps, None))

    def dyadic_risk(self, row: Rows, levels: int) -> FloatArray:
        return self._ask(_Question("dyadic_risk", row, None, levels))

    def _ask(self, question: _Question) -> FloatArray:
        with self._changed:
            self._waiting.append(question)
            self._answer()
            while question.answer is None:
                self._changed.wait()
        if isinstance(question.answer, BaseException):
            raise question.answer
        return question.answer

    def _answer(self) -> None:
        """Compute what is asked if nobody is left who could ask more."""
        if not self._waiting or (len(self._waiting) < self._running and not self._stopped):
            return
        kinds: dict[Any, list[_Question]] = {}
        for question in self._waiting:
            kinds.setdefault(question.kind(), []).append(question)
        self._waiting = []
        for alike in kinds.values():
            try:
                if self._stopped:
                    raise RuntimeError("the search was stopped")
                answers: Any = self._compute(alike)
            except BaseException as error:  # is that of all who asked
                answers = [error] * len(alike)
            for question, answer in zip(alike, answers, strict=True):
                question.answer = answer
        self._changed.notify_all()

    def _compute(self, alike: list[_Question]) -> list[FloatArray]:
        row, first = put_together([q.row for q in alike]), alike[0]
        if first.steps is None:
            found = self._engine.dyadic_risk(row, first.levels)
        else:
            found = self._engine.risk(row, np.concatenate([q.steps for q in alike if q.steps is not None]))
        return np.split(found, np.cumsum([q.row.lr.size for q in alike])[:-1])


class _Question:
    def __init__(self, name: str, row: Rows, steps: IntArray | None, levels: int | None) -> None:
        self.name, self.row, self.steps, self.levels = name, row, steps, levels
        self.answer: FloatArray | BaseException | None = None

    def kind(self) -> tuple[Any, ...]:
        """What the rows of one call share: the nodes, and what of the filter is no number of a row."""
        row = self.row
        filters = (
            row.query.tobytes(),
            row.readout.tobytes(),
            row.start,
            row.scaled.tobytes(),
            bool(row.fresh[0, 0] > 0.0),
        )
        return self.name, self.levels, _address(row.bias), *filters


def put_together(rows: list[Rows]) -> Rows:
    """Rows on the same nodes as one; of curvatures (powers) that are the same array, one copy."""
    tables: dict[int, FloatArray] = {}
    offsets, height = {}, 0
    for row in rows:
        at = _address(row.curvature)
        if at not in tables:
            tables[at], offsets[at] = row.curvature, height
            height += len(row.curvature)
    which = [row.which + offsets[_address(row.curvature)] for row in rows]
    curvature = next(iter(tables.values())) if len(tables) == 1 else np.concatenate(list(tables.values()))

    def joined(name: str) -> Any:
        return np.concatenate([getattr(row, name) for row in rows])

    names = ("lr", "transition", "gain", "fresh", "inverse_batch")
    return rows[0]._replace(curvature=curvature, which=np.concatenate(which), **{n: joined(n) for n in names})


def _address(array: FloatArray) -> int:
    return int(array.__array_interface__["data"][0])
