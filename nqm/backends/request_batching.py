"""Many searches at once, their requests answered together.

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
from .types import FilterBatch

__all__ = ["BatchingBackend", "together"]

T = TypeVar("T")

SEARCHES_AT_ONCE = 256


def together(searches: Sequence[Callable[[], T]]) -> Iterator[tuple[int, T]]:
    """(index, result) of each search, as they get done."""
    for first in range(0, len(searches), SEARCHES_AT_ONCE):
        some = searches[first : first + SEARCHES_AT_ONCE]
        batching = BatchingBackend(selection.current_choice(), len(some))
        with ThreadPoolExecutor(len(some)) as pool:
            try:
                futures = {pool.submit(batching.run, search): first + i for i, search in enumerate(some)}
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:
                batching.stop()
                raise


class BatchingBackend:
    """A backend for a number of searches, in the place of the chosen one; what it does not batch it hands on."""

    def __init__(self, chosen: selection.BackendChoice, searches: int) -> None:
        with selection.using(chosen):
            self._backend = selection.current_backend()
        self._stands_in, self._running = replace(chosen, backend=self), searches
        self._changed = threading.Condition()
        self._waiting: list[Request] = []
        self._stopped = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def run(self, search: Callable[[], T]) -> T:
        """The search, with this backend in its thread."""
        try:
            with selection.using(self._stands_in):
                return search()
        finally:
            with self._changed:
                self._running -= 1
                self._answer()

    def stop(self) -> None:
        """End the searches at their next request."""
        with self._changed:
            self._stopped = True
            self._answer()

    def risk(self, batch: FilterBatch, steps: IntArray) -> FloatArray:
        return self._ask(Request("risk", batch, steps, None))

    def dyadic_risk(self, batch: FilterBatch, levels: int) -> FloatArray:
        return self._ask(Request("dyadic_risk", batch, None, levels))

    def _ask(self, request: Request) -> FloatArray:
        with self._changed:
            self._waiting.append(request)
            self._answer()
            while request.answer is None:
                self._changed.wait()
        if isinstance(request.answer, BaseException):
            raise request.answer
        return request.answer

    def _answer(self) -> None:
        """Compute what is asked if nobody is left who could ask more."""
        if not self._waiting or (len(self._waiting) < self._running and not self._stopped):
            return
        kinds: dict[Any, list[Request]] = {}
        for request in self._waiting:
            kinds.setdefault(request.kind(), []).append(request)
        self._waiting = []
        for alike in kinds.values():
            try:
                if self._stopped:
                    raise RuntimeError("the search was stopped")
                answers: Any = self._compute(alike)
            except BaseException as error:  # is that of all who asked
                answers = [error] * len(alike)
            for request, answer in zip(alike, answers, strict=True):
                request.answer = answer
        self._changed.notify_all()

    def _compute(self, alike: list[Request]) -> list[FloatArray]:
        batch, first = put_together([request.batch for request in alike]), alike[0]
        if first.steps is None:
            found = self._backend.dyadic_risk(batch, first.levels)
        else:
            steps = [request.steps for request in alike if request.steps is not None]
            found = self._backend.risk(batch, np.concatenate(steps))
        return np.split(found, np.cumsum([request.batch.lr.size for request in alike])[:-1])


class Request:
    def __init__(self, name: str, batch: FilterBatch, steps: IntArray | None, levels: int | None) -> None:
        self.name, self.batch, self.steps, self.levels = name, batch, steps, levels
        self.answer: FloatArray | BaseException | None = None

    def kind(self) -> tuple[Any, ...]:
        """What the rows of one call share: the nodes, and what of the filter is no number of a row."""
        batch = self.batch
        filters = (batch.query.tobytes(), batch.readout.tobytes(), batch.start, batch.lr_scaled.tobytes())
        maps = (batch.transition.shape[1], batch.averages)
        return self.name, self.levels, _address(batch.start_weight), *filters, *maps


def put_together(batches: list[FilterBatch]) -> FilterBatch:
    """Rows on the same nodes as one; of curvatures (powers) that are the same array, one copy."""
    tables: dict[int, FloatArray] = {}
    offsets, height = {}, 0
    for batch in batches:
        at = _address(batch.curvature)
        if at not in tables:
            tables[at], offsets[at] = batch.curvature, height
            height += len(batch.curvature)
    power_index = [batch.power_index + offsets[_address(batch.curvature)] for batch in batches]
    curvature = next(iter(tables.values())) if len(tables) == 1 else np.concatenate(list(tables.values()))

    def joined(name: str) -> Any:
        return np.concatenate([getattr(batch, name) for batch in batches])

    names = ("lr", "transition", "gain", "averaging_weight", "inverse_batch_size")
    return batches[0]._replace(
        curvature=curvature, power_index=np.concatenate(power_index), **{name: joined(name) for name in names}
    )


def _address(array: FloatArray) -> int:
    return int(array.__array_interface__["data"][0])
