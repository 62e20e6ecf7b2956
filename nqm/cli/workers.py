"""Processes that share the work."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

__all__ = ["add_workers", "processes", "require_workers"]

if TYPE_CHECKING:
    from concurrent.futures import Executor


def add_workers(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--workers", type=int, default=1, metavar="N", help=f"processes to spread {what} over")


def require_workers(count: int) -> None:
    if count < 1:
        raise ValueError(f"--workers: expected at least 1, got {count}")


@contextmanager
def processes(count: int) -> Iterator[Executor | None]:
    """An executor of so many processes, None for one; Ctrl-C ends what they are doing."""
    if count == 1:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import active_children, get_context

    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            for process in active_children():
                process.terminate()
            raise
