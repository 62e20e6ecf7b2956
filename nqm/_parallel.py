"""Handing work to executors: the argument, and futures that can be waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, TypeVar

from . import _checks

__all__ = ["cancelled_at_the_end", "check_executor", "submit"]

T = TypeVar("T")


def check_executor(executor: Any) -> None:
    """Refuse what is neither None nor an object with ``submit``.

    Raises:
        TypeError: for anything else, classes of executors included.
    """
    if executor is not None and (isinstance(executor, type) or not callable(getattr(executor, "submit", None))):
        raise TypeError(f"executor: expected a concurrent.futures.Executor or None, got {_checks.describe(executor)}")


def submit(executor: Executor, function: Callable[..., T], *arguments: Any) -> Future[T]:
    """``executor.submit``, which has to return a ``concurrent.futures.Future``: others cannot be waited for together.

    Raises:
        TypeError: where it returns something else, such as a dask Client; what was submitted is cancelled.
    """
    future = executor.submit(function, *arguments)
    if isinstance(future, Future):
        return future
    stop = getattr(future, "cancel", None) or getattr(future, "close", None)  # a future's, or a coroutine's
    if callable(stop):
        stop()
    kind = type(future)
    hint = "; of a dask Client take client.get_executor()" if kind.__module__.startswith("distributed.") else ""
    raise TypeError(
        "executor: expected a concurrent.futures.Executor, whose submit returns a concurrent.futures.Future, got one "
        f"whose submit returns a {kind.__module__}.{kind.__qualname__}{hint}"
    )


@contextmanager
def cancelled_at_the_end(futures: Iterable[Future[Any]]) -> Iterator[None]:
    """Futures (those that are there when the block ends) are cancelled where they have not begun."""
    try:
        yield
    finally:
        for future in futures:
            future.cancel()
